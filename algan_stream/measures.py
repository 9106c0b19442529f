"""Labelled folders of images, and how far two engines agree on them. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.images import list_images
from algan_stream.types import VerdictKind

#: Subfolder of good images in a labelled folder; every other subfolder holds a kind of defect.
GOOD = "good"


def labelled_images(folder: Path) -> tuple[list[Path], npt.NDArray[np.bool_]]:
    """Image files below `good/` and below other subfolders.

    Returns:
        The files, sorted, and for each whether it is anomalous.

    Raises:
        InputError: There are no images, none under `good/`, or some under no subfolder.
    """
    files = list_images(folder)
    parts = [file.relative_to(folder).parts for file in files]
    if stray := next((file for file, p in zip(files, parts, strict=True) if len(p) == 1), None):
        raise InputError(f"{stray}: expected subfolders, `{GOOD}` and others, in {folder}")
    anomalous = np.array([p[0] != GOOD for p in parts])
    if anomalous.all():
        raise InputError(f"{folder}: expected good images in {folder / GOOD}, and defects in other folders")
    return files, anomalous


@dataclass(frozen=True)
class Judged:
    """A score and verdict; the score is None where the verdict is `unknown`."""

    score: float | None
    verdict: VerdictKind


@dataclass(frozen=True)
class Agreement:
    """How far an engine's answers are from another's.

    Attributes:
        max_difference: Largest difference of two scores; NaN where no score can be compared.
        flips: What has another verdict, by name.
    """

    max_difference: float
    flips: list[str]


def compare(these: Mapping[str, Judged], those: Mapping[str, Judged]) -> Agreement:
    """Compares answers to the same questions.

    Args:
        these: By name.
        those: By the same names.

    Raises:
        KeyError: A name is missing from `those`.
    """
    pairs = [(name, one, those[name]) for name, one in these.items()]
    apart = [abs(a.score - b.score) for _, a, b in pairs if a.score is not None and b.score is not None]
    return Agreement(max(apart, default=float("nan")), [n for n, a, b in pairs if a.verdict is not b.verdict])
