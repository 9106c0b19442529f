from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from algan_stream.cli import app
from algan_stream.errors import ConfigError, ImageError, InputError, PluginError

TRAIN = ["--size=32", "--width=4", "--epochs=1", "--batch-size=4", "--threads=1", "--precision=fp32"]


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def trained(mvtec: Path, tmp_path: Path) -> Path:
    result = invoke("train", mvtec, "--out", tmp_path / "b", *TRAIN)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "b")
    return tmp_path / "b"


def evaluated(bundle: Path, data: Path, *options: object) -> dict[str, Any]:
    file = bundle.with_name("evaluation.json")
    assert invoke("evaluate", bundle, data, "--json", file, "--threads", 1, *options).exit_code == 0
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def test_evaluate_writes_the_agreed_keys(trained: Path, mvtec: Path) -> None:
    result = evaluated(trained, mvtec)
    assert list(result) == [
        "auroc",
        "n_normal",
        "n_anomalous",
        "false_reject_rate",
        "detection_rate",
        "left_out_trained_on",
        "left_out_held_out",
        "per_type",
        "scores",
    ]
    assert (result["n_normal"], result["n_anomalous"]) == (4, 5)  # the test half, not validation's
    assert (result["left_out_trained_on"], result["left_out_held_out"]) == (12, 9)
    assert 0 <= result["auroc"] <= 1
    assert result["per_type"].keys() == {"hole", "scratch"}
    assert result["scores"][0].keys() == {"path", "label", "type", "score", "p_value", "verdict"}
    assert {s["label"] for s in result["scores"]} == {"good", "anomalous"}


def test_splits_never_share_an_image(trained: Path, mvtec: Path) -> None:
    paths = {
        split: {s["path"] for s in evaluated(trained, mvtec, "--split", split)["scores"]}
        for split in ("test", "validation", "all")
    }
    assert len(paths["test"]) == len(paths["validation"]) == 9
    assert not paths["test"] & paths["validation"]
    assert len(paths["all"]) == 30


def test_split_is_found_by_content_under_other_names(trained: Path, mvtec: Path) -> None:
    (mvtec / "test").rename(mvtec.with_name("elsewhere"))
    assert evaluated(trained, mvtec.with_name("elsewhere"))["n_normal"] == 4


def test_good_images_only(trained: Path, tmp_path: Path, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "new", 5, seed=99)
    result = evaluated(trained, tmp_path / "new")
    assert (result["auroc"], result["detection_rate"], result["per_type"]) == (None, None, {})
    assert result["n_normal"] == 5
    assert 0 <= result["false_reject_rate"] <= 1


def test_only_training_images_are_refused(trained: Path, mvtec: Path) -> None:
    with pytest.raises(InputError, match="--split all"):
        invoke("evaluate", trained, mvtec / "train")
    assert evaluated(trained, mvtec / "train", "--split", "all")["n_normal"] == 12


def test_bad_images_are_named(trained: Path, mvtec: Path) -> None:
    (mvtec / "test" / "new").mkdir()
    (mvtec / "test" / "new" / "broken.png").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"broken\.png"):
        invoke("evaluate", trained, mvtec)


@pytest.mark.parametrize("size", [0, 100, 1024])
def test_impossible_size(size: int, good_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of 32, 64, 128, 256, 512"):
        invoke("train", good_folder, "--out", tmp_path / "b", "--size", size)


def test_options_win_over_the_file(good_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epochs = 1000\nseed = 3\n")
    result = invoke("train", good_folder, "--out", tmp_path / "b", "--config", tmp_path / "c.toml", *TRAIN)
    assert result.exit_code == 0
    config = json.loads((tmp_path / "b" / "manifest.json").read_text())["provenance"]["config"]
    assert (config["epochs"], config["seed"]) == (1, 3)


def test_missing_library_says_what_to_install(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "algan_trainer.run")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        PluginError, match=r"needs the Python package torch: pip install 'algan-stream\[train\]'"
    ):
        invoke("train", good_folder, "--out", tmp_path / "b")


def loaded_after(code: str) -> set[str]:
    listing = f"import sys\n{code}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_commands_and_evaluation_need_no_torch() -> None:
    assert "torch" not in loaded_after("import algan_trainer.commands")
    assert "torch" not in loaded_after("import algan_trainer.commands, algan_trainer.judge")
