"""Scores images, boxes and tables offline, by the same preprocessing, engine and decision as the service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import usable_boxes
from algan_stream.bundle import Bundle
from algan_stream.decision import Decider, unknown
from algan_stream.engines.base import Engine
from algan_stream.errors import ImageError, InputError
from algan_stream.explain import OverlayWriter
from algan_stream.images import read_image
from algan_stream.inputs import vector_fault
from algan_stream.preprocess import preprocess
from algan_stream.tables import ID, Table, require_fit
from algan_stream.types import Box, BoxVerdict, VerdictKind

#: Rows of a table that are scored together.
_ROWS_AT_ONCE = 4096


class ImageScore(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `algan-stream score`; see `BoxVerdict` for the fields.

    Attributes:
        explanation: Path of the picture that explains it; absent where none was made.
        peak_xy_px: Where its saliency is highest, in the image's pixels; absent likewise.
    """

    path: str
    box: Box | None
    score: float | None
    p_value: float | None
    verdict: VerdictKind
    reason: str
    explanation: str | msgspec.UnsetType = msgspec.UNSET
    peak_xy_px: tuple[float, float] | msgspec.UnsetType = msgspec.UNSET


def score_images(
    bundle: Bundle,
    engine: Engine,
    paths: Iterable[Path],
    boxes: Mapping[str, npt.NDArray[np.float32]] | None = None,
    overlays: OverlayWriter | None = None,
) -> Iterator[ImageScore]:
    """Yields one score for each image, or for each of its boxes, in order.

    Args:
        bundle: Gives input spec and calibration.
        engine: Has passed the golden gate.
        paths: Image files. What cannot be decoded, and a box outside its image, is yielded as `unknown`
            with the reason.
        boxes: (N, 4) xyxy boxes by path as given, or by file name; images without an entry are scored whole.
        overlays: Explains the verdicts that it wants to; None: nothing is explained.
    """
    decider, spec = Decider(bundle.manifest.calibration), bundle.manifest.image_spec
    for path in paths:
        own = None if boxes is None else boxes.get(str(path), boxes.get(path.name))
        targets: list[Box | None] = (
            [None] if own is None else [(x0, y0, x1, y1) for x0, y0, x1, y1 in own.tolist()]
        )
        explained: dict[int, tuple[Path, tuple[float, float]]] = {}
        try:
            image, pixel_format = read_image(path, spec.white_level)
        except ImageError as error:
            verdicts = [unknown(f"bad_image: {error}", box) for box in targets]
        else:
            verdicts = [unknown("invalid_box", box) for box in targets]
            usable = [0] if own is None else np.flatnonzero(usable_boxes(own, image)).tolist()
            if usable:
                kept = None if own is None else own[usable]
                inputs = preprocess(image, spec, pixel_format=pixel_format, boxes=kept)
                scored = decider.decide(engine.infer(inputs), [targets[i] for i in usable])
                for i, verdict in zip(usable, scored, strict=True):
                    verdicts[i] = verdict
                rows = [row for row, i in enumerate(usable) if overlays and overlays.wants(verdicts[i])]
                if overlays and rows:
                    places = [usable[row] for row in rows]
                    named = {i: targets[i] for i in places}
                    made = overlays.write(path, image, pixel_format, inputs[rows], named)
                    explained = dict(zip(places, made, strict=True))
        # Nothing inspected is unknown, never passed in silence.
        verdicts = verdicts or [unknown("no_boxes")]
        yield from (_line(path, verdict, explained.get(i)) for i, verdict in enumerate(verdicts))


class VectorScore(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `algan-stream score` on a table: a row, counted from 0, and its own `id` if it has one."""

    path: str
    row: int
    id: str = ""
    score: float | None
    p_value: float | None
    verdict: VerdictKind
    reason: str


def score_table(bundle: Bundle, engine: Engine, table: Table) -> Iterator[VectorScore]:
    """Yields one score for each row, in order.

    Args:
        bundle: For vectors; gives their number of features and the calibration.
        engine: Has passed the golden gate.
        table: What to score. A row with a number missing or infinite is yielded as `unknown`.

    Raises:
        InputError: The table has other features than the model.
    """
    spec = bundle.manifest.vector_spec
    if spec is msgspec.UNSET:
        raise InputError(f"{table.path}: is a table of vectors, but {bundle.path} takes images")
    require_fit(table, spec)
    decider = Decider(bundle.manifest.calibration)
    for start in range(0, len(table.values), _ROWS_AT_ONCE):
        values = table.values[start : start + _ROWS_AT_ONCE]
        faults = [vector_fault(vector, spec) for vector in values]
        usable = [i for i, fault in enumerate(faults) if not fault]
        verdicts = [unknown(fault) for fault in faults]
        scored = decider.decide(engine.infer(values[usable]), [None] * len(usable))
        for i, verdict in zip(usable, scored, strict=True):
            verdicts[i] = verdict
        for row, verdict in enumerate(verdicts, start):
            yield VectorScore(
                path=str(table.path),
                row=row,
                id=table.about[ID][row] if ID in table.about else "",
                score=verdict.score,
                p_value=verdict.p_value,
                verdict=verdict.verdict,
                reason=verdict.reason,
            )


def _line(path: Path, verdict: BoxVerdict, explained: tuple[Path, tuple[float, float]] | None) -> ImageScore:
    return ImageScore(
        path=str(path),
        box=verdict.box,
        score=verdict.score,
        p_value=verdict.p_value,
        verdict=verdict.verdict,
        reason=verdict.reason,
        explanation=str(explained[0]) if explained else msgspec.UNSET,
        peak_xy_px=explained[1] if explained else msgspec.UNSET,
    )
