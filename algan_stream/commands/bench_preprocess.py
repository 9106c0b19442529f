"""`algan-stream bench preprocess`: this core against OpenCV and NumPy, one thread each, side by side.

Every round times all subjects of a case in turn, so that a busy machine slows them alike; the
medians over the rounds are compared. Every case has a process of its own, since what an earlier case
allocated decides how dear memory is to the peers, which allocate their output. Two options show how much
such circumstances matter: frames that were written just before, and a heap that keeps its memory.
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.preprocess import active_simd, empty_slots, preprocess_into
from algan_stream.types import InputSpec

Image = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]
Subject = Callable[[Image], object]

FRAME_HEIGHT_PX, FRAME_WIDTH_PX = 1080, 1920
SIDE_PX = 256
FRAMES = 8
BOXES = 64
WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Case:
    """A row of the table: what is turned into `len(boxes)` outputs, and with which filter."""

    name: str
    boxes: npt.NDArray[np.float32] | None
    spec: InputSpec

    def crops(self, frame: Image) -> list[Image]:
        """The frame, or its boxes, as views."""
        if self.boxes is None:
            return [frame]
        return [frame[y0:y1, x0:x1] for x0, y0, x1, y1 in self.boxes.astype(int)]


def rows(repeats: int = 31, *, fresh_frames: bool = False, warm_heap: bool = False) -> list[dict[str, Any]]:
    """Measure every case.

    Args:
        repeats: Rounds over whole frames; boxes take a third of them, at least three.
        fresh_frames: Give every call another of several frames, written just before the clock starts, as by
            a camera's driver; otherwise all calls read one frame.
        warm_heap: Make the allocator keep freed memory, as in a process that has handled large arrays;
            otherwise the peers' output arrays cost page faults, as in one that has not.

    Returns:
        One row for each case and peer: `case`, `subject`, `value` and `peer_value` (medians, in
        `unit`), `peer`, and `ratio` = peer_value / value, above 1 where this core is faster.
    """
    measured: list[dict[str, Any]] = []
    for number in range(len(_cases())):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            measured += process.submit(_measure, number, repeats, fresh_frames, warm_heap).result()
    return measured


def _measure(number: int, repeats: int, fresh_frames: bool, warm_heap: bool) -> list[dict[str, Any]]:
    import cv2

    cv2.setNumThreads(1)
    case = _cases()[number]
    if warm_heap:
        # glibc takes larger blocks from the heap, and stops returning it, once one as large was freed.
        np.ones(30_000_000, np.uint8)
    frames = _frames(FRAMES if fresh_frames else 1)
    rounds = repeats if case.boxes is None else max(3, repeats // 3)
    return _compare(case, frames, rounds)


def _frames(count: int) -> list[Image]:
    rng = np.random.default_rng(0)
    shape = (FRAME_HEIGHT_PX, FRAME_WIDTH_PX, 3)
    return [rng.integers(0, 256, shape, np.uint8) for _ in range(count)]


def _boxes(side_px: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(1)
    left = rng.integers(0, FRAME_WIDTH_PX - side_px, BOXES)
    top = rng.integers(0, FRAME_HEIGHT_PX - side_px, BOXES)
    return np.stack([left, top, left + side_px, top + side_px], axis=1).astype(np.float32)


def _cases() -> list[Case]:
    cases = []
    for downscale in ("bilinear", "area"):
        spec = InputSpec(height_px=SIDE_PX, width_px=SIDE_PX, downscale=downscale)
        for side_px in (200, 400):
            name = f"{BOXES} boxes of {side_px}x{side_px}, {downscale}"
            cases.append(Case(name, _boxes(side_px), spec))
        cases.append(Case(f"1080p frame, {downscale}", None, spec))
    return cases


def _opencv_numpy(case: Case, frame: Image) -> Planes:
    """As most people write it."""
    import cv2

    filter_ = cv2.INTER_AREA if case.spec.downscale == "area" else cv2.INTER_LINEAR
    mean = np.array(case.spec.mean, np.float32)
    std = np.array(case.spec.std, np.float32)
    outputs = []
    for crop in case.crops(frame):
        resized = cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=filter_)
        rgb = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        planes = ((rgb - mean) / std).transpose(2, 0, 1)
        highest, average = planes.max(axis=0, keepdims=True), planes.mean(axis=0, keepdims=True)
        outputs.append(np.concatenate([planes, highest, average]))
    return np.stack(outputs)


def _blob_numpy(case: Case, frame: Image) -> Planes:
    """As OpenCV's own helper for networks does it, which needs the same std for all channels."""
    import cv2

    crops: list[Any] = list(case.crops(frame))  # OpenCV's stubs know arrays of no particular dtype
    size = (SIDE_PX, SIDE_PX)
    if case.spec.downscale == "area":
        crops = [cv2.resize(crop, size, interpolation=cv2.INTER_AREA) for crop in crops]
    mean = [255 * m for m in case.spec.mean]
    blob: Any = cv2.dnn.blobFromImages(
        crops, scalefactor=1 / (255 * case.spec.std[0]), size=size, mean=mean, swapRB=True
    )
    highest, average = blob.max(axis=1, keepdims=True), blob.mean(axis=1, keepdims=True)
    planes: Planes = np.concatenate([blob, highest, average], axis=1)
    return planes


def _memory_copy(case: Case, out: Planes, spare: Image) -> Subject:
    """The floor: read each source pixel once, write each output value once, compute nothing."""
    written = np.empty_like(out[0])

    def copy(frame: Image) -> None:
        for crop, slot in zip(case.crops(frame), out, strict=True):
            np.copyto(spare[: crop.shape[0], : crop.shape[1]], crop)
            np.copyto(slot, written)

    return copy


def _compare(case: Case, frames: Sequence[Image], rounds: int) -> list[dict[str, Any]]:
    count = 1 if case.boxes is None else len(case.boxes)
    out = empty_slots(count, case.spec)
    subjects: dict[str, Subject] = {
        "algan": lambda frame: preprocess_into(out, frame, case.spec, boxes=case.boxes),
        "opencv+numpy": lambda frame: _opencv_numpy(case, frame),
        "blobfromimage+numpy": lambda frame: _blob_numpy(case, frame),
        "memory-copy": _memory_copy(case, np.empty_like(out), np.empty_like(frames[0])),
    }
    ours, *peers = _interleaved_medians_ms(list(subjects.values()), frames, rounds)
    return [
        {
            "case": case.name,
            "subject": f"algan {active_simd()}",
            "value": round(ours, 4),
            "unit": "ms",
            "peer": peer,
            "peer_value": round(value, 4),
            "ratio": round(value / ours, 2),
        }
        for peer, value in zip(list(subjects)[1:], peers, strict=True)
    ]


def _interleaved_medians_ms(subjects: Sequence[Subject], frames: Sequence[Image], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in subjects]
    scene = frames[0].copy()
    buffers = itertools.cycle(frames)
    fresh = len(frames) > 1
    for round_ in range(WARM_UP_ROUNDS + rounds):
        for subject, measured in zip(subjects, times, strict=True):
            frame = next(buffers)
            if fresh:
                np.copyto(frame, scene)
            start = time.perf_counter()
            subject(frame)
            if round_ >= WARM_UP_ROUNDS:
                measured.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(measured) for measured in times]
