"""What a layout reports, before anything is dealt out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from algan_stream.errors import InputError
from algan_trainer.data.dataset import Sample

Shares = Mapping[str, float]

ALL_TRAINED: Shares = MappingProxyType({"train": 1.0})
HALVES: Shares = MappingProxyType({"validation": 0.5, "test": 0.5})
#: The paper's protocol for good images of MTD (section 4.2), ours wherever there is none.
HALF_AND_QUARTERS: Shares = MappingProxyType({"train": 0.5, "validation": 0.25, "test": 0.25})


@dataclass(frozen=True)
class Found:
    """Samples of a layout; those whose split is "" are still to be dealt out.

    Attributes:
        samples: In a fixed order.
        good: Shares of the splits among good samples without one.
        anomalous: The same for defective ones.
        by_kind: Deal each type of defect by itself, so that every split has its share of each.
        notes: What the user should know.
    """

    samples: list[Sample]
    good: Shares = field(default_factory=lambda: ALL_TRAINED)
    anomalous: Shares = field(default_factory=lambda: HALVES)
    by_kind: bool = False
    notes: tuple[str, ...] = ()


def relative(path: Path, root: Path) -> str:
    """A path as samples name it."""
    return path.relative_to(root).as_posix()


def file_below(root: Path, path: str, where: str) -> str:
    """Checks that a listed path names a file below the root, and returns it.

    Raises:
        InputError: It does not; the message starts with `where`.
    """
    outside = Path(path).is_absolute() or ".." in Path(path).parts
    if outside or not (root / path).is_file():
        raise InputError(f"{where}: {path}: no such file below {root}")
    return path
