"""What metrics cost: processor time per score of a saturated pipeline with and without them, in turns.

python benchmarks/metrics_cost.py [TURNS]
"""

from __future__ import annotations

import statistics
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

from algan_stream.bundle import read_bundle
from algan_stream.commands import bench_pipeline
from algan_stream.engines.openvino import Config, create
from algan_stream.metrics import Metrics
from algan_stream.pipeline import Pipeline
from algan_stream.types import (
    BoxVerdict,
    FrameVerdict,
    Outcome,
    StageTimes,
    VerdictKind,
)

_SECONDS = 0.5


def main(turns: int) -> None:
    """Prints a line for each case."""
    bundle = read_bundle("demo")
    engine = create(bundle, Config(max_batch=8))
    metrics = Metrics(cast(Any, SimpleNamespace(bundle=bundle)))

    def cpu_s(frames: Any, *sinks: Metrics) -> float:
        counter = bench_pipeline._Counter()
        started = time.process_time()
        pipeline = Pipeline(bundle, engine, [*sinks, counter])
        bench_pipeline._saturated_pipeline(pipeline, counter, frames, _SECONDS)
        return (time.process_time() - started) / max(1, counter.scored)

    for case, frames in bench_pipeline._cases():
        pairs = []
        for turn in range(turns):
            order = ((), (metrics,)) if turn % 2 else ((metrics,), ())
            took = {len(sinks): cpu_s(frames, *sinks) for sinks in order}
            pairs.append((took[1], took[0]))
        ratio = statistics.median(a / b for a, b in pairs)
        alone_us = statistics.median(b for _, b in pairs) * 1e6
        print(
            f"{case}: with / without metrics {ratio:.4f}; {alone_us:.0f} µs of processor time a score without"
        )
    for boxes in (1, 64):
        print(f"a verdict on {boxes} boxes: {_write_us(metrics, boxes):.1f} µs")
    engine.close()


def _write_us(metrics: Metrics, boxes: int) -> float:
    box = BoxVerdict(verdict=VerdictKind.PASS, score=-2.0, p_value=0.3)
    verdict = FrameVerdict(
        camera="bench",
        frame_id=0,
        verdict=VerdictKind.PASS,
        boxes=(box,) * boxes,
        outcome=Outcome.SCORED,
        captured_ns=0,
        stages=StageTimes(queue_ms=0.1, preprocess_ms=0.2, infer_ms=3.0, total_ms=4.0),
    )
    best = float("inf")
    for _ in range(7):
        started = time.thread_time()
        for _ in range(1000):
            metrics.write(verdict)
        best = min(best, (time.thread_time() - started) * 1e3)
    return best


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
