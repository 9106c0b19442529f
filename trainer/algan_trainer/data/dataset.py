"""What a dataset is: image files with a kind and a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GOOD = "good"
SPLITS = ("train", "calibration", "validation", "test")


@dataclass(frozen=True)
class Sample:
    """One image file.

    Attributes:
        path: Relative to the data's root, with `/`.
        kind: `good`, or the type of defect.
        split: One of `SPLITS`, or "" where it has none.
        mask: Its pixel mask, relative to the root: a file, or a folder of files that add up; "" without one.
        group: Name of the part that it shows, the same for all images of one part; "" where unknown.
        mask_above: Pixels of the mask above this value, 0 to 254, show the defect.
    """

    path: str
    kind: str
    split: str
    mask: str = ""
    group: str = ""
    mask_above: int = 127

    @property
    def anomalous(self) -> bool:
        """Whether it shows a defect."""
        return self.kind != GOOD


@dataclass(frozen=True)
class Dataset:
    """Samples that never share a file, nor a copy of one, between splits; only good ones are trained on.

    Attributes:
        root: What the samples' paths are relative to.
        layout: Name of the layout, one of `layouts.LAYOUTS`.
        samples: All of them.
        notes: What the user should know about it, a sentence each.
        skipped: Files that were left out because they cannot be decoded: path and reason.
    """

    root: Path
    layout: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def of(self, split: str) -> list[Sample]:
        """Samples of one split."""
        return [s for s in self.samples if s.split == split]

    @property
    def calibration(self) -> list[Sample]:
        """Good images that were not trained on: the part held out for it, else validation's."""
        return self.of("calibration") or [s for s in self.of("validation") if not s.anomalous]

    @property
    def validation(self) -> list[Sample]:
        """What a checkpoint is judged by: validation's images, else the calibration images."""
        return self.of("validation") or self.of("calibration")
