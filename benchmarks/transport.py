"""1080p raw frames from process to process: ours, imagezmq and vidgear's NetGear, in turns, in one run.

    python benchmarks/transport.py [--seconds 3] [--rounds 5]      # make bench-transport

Peers get an environment of their own, build/transport-peers, made at the first run (imagezmq, vidgear and
OpenCV from PyPI). Prints a table: the median rate of each way, and the median of its ratios to imagezmq in
the same round.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from transport_ends import SEND

from algan_stream.curve import new_pair

_HERE = Path(__file__).resolve().parent
_PEERS = _HERE.parent / "build" / "transport-peers"
_PACKAGES = ["imagezmq==1.2.0", "vidgear==0.3.4", "opencv-python-headless", "pyzmq==27.3.0", "simplejpeg"]
_PATIENCE_S = 60.0


def peers_python() -> str:
    """The interpreter that has the peers."""
    python = _PEERS / "bin" / "python"
    if not (_PEERS / "made").exists():
        venv.create(_PEERS, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *_PACKAGES], check=True)
        (_PEERS / "made").touch()
    return str(python)


def rate(way: str, python: str, seconds: float) -> float:
    """Frames per second of one way, once."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"tcp://127.0.0.1:{_free_port()}"
        if way in ("ours, ipc", "ours, shared memory", "ours, shared memory, in place"):
            address = f"ipc://{folder}/frames"
        if way.endswith("CURVE"):
            for name in ("service", "client"):
                new_pair(Path(folder) / name)
        script = str(_HERE / "transport_ends.py")
        ends: dict[str, subprocess.Popen[str]] = {}
        for end in ("receive", "send"):
            at = address.replace("127.0.0.1", "*") if (way, end) == ("imagezmq", "receive") else address
            ends[end] = subprocess.Popen(
                [python, script, end, way, at, str(seconds)],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if end == "send" else None,  # it is cut off in the middle
                text=True,
            )
        try:
            said, _ = ends["receive"].communicate(timeout=_PATIENCE_S + seconds)
        finally:
            for process in ends.values():
                process.kill()
                process.wait()
    return float(said.split()[-1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="ways, by name")
    options = parser.parse_args()
    ways = [way for way in SEND if not options.only or way in options.only]
    peers = peers_python()
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            python = peers if way in ("imagezmq", "NetGear") else sys.executable
            rates[way].append(rate(way, python, options.seconds))
            print(f"{way}: {rates[way][-1]:.0f}", file=sys.stderr)
    base = rates.get("imagezmq") or [float("nan")] * options.rounds
    print("| way | frames per second | times imagezmq |\n|---|---|---|")
    for way, measured in rates.items():
        ratios = [a / b for a, b in zip(measured, base, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {way} | {statistics.median(measured):.0f} | {spread} |")


if __name__ == "__main__":
    main()
