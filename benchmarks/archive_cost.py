"""What an archive costs the line: verdicts on 1080p frames with and without it, in one run, in turns.

    python benchmarks/archive_cost.py [--frames 200] [--encoding npy]

All frames are kept, which is the worst case. Times are of the verdict's answer, from
`receive` to `reply`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from algan_stream.bundle import read_bundle
from algan_stream.engines.gate import open_engine
from algan_stream.pipeline import Pipeline
from algan_stream.sinks.base import QueuedSink, Sink
from algan_stream.sinks.outlet import open_sink
from algan_stream.types import Frame, FrameVerdict


def measure(sinks: list[Sink], frames: int, image: np.ndarray, pace_s: float) -> np.ndarray:
    """Milliseconds from `receive` to `reply` for each frame, one at a time."""
    bundle = read_bundle("demo")
    engine = open_engine(bundle, {"kind": "openvino", "threads": 1, "max_batch": 1})
    pipeline = Pipeline(bundle, engine, sinks)
    pipeline.open_camera("cam", 4, "block")
    pipeline.start()
    times = []
    for i in range(frames):
        answered = threading.Event()

        def reply(_: FrameVerdict, answered: threading.Event = answered) -> None:
            answered.set()

        begun = time.perf_counter()
        pipeline.receive(Frame("cam", i, image, "bgr8", time.time_ns(), reply=reply))
        answered.wait(60)
        times.append((time.perf_counter() - begun) * 1e3)
        time.sleep(pace_s)
    pipeline.close()
    engine.close()
    return np.array(times)


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--frames", type=int, default=200)
    arguments.add_argument("--encoding", default="npy")
    arguments.add_argument("--pace-ms", type=float, default=20.0)
    given = arguments.parse_args()
    rng = np.random.default_rng(0)
    smooth = np.linspace(60, 200, 1920)[None, :, None] + rng.normal(0, 2, (1080, 1920, 3))
    image = smooth.clip(0, 255).astype(np.uint8)
    found: dict[str, list[np.ndarray]] = {"without": [], "with": []}
    for _ in range(3):
        found["without"].append(measure([], given.frames, image, given.pace_ms / 1e3))
        folder = Path(tempfile.mkdtemp())
        section = {
            "kind": "archive",
            "path": str(folder),
            "passes": 1.0,
            "encoding": given.encoding,
            "max_gb": 0.5,
        }
        sink = open_sink(section, "sinks[0]")
        found["with"].append(measure([sink], given.frames, image, given.pace_ms / 1e3))
        sink.close()
        if isinstance(sink, QueuedSink):
            print(sink.counts())
        shutil.rmtree(folder)
    for name, rounds in found.items():
        times = np.concatenate(rounds)
        p50, p99 = np.quantile(times, (0.5, 0.99))
        print(f"{name:8} archive: P50 {p50:.2f} ms, P99 {p99:.2f} ms, longest {times.max():.2f} ms")


if __name__ == "__main__":
    main()
