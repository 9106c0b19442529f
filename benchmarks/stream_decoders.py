"""PyAV against OpenCV on one RTSP camera: processor time for a picture, and its age when it is there.

    .venv/bin/python benchmarks/stream_decoders.py [--pictures 150] [--rounds 3] [--width 1920 --height 1080]

The camera is GStreamer's RTSP server on this host (see tests/cameras.py for what it needs). It encodes the
time of each picture into its pixels, so that the age is that of the picture itself: from rendering through
x264, RTP over TCP and decoding to the array. Readers take turns on the same server at 25 pictures a
second. The encoder must keep up: where `fps` is not 25, the machine was busy and the ages mean nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers import free_port

FPS = 25
_OPTIONS = "rtsp_transport;tcp|fpsprobesize;0|analyzeduration;1"


def by_pyav(url: str) -> Iterator[Any]:
    """As the source `stream` reads."""
    from algan_stream.sources.stream import Config, StreamDevice

    device = StreamDevice(Config(url=url))
    try:
        while True:
            picture = device.grab(5)
            assert picture is not None
            assert not picture.fault, picture.fault
            yield picture.image
    finally:
        device.close()


def by_opencv(url: str) -> Iterator[Any]:
    """With the same options of FFmpeg, and one thread."""
    import cv2

    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _OPTIONS  # for all of a process: it knows no other way
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 5000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5000]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [*limits, cv2.CAP_PROP_N_THREADS, 1])
    try:
        while True:
            read, image = capture.read()
            assert read
            yield image
    finally:
        capture.release()


def encoded_ns(image: Any) -> int:
    """The time that the server wrote into the first rows: 64 blocks, dark or bright."""
    block = image.shape[1] // 64
    bits = image[16, block // 2 :: block][:64].mean(axis=-1) > 128
    return int("".join("1" if bit else "0" for bit in bits), 2)


def measure(reader: Any, url: str, pictures: int) -> dict[str, float]:
    """One row: `age` is that of the picture when its array is there."""
    started = time.monotonic()
    stream = reader(url)
    next(stream)
    first_s = time.monotonic() - started
    for _ in range(FPS):  # what waited for the first one
        next(stream)
    processor, wall = time.process_time(), time.monotonic()
    ages = []
    for _ in range(pictures):
        image = next(stream)
        ages.append((time.time_ns() - encoded_ns(image)) / 1e6)
    processor, wall = time.process_time() - processor, time.monotonic() - wall
    stream.close()
    return {
        "first_s": first_s,
        "fps": pictures / wall,
        "cpu_ms": 1e3 * processor / pictures,
        "age_p50_ms": statistics.median(ages),
        "age_p99_ms": float(np.quantile(ages, 0.99)),
    }


def main() -> None:
    """Prints a row for each reader and round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=1920, help="a multiple of 64")
    parser.add_argument("--height", type=int, default=1080)
    arguments = parser.parse_args()
    port = free_port()
    size = f"width={arguments.width},height={arguments.height}"
    caps = f"video/x-raw,format=GRAY8,{size},framerate={FPS}/1"
    pipeline = (
        f"appsrc name=clock is-live=true format=time do-timestamp=true caps={caps} ! videoconvert ! "
        "video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 "
        "bitrate=8000 ! rtph264pay name=pay0 pt=96"
    )
    command = ["/usr/bin/python3", str(Path(__file__).parents[1] / "tests" / "rtsp_server.py")]
    with subprocess.Popen([*command, str(port), pipeline], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            for _ in range(arguments.rounds):
                for name, reader in (("pyav", by_pyav), ("opencv", by_opencv)):
                    row = measure(reader, f"rtsp://127.0.0.1:{port}/cam", arguments.pictures)
                    print(f"{name:7}", "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
