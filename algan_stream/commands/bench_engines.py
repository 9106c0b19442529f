"""Every engine that runs a bundle on this machine, side by side: time and, on labelled images, quality."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.table import Table

from algan_stream import plugins
from algan_stream.auroc import auroc
from algan_stream.bundle import Bundle
from algan_stream.commands.bench_engine import TURNS, saturated
from algan_stream.engines.base import Engine
from algan_stream.errors import AlganError, ImageError
from algan_stream.measures import Judged, compare, labelled_images
from algan_stream.scoring import score_images

#: What is tried; the first that can be had is what the others are compared with.
ENGINES = (
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
)
#: Sizes of batch whose time is taken alone, one batch after the other on all processors.
BATCHES = (1, 8, 64)
#: Size of batch of the throughput, with all streams busy.
_BATCH = 8


class EngineLine(msgspec.Struct, frozen=True, kw_only=True):
    """One engine.

    Attributes:
        engine: What it is; see `EngineIdentity`.
        ms_per_image: By size of batch, one batch at a time.
        images_per_s: All streams busy.
        times_first: Throughput over the first engine's, median of turns.
        auroc: On the labelled images; None without both kinds.
        max_score_difference: From the first engine, over these images.
        flips: Images whose verdict is not the first engine's.
    """

    engine: str
    ms_per_image: dict[str, float]
    images_per_s: float
    times_first: float
    auroc: float | None = None
    max_score_difference: float | None = None
    flips: list[str] | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that could not be had, and why."""

    engine: str
    reason: str


def lines(bundle: Bundle, seconds: float, images: Path | None) -> tuple[list[EngineLine], list[Refusal]]:
    """Measures all of them in turns, `seconds` for each number of each engine."""
    labelled = labelled_images(images) if images else None
    refused: list[Refusal] = []
    pairs: list[tuple[Engine, Engine]] = []
    try:
        for kind, precision in ENGINES:
            try:
                pairs.append(_open(bundle, kind, precision))
            except AlganError as error:
                refused.append(Refusal(engine=f"{kind} {precision}", reason=str(error)))
        times = _times(pairs, seconds)
        found = [_line(pair, mine, times[0]) for pair, mine in zip(pairs, times, strict=True)]
        if labelled and images:
            engines = [many for _, many in pairs]
            found = _with_quality(found, _judge(bundle, engines, images, labelled[0]), labelled[1])
    finally:
        for pair in pairs:
            for engine in pair:
                engine.close()
    return found, refused


def _open(bundle: Bundle, kind: str, precision: str) -> tuple[Engine, Engine]:
    """One for single batches, one for throughput."""
    made: list[Engine] = []
    for more in ({"streams": 1, "max_batch": max(BATCHES)}, {"max_batch": _BATCH}):
        section = {"kind": kind, "precision": precision, **more}
        module, config = plugins.load("engines", section, "engine")
        try:
            made.append(module.create(bundle, config))
        except AlganError:
            for engine in made:
                engine.close()
            raise
    return made[0], made[1]


_Times = dict[str, list[float]]


def _times(pairs: Sequence[tuple[Engine, Engine]], seconds: float) -> list[_Times]:
    """Milliseconds per image by size of batch, and images per second as `all`, for each turn."""
    names = [*map(str, BATCHES), "all"]
    found: list[_Times] = [{name: [] for name in names} for _ in pairs]
    for _ in range(TURNS):
        for (single, many), mine in zip(pairs, found, strict=True):
            for batch in BATCHES:
                mine[str(batch)].append(_one_at_a_time(single, batch, seconds / TURNS))
            mine["all"].append(saturated(many, _BATCH, seconds / TURNS))
    return found


def _one_at_a_time(engine: Engine, batch: int, seconds: float) -> float:
    """Milliseconds per image, median over batches."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while not taken or time.perf_counter() < until:
        slot = engine.acquire()
        started = time.perf_counter()
        if slot is not None:
            engine.submit(slot, batch)
            engine.collect(slot)
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken) / batch


def _line(pair: tuple[Engine, Engine], mine: _Times, first: _Times) -> EngineLine:
    ratios = [a / b for a, b in zip(mine["all"], first["all"], strict=True)]
    return EngineLine(
        engine=str(pair[1].identity),
        ms_per_image={str(batch): statistics.median(mine[str(batch)]) for batch in BATCHES},
        images_per_s=statistics.median(mine["all"]),
        times_first=statistics.median(ratios),
    )


def _judge(
    bundle: Bundle, engines: Sequence[Engine], folder: Path, files: list[Path]
) -> list[dict[str, Judged]]:
    """Every engine's score and verdict by file, relative to the folder.

    Raises:
        ImageError: A file cannot be decoded.
    """
    found = []
    for engine in engines:
        scored = list(score_images(bundle, engine, files))
        if bad := [line.reason for line in scored if line.score is None]:
            raise ImageError(bad[0])
        found.append(
            {
                str(file.relative_to(folder)): Judged(line.score, line.verdict)
                for file, line in zip(files, scored, strict=True)
            }
        )
    return found


def _with_quality(
    found: list[EngineLine], judged: list[dict[str, Judged]], anomalous: npt.NDArray[np.bool_]
) -> list[EngineLine]:
    complete = []
    for line, mine in zip(found, judged, strict=True):
        scores = np.array([one.score for one in mine.values()])
        agreement = compare(mine, judged[0])
        complete.append(
            msgspec.structs.replace(
                line,
                auroc=auroc(scores[~anomalous], scores[anomalous]),
                max_score_difference=agreement.max_difference,
                flips=agreement.flips,
            )
        )
    return complete


def table(found: list[EngineLine], refused: list[Refusal]) -> Table:
    """One row for each engine, those that could not be had at the end."""
    quality = any(line.flips is not None for line in found)
    shown = Table(title="engines")
    for name in ("engine", *(f"ms/image, batch {n}" for n in BATCHES), "images/s", "× first"):
        shown.add_column(name)
    for name in ("AUROC", "score difference", "flips") if quality else ():
        shown.add_column(name)
    for line in found:
        cells: list[Any] = [*(f"{line.ms_per_image[str(n)]:.3f}" for n in BATCHES)]
        cells += [f"{line.images_per_s:.4g}", f"{line.times_first:.2f}×"]
        if quality:
            cells.append("" if line.auroc is None else f"{line.auroc:.4f}")
            cells += [f"{line.max_score_difference:.3g}", str(len(line.flips or []))]
        shown.add_row(line.engine, *cells)
    for one in refused:
        shown.add_row(one.engine, "not here", style="dim")
    return shown
