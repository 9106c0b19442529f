"""The service at saturation against its own engine on ready tensors: what everything around it costs."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from typing import Any, Literal

import numpy as np

from algan_stream.bundle import Bundle
from algan_stream.commands.bench_engine import saturated
from algan_stream.demo.conveyor import Conveyor
from algan_stream.engines.base import Engine
from algan_stream.engines.openvino import Config, create
from algan_stream.pipeline import Pipeline
from algan_stream.sinks import jsonl, zmq_pub
from algan_stream.sinks.base import Sink
from algan_stream.types import Frame, FrameVerdict, Outcome

#: Turns of each side; the median ratio is reported.
TURNS = 5
_FRAMES = 32
#: However slow and busy the machine is, what waits must be scored: it is counted.
_DRAIN_S = 600.0


class _Counter(Sink):
    """Counts boxes and whole frames that were scored."""

    def __init__(self) -> None:
        self.scored = 0

    def write(self, verdict: FrameVerdict) -> None:
        if verdict.outcome is Outcome.SCORED:
            self.scored += len(verdict.boxes)


def rows(bundle: Bundle, precision: Literal["fp32", "bf16", "fp16", "int8"], seconds: float) -> list[Any]:
    """Scores per second: frames of a camera as a whole, of two sizes, and boxes in frames."""
    engine = create(bundle, Config(precision=precision, max_batch=8))
    measured = []
    for case, frames in _cases():
        ours, bare = [0.0] * TURNS, [0.0] * TURNS
        for turn in range(TURNS):
            ours[turn] = _through_the_pipeline(bundle, engine, frames, seconds / TURNS)
            bare[turn] = saturated(engine, engine.max_batch, seconds / TURNS)
        size = bundle.manifest.image_spec
        measured.append(
            {
                "case": f"{case} → {size.channels}×{size.height_px}×{size.width_px}, {precision}",
                "subject": "pipeline",
                "value": statistics.median(ours),
                "unit": "scores/s",
                "peer": "bare-engine",
                "peer_value": statistics.median(bare),
                "ratio": statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
            }
        )
    engine.close()
    return measured


def _cases() -> list[tuple[str, list[tuple[np.ndarray, np.ndarray | None]]]]:
    vga = Conveyor(seed=0, frame_wh=(640, 480))
    images = [vga.frame(i).image for i in range(_FRAMES)]
    large = [np.ascontiguousarray(np.tile(image, (3, 3, 1))[:1080, :1920]) for image in images]
    grid = np.array(
        [(x, y, x + 128, y + 128) for y in range(0, 1024, 128) for x in range(0, 1024, 128)], np.float32
    )
    return [
        ("640×480 frames", [(image, None) for image in images]),
        ("1920×1080 frames", [(image, None) for image in large]),
        ("64 boxes of 128 px in 1920×1080", [(image, grid) for image in large]),
    ]


def _through_the_pipeline(
    bundle: Bundle, engine: Engine, frames: list[tuple[np.ndarray, np.ndarray | None]], seconds: float
) -> float:
    """Scores per second from `receive` to a line's usual sinks, with frames always waiting."""
    counter = _Counter()
    with tempfile.TemporaryDirectory() as folder:
        sinks = [
            counter,
            jsonl.create(jsonl.Config(kind="jsonl", path=f"{folder}/verdicts.jsonl")),
            zmq_pub.create(zmq_pub.Config(kind="zmq_pub", bind=f"ipc://{folder}/verdicts")),
        ]
        scored_per_s = _saturated_pipeline(Pipeline(bundle, engine, sinks), counter, frames, seconds)
        for sink in sinks:
            sink.close()
    return scored_per_s


def _saturated_pipeline(
    pipeline: Pipeline,
    counter: _Counter,
    frames: list[tuple[np.ndarray, np.ndarray | None]],
    seconds: float,
) -> float:
    # Never empty, and yet soon drained: a frame with boxes is work for many batches.
    waiting = _FRAMES if frames[0][1] is None else 4
    pipeline.open_camera("bench", queue_size=waiting, backpressure="block")
    pipeline.start()
    stop = threading.Event()

    def feed() -> None:
        frame_id = 0
        while not stop.is_set():
            image, boxes = frames[frame_id % len(frames)]
            pipeline.receive(Frame("bench", frame_id, image, "bgr8", time.time_ns(), boxes=boxes))
            frame_id += 1

    feeder = threading.Thread(target=feed)
    started = time.perf_counter()
    feeder.start()
    time.sleep(seconds)
    stop.set()
    feeder.join()
    pipeline.close(_DRAIN_S)
    return counter.scored / (time.perf_counter() - started)
