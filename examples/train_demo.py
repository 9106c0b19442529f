"""Trains the bundle that ships as `demo` again, from nothing: renders parts, trains, measures, installs.

    make train-demo

Everything is seeded: the pictures are the same everywhere, and the model on one kind of processor.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from algan_stream import demo
from algan_stream.demo.parts import write_dataset

RUNS = Path("runs")
CONFIG = Path(__file__).with_name("train_demo.toml")


def main() -> None:
    """Renders, trains (or goes on where an earlier run stopped), and puts the bundle into the package."""
    data, bundle = RUNS / "demo-data", RUNS / "demo"
    if not data.exists():
        write_dataset(data, good=600, test_good=240, test_defective=280, size_px=128, seed=1)
    algan_stream = Path(sys.executable).with_name("algan-stream")
    command = [str(algan_stream), "train", str(data), "--out", str(bundle), "--config", str(CONFIG)]
    resume = ["--resume"] if Path(f"{bundle}.training").exists() else []
    options = ["--name", "demo flange", "--false-reject-rate", "0.05", *sys.argv[1:]]
    subprocess.run([*command, *options, *resume], check=True)
    shipped = Path(demo.__file__).parent / "bundle"
    shutil.rmtree(shipped, ignore_errors=True)
    shutil.copytree(bundle, shipped)


if __name__ == "__main__":
    main()
