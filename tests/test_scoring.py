"""Offline scores: the same engine and decision as the service, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.scoring import score_images
from algan_stream.types import VerdictKind


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    made = open_engine(bundle, {"kind": "openvino", "threads": 1})
    yield made
    made.close()


@pytest.fixture
def golden_files(bundle: Bundle, tmp_path: Path) -> list[Path]:
    files = []
    for i, image in enumerate(bundle.golden().images_rgb):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    return files


def test_scores_are_minus_the_golden_logits(bundle: Bundle, engine: Engine, golden_files: list[Path]) -> None:
    lines = list(score_images(bundle, engine, golden_files))
    assert [line.path for line in lines] == [str(path) for path in golden_files]
    assert [line.score for line in lines] == pytest.approx(
        -bundle.golden().logits, abs=bundle.manifest.tolerance["fp32"]
    )
    threshold = bundle.manifest.calibration.threshold if bundle.manifest.calibration else 0.0
    for line in lines:
        assert line.box is None
        assert (line.verdict is VerdictKind.PASS) == (line.score is not None and line.score <= threshold)


def test_boxes_by_name_or_by_path(bundle: Bundle, engine: Engine, golden_files: list[Path]) -> None:
    whole = np.array([(0, 0, 32, 32), (0, 0, 16, 16)], np.float32)
    boxes = {golden_files[0].name: whole, str(golden_files[1]): whole[1:]}
    lines = list(score_images(bundle, engine, golden_files[:3], boxes))
    assert [(Path(line.path).name, line.box) for line in lines] == [
        ("0.png", (0, 0, 32, 32)),
        ("0.png", (0, 0, 16, 16)),
        ("1.png", (0, 0, 16, 16)),
        ("2.png", None),
    ]
    (plain, *_) = score_images(bundle, engine, golden_files)
    assert lines[0].score == plain.score
    assert lines[1].score != plain.score


def test_what_cannot_be_scored_is_unknown_and_the_rest_goes_on(
    bundle: Bundle, engine: Engine, golden_files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    outside = np.array([(100, 100, 120, 120)], np.float32)
    files = [tmp_path / "bad.png", tmp_path / "none.png", *golden_files]
    lines = list(score_images(bundle, engine, files, {"0.png": outside}))
    assert [line.verdict is VerdictKind.UNKNOWN for line in lines] == [True, True, True, False, False, False]
    assert lines[0].reason.startswith("bad_image: ")
    assert "no such file" in lines[1].reason
    assert lines[2].reason == "invalid_box"
    assert all(line.score is None for line in lines[:3])


def test_one_bad_box_spoils_no_other_offline_as_in_the_stream(
    bundle: Bundle, engine: Engine, golden_files: list[Path]
) -> None:
    boxes = np.array([(0, 0, 32, 32), (5, 5, 5, 5), (0, 0, 16, 16)], np.float32)
    lines = list(score_images(bundle, engine, golden_files[:1], {"0.png": boxes}))
    assert [line.verdict is VerdictKind.UNKNOWN for line in lines] == [False, True, False]


def test_an_empty_list_of_boxes_is_not_a_pass(
    bundle: Bundle, engine: Engine, golden_files: list[Path]
) -> None:
    (line,) = score_images(bundle, engine, golden_files[:1], {"0.png": np.zeros((0, 4), np.float32)})
    assert (line.verdict, line.reason, line.box) == (VerdictKind.UNKNOWN, "no_boxes", None)
