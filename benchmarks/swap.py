"""What a swap costs a line at saturation: the gap in its verdicts when it goes over, and while it loads.

    python benchmarks/swap.py [BUNDLE OTHER_BUNDLE] [--swaps 10] [--seconds 4] [--json FILE]

A line in this process takes frames from a client in another one that sends as fast as it may; a sink notes
when each verdict goes out. Then one bundle takes over from the other, over and over, by the control socket.
Before each swap, the same line runs undisturbed: its longest gap in a span as long as the swap took is what
is usual on this machine at this time. By default, the shipped bundle and a copy of it with another threshold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from algan_stream import control_wire as wire
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.calibration import with_raw_threshold
from algan_stream.client import Client
from algan_stream.config import LineConfig
from algan_stream.control_client import Line
from algan_stream.plugins import convert
from algan_stream.recalibration import write_recalibrated
from algan_stream.service import Service
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict

_FRAME = (480, 640, 3)
_MAX_BATCH = 8


class Clock(Sink):
    """Notes when each verdict went out, and whose it is."""

    def __init__(self) -> None:
        self.times_ns: list[int] = []
        self.models: list[float | None] = []

    def write(self, verdict: FrameVerdict) -> None:
        """Notes one."""
        self.times_ns.append(time.monotonic_ns())
        self.models.append(verdict.threshold)  # tells the two bundles apart, whatever their models


@dataclass
class Result:
    """Milliseconds, one number for each swap.

    Attributes:
        batch: A full batch at the rate of the undisturbed line before.
        usual: Longest gap of the undisturbed line, in spans as long as the swap took; their median.
        loading: Longest gap from the request until the last verdict of the old model.
        over: Between the last verdict of the old model and the first of the new one.
        took: From the request to the new model's first verdict.
        slowed: Verdicts per second while it loaded, over those before.
        memory: Resident memory of the line once the new model served and the old one was gone, in MB.
    """

    batch: list[float] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    over: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    slowed: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def send_for_ever(endpoint: str, enough: Any, sent: Any, answered: Any) -> None:
    """The client's process."""
    image = np.random.default_rng(0).integers(0, 256, _FRAME, np.uint8)
    with Client(endpoint) as client:
        while not enough.is_set():
            client.send(image)
            client.poll()
        list(client.drain(30))
        account = client.account()
    sent.value, answered.value = account.sent, account.answered


def main() -> None:
    """Runs it and prints the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="*", help="Two bundles; their thresholds must differ.")
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="Undisturbed, before each swap.")
    parser.add_argument("--threads", type=int, default=0, help="Processors of each engine; 0 = all.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.seconds < 1.0:
        parser.error(f"--seconds: expected 1 or more, got {options.seconds}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundles = options.bundles or ["demo", str(other_than_demo(folder).path)]
        result, counts = measure(folder, [read_bundle(b) for b in bundles], options)
    report = {"counts": counts, **vars(result)}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), "utf-8")
    print(f"{len(result.over)} swaps, {counts}")
    for name, values in vars(result).items():
        print(f"{name:8} median {statistics.median(values):8.2f}  largest {max(values):8.2f}")
    ratios = [over / batch for over, batch in zip(result.over, result.batch, strict=True)]
    print(f"over / batch: median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")
    ratios = [over / usual for over, usual in zip(result.over, result.usual, strict=True)]
    print(f"over / usual: median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")
    ratios = [loading / usual for loading, usual in zip(result.loading, result.usual, strict=True)]
    print(f"loading / usual: median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")


def other_than_demo(folder: Path) -> Bundle:
    """The shipped bundle with another threshold."""
    demo = read_bundle("demo")
    assert demo.manifest.calibration
    calibration = with_raw_threshold(demo.manifest.calibration.good_scores, 1e3)
    return write_recalibrated(demo, calibration, "none", folder / "other")


def measure(
    folder: Path, bundles: list[Bundle], options: argparse.Namespace
) -> tuple[Result, dict[str, int]]:
    """Swaps back and forth under load; also counts of frames, which must all be the same."""
    endpoint, control = f"ipc://{folder / 'in'}", f"ipc://{folder / 'ctl'}"
    line: LineConfig = convert(
        {
            "bundle": str(bundles[0].path),
            "engine": {"kind": "openvino", "max_batch": _MAX_BATCH, "threads": options.threads},
            "cameras": [{"id": "cam", "source": {"kind": "zmq", "bind": endpoint, "credits": 64}}],
            "control": {"bind": control},
            "swap": {"trial_s": 0, "keep_s": 0},
        },
        LineConfig,
        "",
    )
    clock, result = Clock(), Result()
    service = Service(line, [clock])
    runner = threading.Thread(target=service.run)
    runner.start()
    spawn = multiprocessing.get_context("spawn")
    enough, sent, answered = spawn.Event(), spawn.Value("q", 0), spawn.Value("q", 0)
    sender = spawn.Process(target=send_for_ever, args=(endpoint, enough, sent, answered))
    sender.start()
    while len(clock.times_ns) < 200:
        time.sleep(0.05)
    try:
        for i in range(options.swaps):
            one_swap(clock, Line(control, 60), bundles[(i + 1) % 2], options.seconds, result)
    finally:
        enough.set()
        sender.join()
        service.stop()
        runner.join()
    tally = service.accounts()["cam"].frames
    counts = {
        "sent": sent.value,
        "answered": answered.value,
        "received": tally.received,
        "scored": tally.scored,
        "verdicts": len(clock.times_ns),
    }
    if len(set(counts.values())) != 1:
        raise SystemExit(f"frames were lost: {counts}")
    return result, counts


def one_swap(clock: Clock, control: Line, bundle: Bundle, seconds: float, result: Result) -> None:
    """Undisturbed, then a swap; adds a number to each list of the result."""
    time.sleep(seconds)
    asked, before = time.monotonic_ns(), len(clock.times_ns)
    old = clock.models[before - 1]
    control.ask(wire.Swap(bundle=str(bundle.path)), wire.Begun)
    while clock.models[-1] == old:
        time.sleep(0.005)
    first = next(i for i in range(before, len(clock.models)) if clock.models[i] != old)
    took_ns = clock.times_ns[first] - asked
    quiet = np.array([t for t in clock.times_ns[:before] if t > asked - seconds * 1e9])
    gaps, loads = np.diff(quiet), np.diff(clock.times_ns[before - 1 : first])
    spans = ((quiet[1:] - quiet[0]) // took_ns).astype(int)
    whole = [gaps[spans == s].max() for s in np.unique(spans)]
    rate = len(gaps) / (quiet[-1] - quiet[0])
    result.batch.append(_MAX_BATCH / rate / 1e6)
    result.usual.append(float(np.median(whole)) / 1e6)
    result.loading.append(float(loads.max()) / 1e6)
    result.over.append((clock.times_ns[first] - clock.times_ns[first - 1]) / 1e6)
    result.took.append(took_ns / 1e6)
    result.slowed.append((first - before) / took_ns / rate)
    while control.status().swap.state != "idle":
        time.sleep(0.02)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    result.memory.append(pages * os.sysconf("SC_PAGESIZE") / 1e6)


if __name__ == "__main__":
    main()
