"""The demo on real pictures: solar cells under electroluminescence, judged by a bundle trained on the spot.

    make demo-solar

The pictures come from the package `elpv-dataset` (Deitsch et al. 2019, CC BY-NC-SA 4.0), and stay in runs/.
A few minutes of training at a small size show how it works; they are not enough to judge cells by.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from algan_stream.commands.demo import show
from algan_stream.config import CameraConfig, LineConfig

#: Probability of a defect, as labelled by experts, to the name of a folder; the doubtful ones are left out.
LABELS = {0.0: "good", 1.0: "defective"}


def write_images(folder: Path, train_good: int, test_each: int) -> None:
    """Writes monocrystalline cells as an MVTec AD layout: train/good, test/good, test/defective."""
    from elpv_dataset.utils import load_dataset

    images, probabilities, types = load_dataset()
    rng = np.random.default_rng(0)
    for probability, name in LABELS.items():
        chosen = rng.permutation(np.flatnonzero((types == "mono") & (probabilities == probability)))
        places = [folder / "test" / name] * test_each
        if name == "good":
            places += [folder / "train" / "good"] * train_good
        for i, place in zip(chosen, places, strict=False):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(place / f"cell{i:04}.png")


def main() -> None:
    """Prepares the pictures once, trains once (or goes on), and shows the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--fps", type=float, default=25.0)
    args = parser.parse_args()
    root = Path("runs/solar")
    data, bundle = root / "cells", root / f"bundle{args.size}w{args.width}e{args.epochs}"
    if not data.exists():
        write_images(data, train_good=400, test_each=150)
    if not bundle.exists():
        command = [
            str(Path(sys.executable).with_name("algan-stream")),
            "train",
            str(data),
            "--out",
            str(bundle),
        ]
        options = {"--size": args.size, "--width": args.width, "--epochs": args.epochs}
        flags = [str(word) for option in options.items() for word in option]
        resume = ["--resume"] if Path(f"{bundle}.training").exists() else []
        subprocess.run([*command, *flags, "--false-reject-rate", "0.1", *resume], check=True)
    source = {"kind": "folder", "path": str(data / "test"), "fps": args.fps, "shuffle": True}
    camera = CameraConfig(id="cells", source=source, deadline_ms=200.0)
    line = LineConfig(bundle=str(bundle), cameras=(camera,))
    show(line, f"solar cells at {args.fps:g} frames/s", lambda part_id: [Path(part_id).parts[0]])


if __name__ == "__main__":
    main()
