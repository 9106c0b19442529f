"""Compares ways of making saliency maps on masks: pixel AUROC and pointing accuracy of each.

    python benchmarks/saliency.py BUNDLE DATA [--split validation] [--recipes relevance-0-zero,…]

BUNDLE is one for images, trained on DATA, whose masks are known (MTD, MVTec layout, …). For each recipe an
explanation graph is built from the bundle's discriminator and its training images, and run by the runtime's
own engine, just as `algan-stream evaluate --pixel` does. The default recipe was chosen by the validation
split; its numbers are the test split's. `contrast-only` is no recipe but a yardstick: how steep the image
itself is, which knows nothing of the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.engines.graph import open_graph
from algan_trainer.data import Dataset, data_root, load_inputs, read_dataset
from algan_trainer.pixels import compare
from algan_trainer.saliency import DEFAULT, METHODS, SMOOTHING, Recipe, write_explanation
from algan_trainer.saliency_graph import Floats

YARDSTICK = "contrast-only"
COLUMNS = (
    "pixel_auroc",
    "pointing_accuracy",
    "pointing_strict",
    "pointing_accuracy_chance",
    "pointing_strict_chance",
)


def main() -> int:
    """Measures every recipe asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="validation")
    parser.add_argument(
        "--recipes", default="all", help="comma-separated METHOD-LAYER-REFERENCE, or `all` or `default`"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bundle = read_bundle(args.bundle)
    config: dict[str, Any] = bundle.manifest.provenance["config"]
    dataset = read_dataset(args.data, config["seed"], config["data"]["calibration_fraction"])
    spec, root = bundle.manifest.image_spec, data_root(dataset.root)
    good, heldout = (
        load_inputs(root, [s.path for s in samples], spec)
        for samples in (dataset.of("train"), dataset.calibration)
    )
    rows: dict[str, dict[str, Any]] = {}
    print(f"{'recipe':26}" + "".join(f"{name.removeprefix('pointing_'):>17}" for name in COLUMNS))
    for name in [*recipes(args.recipes), YARDSTICK]:
        rows[name] = measured(bundle, dataset, args.split, name, good, heldout)
        print(f"{name:26}" + "".join(f"{rows[name][column]:17.3f}" for column in COLUMNS), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def recipes(text: str) -> list[str]:
    """Names of the recipes to measure."""
    if text == "default":
        return [f"{DEFAULT.method}-{DEFAULT.layer}-{DEFAULT.reference}"]
    if text != "all":
        return text.split(",")
    plain = [f"{method}-{layer}-zero" for method, layer in product(("gradient", "layercam"), range(3))]
    rest = product(
        [m for m in METHODS if m not in ("gradient", "layercam")], range(3), ("zero", "channel", "place")
    )
    return plain + [f"{method}-{layer}-{reference}" for method, layer, reference in rest]


def measured(
    bundle: Bundle, dataset: Dataset, split: str, name: str, good: Floats, heldout: Floats
) -> dict[str, Any]:
    """Builds the recipe's graph beside the bundle's model, and compares its maps with the masks."""
    spec, root = bundle.manifest.image_spec, data_root(dataset.root)
    if name == YARDSTICK:
        return compare(spec, root, dataset.of(split), local_contrast)
    method, layer, reference = name.split("-")
    recipe = Recipe(method, int(layer), reference)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "explain.onnx"
        write_explanation(bundle.model_path, good, heldout, path, recipe)
        side_px = spec.height_px
        shapes: dict[str, tuple[int, ...]] = {"saliency": (side_px, side_px)}
        graph = open_graph(path, spec.shape, shapes, {"kind": "openvino", "threads": torch.get_num_threads()})
        try:
            return compare(spec, root, dataset.of(split), lambda inputs: graph.infer(inputs)["saliency"])
        finally:
            graph.close()


def local_contrast(inputs: Floats) -> Floats:
    """How steep the image is, smoothed as the maps are."""
    import cv2

    grey = inputs[:, :3].mean(axis=1)
    steep = [np.hypot(cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)) for g in grey]
    return np.stack([cv2.GaussianBlur(s, (0, 0), SMOOTHING * s.shape[0]) for s in steep])


if __name__ == "__main__":
    sys.exit(main())
