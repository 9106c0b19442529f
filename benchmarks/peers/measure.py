"""Ours beside anomalib's models on the same images: AUROC, and time by paired turns in one run.

    python benchmarks/peers/measure.py BUNDLE DATA --peers PEERS [--split CSV] [--rounds 5]

PEERS is what `train.py --out` wrote. Needs this package and anomalib in one environment, and a machine that
does nothing else: stop whatever trains beside it. Every model scores all test images of the bundle's split
(`report/split.csv`). What is timed:

- **one image**: from a decoded uint8 image in memory to its score, one thread each. Ours is `preprocess` and
  the engine with one stream; theirs is anomalib's own `OpenVINOInferencer.predict` with one thread,
  after `cv2.resize` to the size that the export takes.
- **many**: images per second, all processors. Ours is the engine with all its streams and slots filled by
  `write`; theirs are their compiled models in OpenVINO's `AsyncInferQueue`, batch 1, fed by their
  `pre_process`: more than anomalib offers, whose inferencer takes one image at a time.

Models take turns, image by image and round by round, so that all of them meet the same noise. Prints a table
in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from anomalib.deploy import OpenVINOInferencer
from models import beside
from split import auroc, read_split

from algan_stream.bundle import read_bundle
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import Frame, InputSpec

OURS = "algan-stream"


@dataclass(frozen=True)
class Model:
    """How a model scores one image, and how it scores all, each returning its scores."""

    name: str
    settings: str
    one: Callable[[np.ndarray], float]
    many: Callable[[list[np.ndarray]], np.ndarray]


def main() -> int:
    """Measures all and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--split", type=Path, help="by default BUNDLE/report/split.csv")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed", type=int, default=60, help="images that are timed; all are scored")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    test = read_split(args.split or args.bundle / "report" / "split.csv", args.data, "test")
    images = [rgb(path) for path in test.paths]
    models = [ours(args.bundle, args.precision)]
    models += [theirs(folder.parent) for folder in sorted(args.peers.glob("*/about.json"))]
    scores = {model.name: np.array([model.one(image) for image in images]) for model in models}
    step = max(1, len(images) // args.timed)
    one, many = timed(models, images[::step], args.rounds)
    sys.stdout.write(table(models, scores, test.anomalous, one, many) + "\n")
    return 0


def rgb(path: Path) -> np.ndarray:
    """A decoded image, (H, W, 3) uint8, as anomalib's inferencer wants it; ours takes grey as well."""
    image, _ = read_image(path)
    return image if image.ndim == 3 else np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))


def ours(path: Path, precision: str) -> Model:
    """A bundle behind the golden gate: one engine for single images, one for many."""
    bundle = read_bundle(path)
    spec = bundle.manifest.image_spec
    section = {"kind": "openvino", "precision": precision}
    single = open_engine(bundle, {**section, "threads": 1, "streams": 1, "max_batch": 1})
    whole = open_engine(bundle, {**section, "max_batch": 8})

    def one(image: np.ndarray) -> float:
        return -float(single.infer(preprocess(image, spec, pixel_format="rgb8"))[0])

    def many(images: list[np.ndarray]) -> np.ndarray:
        return -streamed(whole, images)

    return Model(OURS, f"{_size(spec)} px, {precision}", one, many)


def streamed(engine: Engine, images: list[np.ndarray]) -> np.ndarray:
    """Logits of all, as the service computes them: batches written into slots, collected in order."""
    found, waiting = [], []
    for start in range(0, len(images), engine.max_batch):
        chunk = images[start : start + engine.max_batch]
        if len(waiting) == len(engine.slots):
            found.append(engine.collect(waiting.pop(0)))
        slot = engine.acquire()
        for place, image in enumerate(chunk):
            frame = Frame(camera="", frame_id=place, image=image, pixel_format="rgb8", captured_ns=0)
            engine.write(slot, frame, boxes=None, first_slot=place)
        engine.submit(slot, len(chunk))
        waiting.append(slot)
    return np.concatenate(found + [engine.collect(slot) for slot in waiting])


def theirs(folder: Path) -> Model:
    """Their own inferencer for single images; for many, their model in OpenVINO's own queue."""
    about = json.loads((folder / "about.json").read_text("utf-8"))
    path = folder / "weights" / "openvino" / "model.xml"
    fp32 = {"INFERENCE_PRECISION_HINT": "f32"}
    one_thread = {**fp32, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    with beside(path):
        single = OpenVINOInferencer(path.resolve(), "CPU", one_thread)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {**fp32, "PERFORMANCE_HINT": "THROUGHPUT"})
    jobs = ov.AsyncInferQueue(compiled)

    size = (about["size_px"], about["size_px"])

    def at_size(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def one(image: np.ndarray) -> float:
        return float(np.asarray(single.predict(at_size(image)).pred_score).reshape(-1)[0])

    def many(images: list[np.ndarray]) -> np.ndarray:
        scores = np.empty(len(images))

        def keep(request: ov.InferRequest, place: int) -> None:
            scores[place] = request.get_tensor("pred_score").data.reshape(-1)[0]

        jobs.set_callback(keep)
        for place, image in enumerate(images):
            jobs.start_async({0: OpenVINOInferencer.pre_process(at_size(image))}, place)
        jobs.wait_all()
        return scores

    settings = f"{about['size_px']} px, {about['images']} images, {about['epochs']} epochs"
    return Model(f"anomalib {about['peer']}", settings, one, many)


def timed(
    models: list[Model], images: list[np.ndarray], rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds for each single image, (rounds, images), and for all of them at once, (rounds,); in turns."""
    one = {model.name: np.empty((rounds, len(images))) for model in models}
    many = {model.name: np.empty(rounds) for model in models}
    for turn in range(rounds):
        for place, image in enumerate(images):
            for model in models:
                started = time.perf_counter()
                model.one(image)
                one[model.name][turn, place] = time.perf_counter() - started
        for model in models:
            started = time.perf_counter()
            model.many(images)
            many[model.name][turn] = time.perf_counter() - started
    return one, many


def table(
    models: list[Model],
    scores: dict[str, np.ndarray],
    anomalous: np.ndarray,
    one: dict[str, np.ndarray],
    many: dict[str, np.ndarray],
) -> str:
    """Ratios are medians of paired ratios; times are medians."""
    count = one[OURS].shape[1]
    machine = f"OpenVINO {ov.get_version().split('-')[0]}, {len(os.sched_getaffinity(0))} processors"
    lines = [
        f"{len(anomalous)} test images, {int(anomalous.sum())} of them defective; {count} timed in "
        f"{len(many[OURS])} rounds; {machine}",
        "",
        "| model | input, training | test AUROC | one image, ms | our time × | many, images/s | ours × |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in models:
        single, whole = one[model.name], many[model.name]
        lines.append(
            f"| {model.name} | {model.settings} | {auroc(scores[model.name], anomalous):.3f} "
            f"| {1e3 * np.median(single):.2f} | {np.median(single / one[OURS]):.1f}× "
            f"| {count / np.median(whole):.0f} | {np.median(whole / many[OURS]):.1f}× |"
        )
    return "\n".join(lines)


def _size(spec: InputSpec) -> str:
    square = spec.height_px == spec.width_px
    return str(spec.width_px) if square else f"{spec.width_px}×{spec.height_px}"


if __name__ == "__main__":
    sys.exit(main())
