"""Eight cameras and a client with boxes against one service, for as long as it takes to trust it.

    python benchmarks/soak.py --minutes 30

Real processes: `algan-stream run` and one process for each camera. Every camera sends 1080p frames at its
pace, another one frames with 64 boxes each. At the end: the ledger against each camera's own count, the
memory of the service after the warm-up and at the end, and the time of each stage. Ends with 1 where the
ledger is not exact, a frame was not scored, or memory grew by 1 % or more.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

STAGES = ("queue_ms", "preprocess_ms", "infer_ms", "total_ms")
_WARM_UP = 0.2
_SAMPLE_S = 5.0


@dataclass
class Camera:
    """What one camera does, and what it saw."""

    name: str
    fps: float
    boxes: int
    sent: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    round_trip_ms: list[float] = field(default_factory=list)
    stages_ms: list[tuple[float, ...]] = field(default_factory=list)


def frames_of_camera(boxes: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """A few drawn 1080p frames to send in turn, and the boxes in them."""
    from algan_stream.demo.conveyor import Conveyor

    conveyor = Conveyor(seed=boxes, frame_wh=(640, 480))
    pictures = [np.tile(conveyor.frame(i).image, (3, 3, 1))[:1080, :1920] for i in range(4)]
    if not boxes:
        return [np.ascontiguousarray(p) for p in pictures], None
    side, columns = 128, 14
    places = [(i % columns * side, i // columns * side) for i in range(boxes)]
    xyxy = np.array([(x, y, x + side, y + side) for x, y in places], np.float32)
    return [np.ascontiguousarray(p) for p in pictures], xyxy


def be_a_camera(endpoint: str, camera: Camera, seconds: float) -> None:
    """Sends frames at the camera's pace; prints the account and the times as JSON."""
    from algan_stream.client import Client

    images, boxes = frames_of_camera(camera.boxes)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    sent_at: dict[int, float] = {}

    def note(verdict: Any) -> None:
        now = time.perf_counter()
        said = verdict.outcome.value
        camera.verdicts[said] = camera.verdicts.get(said, 0) + 1
        camera.round_trip_ms.append((now - sent_at.pop(verdict.frame_id)) * 1e3)
        camera.stages_ms.append(tuple(getattr(verdict.stages, stage) for stage in STAGES))

    with Client(endpoint, camera.name, timeout_s=30.0) as client:
        begin = time.perf_counter()
        while not stop and (due := camera.sent / camera.fps) < seconds:
            while (left := begin + due - time.perf_counter()) > 0:
                for verdict in client.poll(timeout_s=left):
                    note(verdict)
            started = time.perf_counter()
            sent_at[client.send(images[camera.sent % len(images)], boxes=boxes)] = started
            camera.sent += 1
        took = time.perf_counter() - begin
        for verdict in client.drain(timeout_s=30.0):
            note(verdict)
    columns = np.column_stack([np.array(camera.stages_ms), camera.round_trip_ms])
    kept = columns[int(_WARM_UP * len(columns)) :]
    print(
        json.dumps(
            {
                "camera": camera.name,
                "sent": camera.sent,
                "fps": camera.sent / took,
                "verdicts": camera.verdicts,
                "ms": {
                    stage: [*np.percentile(kept[:, i], (50, 99, 99.9)), kept[:, i].max()]
                    for i, stage in enumerate((*STAGES, "round_trip_ms"))
                },
            }
        )
    )


def memory_kib(pid: int) -> int:
    """Memory that belongs to a process alone, and its share of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def soak(options: argparse.Namespace, folder: Path) -> int:
    """Runs it all; returns the exit code."""
    endpoint = f"ipc://{folder / 'in'}"
    line = {
        "bundle": options.bundle,
        "engine": {"kind": "openvino", "threads": 1, "max_batch": 8},
        "cameras": [{"id": "line", "source": {"kind": "zmq", "bind": endpoint}}],
        "sinks": [{"kind": "jsonl", "path": str(folder / "verdicts.jsonl")}],
    }
    (folder / "line.yaml").write_text(yaml.safe_dump(line))
    command = [sys.executable, "-m", "algan_stream", "run", str(folder / "line.yaml"), "--json"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert service.stdout
    service.stdout.readline()  # it is ready
    seconds = options.minutes * 60
    cameras = [(f"camera-{i}", options.fps, 0) for i in range(options.cameras)]
    cameras.append(("boxes", options.boxes_fps, 64))
    senders = [
        subprocess.Popen(
            [sys.executable, __file__, "--be", name, str(fps), str(boxes), endpoint, str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, fps, boxes in cameras
    ]
    memory: list[int] = []
    started, used = time.monotonic(), cpu_s(service.pid)
    while any(sender.poll() is None for sender in senders):
        if service.poll() is not None:
            raise SystemExit("the service ended")
        memory.append(memory_kib(service.pid))
        used = cpu_s(service.pid)
        time.sleep(_SAMPLE_S)
    seen = [json.loads(sender.communicate()[0]) for sender in senders]
    used /= time.monotonic() - started
    service.send_signal(signal.SIGTERM)
    final = json.loads(service.stdout.readline())
    service.wait(60)
    return report(seen, final, memory, used)


def report(seen: list[dict[str, Any]], final: dict[str, Any], memory: list[int], cpus: float) -> int:
    """Prints the tables; returns the exit code."""
    exact = True
    print("| camera | frames a second | sent | ledger | verdicts |\n|---|---|---|---|---|")
    for camera in seen:
        ledger = {k: v for k, v in final["cameras"][camera["camera"]]["frames"].items() if v}
        answered = sum(camera["verdicts"].values())
        scored = camera["verdicts"].get("scored", 0)
        good = ledger.get("received") == answered == camera["sent"] and ledger.get("scored") == scored
        good &= scored == camera["sent"]
        exact &= good
        told = camera["verdicts"]
        print(f"| {camera['camera']} | {camera['fps']:.2f} | {camera['sent']} | {ledger} | {told} |")
    print("\n| ms: P50 / P99 / P99.9 / longest | cameras (the worst of them) | 64 boxes |\n|---|---|---|")
    for stage in (*STAGES, "round_trip_ms"):
        worst = np.max([camera["ms"][stage] for camera in seen[:-1]], axis=0)
        cells = [" / ".join(f"{value:.1f}" for value in row) for row in (worst, seen[-1]["ms"][stage])]
        print(f"| {stage.removesuffix('_ms').replace('_', ' ')} | {cells[0]} | {cells[1]} |")
    warm = memory[int(_WARM_UP * len(memory)) :]
    fifth = max(1, len(warm) // 5)
    before, after = float(np.mean(warm[:fifth])), float(np.mean(warm[-fifth:]))
    growth = after / before - 1
    print(
        f"\nmemory: {before / 1024:.1f} MiB after the warm-up, {after / 1024:.1f} at the end: {growth:+.2%}"
    )
    print(f"the service used {cpus:.2f} processors; ledger {'exact' if exact else 'NOT EXACT'}")
    return 0 if exact and growth < 0.01 else 1


def main() -> int:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--boxes-fps", type=float, default=5)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--be", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        name, fps, boxes, endpoint, seconds = options.be
        be_a_camera(endpoint, Camera(name, float(fps), int(boxes)), float(seconds))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return soak(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
