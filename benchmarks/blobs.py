"""Boxes of kind `blobs` on real conveyor clips: parts found, false boxes, time.

    ALGAN_DATA=… python benchmarks/blobs.py

The clips are Intel's sample videos (CC BY 4.0) under $ALGAN_DATA/videos. Where each part lies was read
from them by hand, in a few frames; between those it moves in a straight line, so that a box is right to some
pixels. A part counts in frames in which it is wholly in view, and is found by a box of IoU
0.5 or more; any other box is false.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from algan_stream.boxes.blobs import Config, create
from algan_stream.types import Frame

#: By clip, for each part: first and last frame wholly in view, x_min in the first of them, its way per frame,
#: width, y_min, y_max; in pixels.
TRUTH = {
    "bolt-multi-size-detection.gif": [(3, 21, 20, 22.5, 48, 20, 245)],
    "fruit-and-vegetable-detection.gif": [
        (5, 29, 404, -15.9, 61, 140, 200),
        (24, 42, 321, -17.2, 155, 145, 207),
        (61, 83, 358, -15.9, 119, 137, 207),
        (81, 100, 400, -17.3, 76, 135, 204),
    ],
}
#: Chosen by looking at these very clips, as one does when a camera is set up.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "bolt-multi-size-detection.gif": [
        {"background": "learned", "level": 40, "min_area": 1500},
        {"background": "image", "level": 60, "min_area": 1500},
        {"background": "threshold", "level": 120, "min_area": 1500},
    ],
    "fruit-and-vegetable-detection.gif": [
        {"background": "learned", "level": 40, "min_area": 1500, "merge": 16},
        {"background": "image", "level": 50, "min_area": 1500, "merge": 16},
    ],
}
#: A frame without any part.
EMPTY = {"bolt-multi-size-detection.gif": 30, "fruit-and-vegetable-detection.gif": 54}


def truth(clip: str, frame_id: int) -> np.ndarray[Any, Any]:
    """(N, 4) boxes of the parts wholly in view."""
    boxes = [
        (x := x0 + way * (frame_id - first), y0, x + width, y1)
        for first, last, x0, way, width, y0, y1 in TRUTH[clip]
        if first <= frame_id <= last
    ]
    return np.array(boxes, np.float64).reshape(-1, 4)


def matched(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> int:
    """How many wanted boxes have a found one of IoU 0.5 or more; no two of either can share one."""
    low = np.maximum(found[:, None, :2], wanted[None, :, :2])
    shared = np.prod(np.maximum(np.minimum(found[:, None, 2:], wanted[None, :, 2:]) - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (found, wanted)]
    iou = shared / (areas[0][:, None] + areas[1][None] - shared)
    return int((iou >= 0.5).any(axis=0).sum()) if found.size and wanted.size else 0


def main() -> None:
    """Prints a line for each clip and setting."""
    if "ALGAN_DATA" not in os.environ:
        sys.exit("set ALGAN_DATA to the folder that holds videos/")
    cv2.setNumThreads(1)
    print("| clip | settings | parts found | false boxes per frame | ms per frame |")
    print("|---|---|---|---|---|")
    for clip, settings in SETTINGS.items():
        capture = cv2.VideoCapture(str(Path(os.environ["ALGAN_DATA"]) / "videos" / clip))
        frames = []
        while (read := capture.read())[0]:
            frames.append(read[1])
        belt = Path(os.environ.get("TMPDIR", "/tmp")) / f"{clip}.png"
        cv2.imwrite(str(belt), frames[EMPTY[clip]])
        for keys in settings:
            more = {"path": str(belt)} if keys["background"] == "image" else {}
            finder = create(Config(**keys, **more))
            good = false = parts = 0
            seconds = []
            # Played twice where the belt is learned: the clips are too short for both.
            for rounds in range(2 if keys["background"] == "learned" else 1):
                good = false = parts = 0
                for i, image in enumerate(frames):
                    frame = Frame(clip, rounds * len(frames) + i, image, "bgr8", captured_ns=0)
                    started = time.perf_counter()
                    boxes = finder.find(frame)
                    seconds.append(time.perf_counter() - started)
                    wanted, found = truth(clip, i), np.empty((0, 4)) if boxes is None else boxes
                    hits = matched(found, wanted)
                    good, parts, false = good + hits, parts + len(wanted), false + len(found) - hits
            told = ", ".join(f"{key} {value}" for key, value in keys.items())
            print(
                f"| {clip} | {told} | {good} of {parts} ({good / parts:.0%}) | {false / len(frames):.2f} | "
                f"{np.median(seconds) * 1e3:.2f} |"
            )
        belt.unlink()


if __name__ == "__main__":
    main()
