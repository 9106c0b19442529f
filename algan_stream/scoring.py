"""Scores images and their boxes offline, by the same preprocessing, engine and decision as the service."""

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
from algan_stream.errors import ImageError
from algan_stream.images import read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import Box, BoxVerdict, VerdictKind


class ImageScore(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `algan-stream score`; see `BoxVerdict` for the fields."""

    path: str
    box: Box | None
    score: float | None
    p_value: float | None
    verdict: VerdictKind
    reason: str


def score_images(
    bundle: Bundle,
    engine: Engine,
    paths: Iterable[Path],
    boxes: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Iterator[ImageScore]:
    """Yields one score for each image, or for each of its boxes, in order.

    Args:
        bundle: Gives input spec and calibration.
        engine: Has passed the golden gate.
        paths: Image files. What cannot be decoded, and a box outside its image, is yielded as `unknown`
            with the reason.
        boxes: (N, 4) xyxy boxes by path as given, or by file name; images without an entry are scored whole.
    """
    decider, spec = Decider(bundle.manifest.calibration), bundle.manifest.input_spec
    for path in paths:
        own = None if boxes is None else boxes.get(str(path), boxes.get(path.name))
        targets: list[Box | None] = (
            [None] if own is None else [(x0, y0, x1, y1) for x0, y0, x1, y1 in own.tolist()]
        )
        try:
            image, pixel_format = read_image(path)
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
        # Nothing inspected is unknown, never passed in silence.
        verdicts = verdicts or [unknown("no_boxes")]
        yield from (_line(path, verdict) for verdict in verdicts)


def _line(path: Path, verdict: BoxVerdict) -> ImageScore:
    return ImageScore(
        path=str(path),
        box=verdict.box,
        score=verdict.score,
        p_value=verdict.p_value,
        verdict=verdict.verdict,
        reason=verdict.reason,
    )
