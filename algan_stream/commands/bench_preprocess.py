"""`algan-stream bench preprocess`: this core against other libraries, one thread each, side by side.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream import _core
from algan_stream.commands.bench_preprocess_cases import Case
from algan_stream.commands.bench_preprocess_peers import MODULES, peers
from algan_stream.preprocess import active_simd, empty_slots, preprocess_into

Frame = npt.NDArray[Any]

FRESH_FRAMES = 8
LEAST_ROUNDS = 3


def rows(
    cases: Sequence[Case], seconds: float = 1.0, *, fresh_frames: bool = False, warm_heap: bool = False
) -> Iterator[dict[str, Any]]:
    """Measure the cases.

    Args:
        cases: What to measure.
        seconds: Time for each case; at least `LEAST_ROUNDS` rounds are made.
        fresh_frames: Give every call another of several frames, written just before the clock starts, as by
            a camera's driver; otherwise all calls read one frame.
        warm_heap: Make the allocator keep freed memory, as in a process that has handled large arrays;
            otherwise the peers' output arrays cost page faults, as in one that has not.

    Yields:
        One row for each case and peer: `case`, `subject`, `value` and `peer_value` (medians, in
        `unit`), `peer`, and `ratio` = peer_value / value, above 1 where this core is faster. The peer `floor`
        reads the bytes that the outputs depend on and writes the outputs, once each.
    """
    # Each process is a copy of one that has imported everything and measured nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *MODULES])
    for case in cases:
        with ProcessPoolExecutor(1, context) as process:
            yield from process.submit(_measure, case, seconds, fresh_frames, warm_heap).result()


def _measure(case: Case, seconds: float, fresh_frames: bool, warm_heap: bool) -> list[dict[str, Any]]:
    import cv2

    cv2.setNumThreads(1)
    if warm_heap:
        # glibc takes larger blocks from the heap, and stops returning it, once one as large was freed.
        np.ones(30_000_000, np.uint8)
    frames = [case.make_frame(seed) for seed in range(FRESH_FRAMES if fresh_frames else 1)]
    out = empty_slots(max(1, case.count), case.spec)
    spec, boxes = case.spec, case.boxes
    subjects: dict[str, Callable[[Any], object]] = {
        "algan": lambda frame: preprocess_into(out, frame, spec, pixel_format=case.pixel_format, boxes=boxes),
        **peers(case),
        "floor": _floor(case, np.empty_like(out)),
    }
    ours, *others = _interleaved_medians_ms(list(subjects.values()), frames, seconds)
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
        for peer, value in zip(list(subjects)[1:], others, strict=True)
    ]


def _floor(case: Case, out: npt.NDArray[np.float32]) -> Callable[[Frame], object]:
    runs, written = case.needed_bytes(), out.reshape(-1).view(np.uint8)

    def run(frame: Frame) -> None:
        _core._stream(frame.reshape(len(frame), -1).view(np.uint8), runs, written)

    return run


def _interleaved_medians_ms(
    subjects: Sequence[Callable[[Any], object]], frames: Sequence[Frame], seconds: float
) -> list[float]:
    times: list[list[float]] = [[] for _ in subjects]
    scene = frames[0].copy()
    buffers = itertools.cycle(frames)
    fresh = len(frames) > 1
    begin = float("inf")
    for round_ in itertools.count():
        now = time.perf_counter()
        begin = now if round_ == 1 else begin  # the first round warms up
        if round_ > LEAST_ROUNDS and now - begin > seconds:
            break
        for subject, measured in zip(subjects, times, strict=True):
            frame = next(buffers)
            if fresh:
                np.copyto(frame, scene)
            start = time.perf_counter()
            subject(frame)
            if round_ > 0:
                measured.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(measured) for measured in times]
