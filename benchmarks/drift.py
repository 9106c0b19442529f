"""The drift test on simulated streams: false alarms without drift, and how soon drift is found.

python benchmarks/drift.py [--streams 500] [--long 1000000] [--delays 40]

False alarms: streams that are exchangeable with their calibration images, each with a calibration of its own;
`--long` scores for each line of the table. Delays: 2,000 scores without drift, then a shift, measured in
standard deviations of good scores, until the alarm.
"""

from __future__ import annotations

import argparse
import math
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from algan_stream.calibration import Calibration, calibrate
from algan_stream.drift import CameraDrift, DriftConfig

_KINDS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda r, n: r.normal(size=n),
    "Cauchy": lambda r, n: r.standard_cauchy(n),
    "five values": lambda r, n: r.integers(0, 5, n).astype(float),
}


def _camera(calibration: Calibration, config: DriftConfig, seed: int) -> CameraDrift:
    below = calibration.threshold if config.test == "passes" else math.inf
    return CameraDrift(config, array("d", (s for s in calibration.good_scores if s < below)), seed)


def _false_alarms(streams: int, in_all: int) -> None:
    """Each stream is as long as makes `in_all` together."""
    length = math.ceil(in_all / streams)
    print(f"\n{streams} streams of {length} scores for each line, one alarm in 20 × {length} allowed:\n")
    print("| scores | calibration images | tested | streams with an alarm | allowed | µs a score |")
    print("|---|---|---|---|---|---|")
    every = 20.0 * length  # P(alarm within a stream) ≤ 0.05, the new start in its middle included
    for kind, draw in _KINDS.items():
        for images in (50, 142, 1000) if kind == "normal" else (142,):
            for test in ("all", "passes"):
                random, alarmed, tested, took = np.random.default_rng(images), 0, 0, 0.0
                config = DriftConfig(test=test, false_alarm_every=every, window=max(100, length // 2))  # type: ignore[arg-type]
                for stream in range(streams):
                    calibration = calibrate(draw(random, images), 0.05)
                    camera = _camera(calibration, config, stream)
                    scores = draw(random, length)
                    scores = scores[scores < calibration.threshold] if test == "passes" else scores
                    started = time.process_time()
                    alarms = [camera.take(score) for score in scores.tolist()]  # to the end: to time it all
                    alarmed += any(alarms)
                    took += time.process_time() - started
                    tested += len(scores)
                print(
                    f"| {kind} | {images} | {test}: {tested:,} | {alarmed} of {streams} "
                    f"({alarmed / streams:.3f}) | 0.05 | {took / tested * 1e6:.1f} |",
                    flush=True,
                )


def _delays(runs: int) -> None:
    shifts = (0.1, 0.25, 0.5, 1.0, 2.0, -0.5, -1.0)
    print(
        "\nParts until the alarm, median / 90th percentile (–: not within 20,000), false_alarm_every 1e7:\n"
    )
    print("| calibration images | tested |", " | ".join(f"{s:+g} σ" for s in shifts), "| 1.5 × as wide |")
    print("|---|---|" + "---|" * (len(shifts) + 1))
    for images in (50, 142, 1000):
        for test in ("all", "passes"):
            cells = []
            for shift, width in [*((s, 1.0) for s in shifts), (0.0, 1.5)]:
                found: list[float] = []
                for run in range(runs):
                    random = np.random.default_rng(run)
                    calibration = calibrate(random.normal(size=images), 0.05)
                    camera = _camera(calibration, DriftConfig(test=test), run)  # type: ignore[arg-type]
                    limit = calibration.threshold if test == "passes" else math.inf
                    before = random.normal(size=2_000)
                    for score in before[before < limit].tolist():
                        camera.take(score)
                    after = random.normal(size=20_000) * width + shift
                    # Counted in parts, also where rejected ones are left out of the test.
                    parts = enumerate(after.tolist(), 1)
                    alarm = (n for n, s in parts if s < limit and camera.take(s))
                    found.append(next(alarm, math.inf))
                middle, late = np.quantile(found, (0.5, 0.9), method="higher")
                cells.append(" / ".join("–" if math.isinf(x) else f"{x:.0f}" for x in (middle, late)))
            print(f"| {images} | {test} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--delays", type=int, default=40)
    options = parser.parse_args()
    _false_alarms(options.streams, options.long)
    _delays(options.delays)
