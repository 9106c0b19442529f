"""Saliency against masks: the measures themselves, and the whole way from training to `evaluate --pixel`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from algan_stream.bundle import EXPLAIN, MODEL, Bundle, read_bundle
from algan_stream.cli import app
from algan_stream.errors import InputError
from algan_stream.types import InputSpec
from algan_trainer.add_explanation import add_explanation
from algan_trainer.config import Config
from algan_trainer.data import Sample
from algan_trainer.evaluate import auroc
from algan_trainer.pixels import PixelAuroc, compare
from algan_trainer.run import run
from algan_trainer.session import Request

SPEC = InputSpec(height_px=16, width_px=16)
RECT = (slice(10, 20), slice(30, 40))


def test_auroc_by_histogram_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    pixels = PixelAuroc()
    every, masks = [], []
    for scale in (1e-6, 1.0, 1e6):  # maps of very different strength, as in one test set
        saliency = (rng.random((40, 50)) * scale).astype(np.float32)
        mask = rng.random((40, 50)) < 0.2
        saliency[mask] *= 1.5
        pixels.add(saliency, mask)
        every.append(saliency.ravel())
        masks.append(mask.ravel())
    values, bad = np.concatenate(every), np.concatenate(masks)
    exact = auroc(values[~bad], values[bad])
    assert exact is not None
    assert pixels.auroc() == pytest.approx(exact, abs=2e-4)


def test_auroc_counts_ties_half_and_needs_both_sides() -> None:
    pixels = PixelAuroc()
    zeros = np.zeros((4, 4), np.float32)
    assert pixels.auroc() is None
    pixels.add(zeros, np.zeros((4, 4), bool))
    assert pixels.auroc() is None
    pixels.add(zeros, np.ones((4, 4), bool))
    assert pixels.auroc() == 0.5
    pixels.add(zeros + 1, np.ones((4, 4), bool))
    assert pixels.auroc() == 0.75


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with a bright defect, its mask, an empty mask, and a good image; 60 × 40 px."""
    image, mask = np.full((40, 60), 60, np.uint8), np.zeros((40, 60), np.uint8)
    Image.fromarray(image).save(tmp_path / "good.png")
    Image.fromarray(mask).save(tmp_path / "empty.png")
    image[RECT] = 255
    mask[RECT] = 255
    Image.fromarray(image).save(tmp_path / "bad.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def samples(mask: str = "mask.png") -> list[Sample]:
    return [Sample("good.png", "good", "test"), Sample("bad.png", "hole", "test", mask)]


def brightness(inputs: np.ndarray) -> np.ndarray:
    return np.asarray(inputs[:, 0] + 1.0, np.float32)


def test_a_perfect_map_reaches_one_and_its_opposite_zero(root: Path) -> None:
    found = compare(SPEC, root, samples(), brightness)
    assert found["pixel_auroc"] > 0.99
    assert found["pointing_accuracy"] == found["pointing_strict"] == 1.0
    assert (found["n_masks"], found["n_without_mask"]) == (1, 0)
    assert found["pointing_strict_chance"] == pytest.approx(100 / 2400)
    # 3 px to either side and 2 px above and below: 5 % of 60 × 40.
    assert found["pointing_accuracy_chance"] == pytest.approx(16 * 14 / 2400)
    found = compare(SPEC, root, samples(), lambda inputs: 2.0 - brightness(inputs))
    assert found["pixel_auroc"] < 0.01
    assert found["pointing_accuracy"] == 0.0


@pytest.mark.parametrize(("column", "near"), [(7, True), (6, False)])
def test_pointing_allows_for_a_twentieth_of_the_side(root: Path, column: int, near: bool) -> None:
    def point(inputs: np.ndarray) -> np.ndarray:  # cells are 3.75 px wide: the defect starts in column 8
        maps = np.zeros(inputs[:, 0].shape, np.float32)
        maps[:, 6, column] = 1.0
        return maps

    found = compare(SPEC, root, samples(), point)
    assert (found["pointing_strict"], found["pointing_accuracy"]) == (0.0, float(near))
    assert found["per_type"] == {"hole": {"n": 1, "pointing_accuracy": float(near)}}


def test_defects_without_a_mask_are_left_out_and_counted(root: Path) -> None:
    more = [*samples(), *samples("empty.png"), *samples("")]
    found = compare(SPEC, root, more, brightness)
    assert (found["n_masks"], found["n_without_mask"]) == (1, 2)
    assert found["pixel_auroc"] > 0.99
    with pytest.raises(InputError, match="none of the 2 images has a mask"):
        compare(SPEC, root, samples(""), brightness)


def test_a_mask_of_another_size_is_named(root: Path) -> None:
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(root / "mask.png")
    with pytest.raises(InputError, match=r"bad\.png: expected a mask of \(40, 60\), got \(20, 30\)"):
        compare(SPEC, root, samples(), brightness)


@pytest.fixture
def trained(tiny: Config, mvtec: Path, tmp_path: Path) -> Bundle:
    for kind in ("hole", "scratch"):
        for path in sorted((mvtec / "test" / kind).iterdir()):
            mask = np.zeros((40, 40), np.uint8)
            mask[5:20, 5:20] = 255
            (mvtec / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(mvtec / "ground_truth" / kind / f"{path.stem}_mask.png")
    request = Request(data=mvtec, out=tmp_path / "b", work_dir=tmp_path / "work", threads=1)
    return run(tiny, {"epochs": 1}, request)


def evaluated(*arguments: Any) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_training_to_numbers(trained: Bundle, mvtec: Path, tmp_path: Path) -> None:
    assert EXPLAIN in trained.manifest.files
    assert trained.manifest.provenance["parity"]["openvino fp32 saliency"] < 1e-2
    shown = evaluated(trained.path, mvtec, "--pixel", "--json", tmp_path / "out.json", "--threads", 1)
    pixel = json.loads((tmp_path / "out.json").read_text())["pixel"]
    assert pixel["n_masks"] == 5
    assert 0 <= pixel["pixel_auroc"] <= 1
    assert pixel["pointing_strict_chance"] == pytest.approx(225 / 1600)
    assert f"pixel_auroc: {pixel['pixel_auroc']:.4f}" in shown
    assert "hole: n 3, " in shown
    assert "pointing_accuracy " in shown
    plain = evaluated(trained.path, mvtec, "--json", tmp_path / "plain.json", "--threads", 1)
    assert "pixel" not in json.loads((tmp_path / "plain.json").read_text())
    assert "pixel" not in plain


def test_a_bundle_without_a_graph_can_be_given_one(trained: Bundle, mvtec: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(trained.path, old)
    (old / EXPLAIN).unlink()
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"][EXPLAIN]
    (old / "manifest.json").write_text(json.dumps(manifest))
    before = read_bundle(old)
    assert before.explain_path is None
    after = add_explanation(before, mvtec)
    assert after.explain_path is not None
    assert after.manifest.files[MODEL] == before.manifest.files[MODEL]
    assert after.manifest.calibration == before.manifest.calibration
    assert (after.path / "report" / "split.csv").is_file()
    assert not list(tmp_path.glob(".old-*"))
    # From the same images as the training's own: the same graph.
    assert after.manifest.files[EXPLAIN] == trained.manifest.files[EXPLAIN]
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(mvtec / "train" / "good" / "000.png", few)
    with pytest.raises(InputError, match="got 1 and 0"):
        add_explanation(after, few)
    assert read_bundle(old).manifest == after.manifest
