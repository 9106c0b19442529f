"""Latency at half of what a line can do, against the batch's deadline and the engine's own time.

    python benchmarks/half_load.py [--bundle demo] [--seconds 20]

First the line's rate with frames always waiting; then frames come evenly at half of it. What a frame may
take at most is the time that its batch may stay open (`max_wait_ms`) and one and a half times what the
engine takes for a full batch, measured on ready tensors in between.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import numpy as np

from algan_stream.batcher import BatchConfig
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.demo.conveyor import Conveyor
from algan_stream.engines.base import Engine
from algan_stream.engines.openvino import Config, create
from algan_stream.pipeline import Pipeline
from algan_stream.sinks.base import Sink
from algan_stream.types import Frame, FrameVerdict

BATCH = 8


class _Times(Sink):
    def __init__(self) -> None:
        self.total_ms: list[float] = []
        self.unscored = 0

    def write(self, verdict: FrameVerdict) -> None:
        self.unscored += verdict.outcome.value != "scored"
        self.total_ms.append(verdict.stages.total_ms)


def played(bundle: Bundle, engine: Engine, seconds: float, fps: float) -> tuple[_Times, float]:
    """Plays 640×480 frames at a rate, 0 for as fast as they are taken; returns times and the rate reached."""
    conveyor = Conveyor(seed=0, frame_wh=(640, 480))
    images = [conveyor.frame(i).image for i in range(16)]
    times, stop = _Times(), threading.Event()
    pipeline = Pipeline(bundle, engine, [times], BatchConfig())
    pipeline.open_camera("cam", 32, "block")
    pipeline.start()

    def feed() -> None:
        begin, number = time.perf_counter(), 0
        while not stop.is_set():
            if fps and (left := begin + number / fps - time.perf_counter()) > 0:
                time.sleep(left)
            pipeline.receive(Frame("cam", number, images[number % 16], "bgr8", time.time_ns()))
            number += 1

    feeder = threading.Thread(target=feed)
    started = time.perf_counter()
    feeder.start()
    time.sleep(seconds)
    stop.set()
    feeder.join()
    pipeline.close(60)
    return times, len(times.total_ms) / (time.perf_counter() - started)


def batch_ms(engine: Engine) -> float:
    """Median time of a full batch by itself, from submission to logits."""
    taken = []
    for _ in range(30):
        slot = engine.acquire(10.0)
        assert slot is not None
        slot.inputs_nchw[:] = 0.0
        started = time.perf_counter()
        engine.submit(slot, BATCH)
        engine.collect(slot)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    engine = create(bundle, Config(max_batch=BATCH))
    _, most = played(bundle, engine, options.seconds / 4, 0)
    engine_ms = batch_ms(engine)
    times, rate = played(bundle, engine, options.seconds, most / 2)
    kept = times.total_ms[len(times.total_ms) // 10 :]
    p50, p99 = np.percentile(kept, (50, 99))
    allowed = BatchConfig().max_wait_ms + 1.5 * engine_ms
    engine.close()
    print(
        f"{options.bundle}: {most:.0f} frames/s at most; at {rate:.0f}: P50 {p50:.2f} ms, P99 {p99:.2f} ms, "
        f"longest {max(kept):.1f} ms; allowed {allowed:.2f} ms (a batch of {BATCH}: {engine_ms:.2f} ms); "
        f"{times.unscored} not scored"
    )


if __name__ == "__main__":
    main()
