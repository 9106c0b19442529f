"""Labelled folders and how far two engines agree; AUROC itself: trainer/test_evaluate.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from algan_stream.errors import InputError
from algan_stream.measures import Judged, compare, labelled_images
from algan_stream.types import VerdictKind


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_what_is_not_below_good_is_anomalous(tmp_path: Path) -> None:
    files, anomalous = labelled_images(_files(tmp_path, "good/b.png", "dent/a.png", "good/deep/good.png"))
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "dent/a.png", "good/b.png", "good/deep/good.png",
    ]  # fmt: skip
    assert anomalous.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("good/a.png", "b.png"), r"b\.png: expected subfolders, `good` and others"),
        (("dent/a.png", "Good/b.png"), "expected good images in .*good"),
        (("good/a.txt",), "holds no images"),
    ],
)
def test_folders_that_are_not_labelled(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        labelled_images(_files(tmp_path, *names))


def test_agreement_is_the_largest_difference_and_every_other_verdict() -> None:
    ours = {
        "a": Judged(1.0, VerdictKind.PASS),
        "b": Judged(2.0, VerdictKind.REJECT),
        "c": Judged(None, VerdictKind.UNKNOWN),
    }
    theirs = {
        "a": Judged(1.25, VerdictKind.PASS),
        "b": Judged(1.9, VerdictKind.PASS),
        "c": Judged(5.0, VerdictKind.PASS),
    }
    agreement = compare(ours, theirs)
    assert agreement.max_difference == 0.25
    assert agreement.flips == ["b", "c"]
    assert compare(ours, ours).flips == []
    assert math.isnan(compare({"c": ours["c"]}, theirs).max_difference)
    with pytest.raises(KeyError):
        compare({"d": ours["a"]}, theirs)
