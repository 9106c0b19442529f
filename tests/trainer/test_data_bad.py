"""Bad input is refused with what is wrong and how to mend it, or left out on request, counted and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from algan_stream.cli import app
from algan_stream.errors import ConfigError, ImageError, InputError
from algan_stream.types import InputSpec
from algan_trainer.data import examine, load_inputs, read_dataset

Write = Callable[..., None]

TRAIN = ["--size=32", "--width=4", "--epochs=1", "--batch-size=4", "--threads=1", "--precision=fp32"]


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def provenance(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())["provenance"]
    return found


def break_files(*paths: Path) -> None:
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def write_deep(folder: Path, count: int, top: int) -> None:
    """Noisy 16-bit greys up to `top`."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(top // 2, top + 1, (40, 40), np.uint16)).save(folder / f"{i:02d}.png")


@pytest.mark.parametrize("threads", [1, 3])
def test_up_to_ten_bad_files_are_named_before_training(good_folder: Path, threads: int) -> None:
    names = sorted(good_folder.iterdir())
    break_files(*names[:12])
    dataset = read_dataset(good_folder, 0, 0.2)
    with pytest.raises(ImageError) as caught:
        examine(dataset, threads=threads)
    assert str(caught.value).count("cannot be decoded") == 10
    assert "… and 2 more" in str(caught.value)
    assert "--skip-bad" in str(caught.value)


def test_a_bad_test_image_is_found_before_training_not_after(mvtec: Path, tmp_path: Path) -> None:
    break_files(mvtec / "test" / "hole" / "003.png")
    with pytest.raises(ImageError, match=r"test/hole/003\.png: cannot be decoded"):
        invoke("train", mvtec, "--out", tmp_path / "b", *TRAIN)
    assert not (tmp_path / "b").exists()
    assert not list((tmp_path / "b.training").glob("*.npz"))


def test_skipped_files_are_counted_and_named_in_the_note_and_the_bundle(mvtec: Path, tmp_path: Path) -> None:
    break_files(mvtec / "train" / "good" / "001.png", mvtec / "test" / "good" / "002.png")
    (mvtec / "train" / "good" / "empty.png").touch()
    result = invoke("train", mvtec, "--out", tmp_path / "b", "--skip-bad", *TRAIN)
    assert result.exit_code == 0
    assert "3 of 31 images skipped" in result.stderr
    assert "empty.png: cannot be decoded as an image: the file is empty" in result.stderr
    facts = provenance(tmp_path / "b")
    assert [entry["path"] for entry in facts["data"]["skipped"]] == [
        "test/good/002.png",
        "train/good/001.png",
        "train/good/empty.png",
    ]
    assert all("cannot be decoded" in entry["reason"] for entry in facts["data"]["skipped"])
    assert str(mvtec) not in json.dumps(facts)
    assert facts["data"]["counts"]["train"] == {"good": 11, "anomalous": 0}


def test_without_bad_files_nothing_is_skipped(good_folder: Path) -> None:
    dataset = read_dataset(good_folder, 0, 0.2)
    assert examine(dataset, skip_bad=True).skipped == ()
    assert examine(dataset, skip_bad=True).samples == dataset.samples


def test_skipping_must_leave_enough(good_folder: Path) -> None:
    break_files(*sorted(good_folder.iterdir())[1:])
    with pytest.raises(InputError, match="expected at least 2 good images"):
        examine(read_dataset(good_folder, 0, 0.2), skip_bad=True)


def test_skipping_everything_is_refused(good_folder: Path) -> None:
    break_files(*good_folder.iterdir())
    with pytest.raises(InputError, match="expected at least 2 good images"):
        examine(read_dataset(good_folder, 0, 0.2), skip_bad=True)


def test_few_images_are_warned_of(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "few", 3, seed=1)
    result = invoke("train", tmp_path / "few", "--out", tmp_path / "b", *TRAIN)
    assert result.exit_code == 0
    assert "only 2 training images: expect a poor model" in " ".join(result.stderr.split())
    write_images(tmp_path / "more", 40, seed=1)
    assert read_dataset(tmp_path / "more", 0, 0.2).notes == ()


def test_one_image_is_refused_by_the_command(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "one", 1, seed=1)
    with pytest.raises(InputError, match="expected at least 2 good images"):
        invoke("train", tmp_path / "one", "--out", tmp_path / "b", *TRAIN)


def test_images_of_different_shapes_train_with_a_note(good_folder: Path, tmp_path: Path) -> None:
    Image.new("L", (90, 30), 128).save(good_folder / "wide.png")
    result = invoke("train", good_folder, "--out", tmp_path / "b", *TRAIN)
    assert result.exit_code == 0
    assert "width : height from 1.00 to 3.00" in " ".join(result.stderr.split())
    assert examine(read_dataset(good_folder, 0, 0.2)).notes


def test_images_of_different_sizes_but_one_shape_need_no_note(good_folder: Path) -> None:
    Image.new("L", (90, 90), 128).save(good_folder / "large.png")
    dataset = examine(read_dataset(good_folder, 0, 0.2))
    assert not any("shape" in note for note in dataset.notes)


@pytest.mark.parametrize("name", ["bad", "hole"])
def test_defects_under_train_are_refused(mvtec: Path, write_images: Write, name: str) -> None:
    write_images(mvtec / "train" / name, 2, seed=9, defect=True)
    with pytest.raises(InputError, match=f"train: holds {name} beside `good`.*move the others to test/TYPE"):
        read_dataset(mvtec, 0, 0.2)


@pytest.mark.parametrize("name", ["bad", "NG", "line1_defects", "not_ok", "Anomaly", "test", "ground_truth"])
def test_a_folder_of_defects_among_good_images_is_refused(
    good_folder: Path, write_images: Write, name: str
) -> None:
    write_images(good_folder / "more" / name, 2, seed=9)
    with pytest.raises(InputError, match=f"lies in a folder `{name}`, but training takes good images only"):
        read_dataset(good_folder, 0, 0.2)


@pytest.mark.parametrize("name", ["good", "ok", "line-1", "undamaged", "angle", "Badge", "song"])
def test_other_folders_are_not(tmp_path: Path, write_images: Write, name: str) -> None:
    write_images(tmp_path / name, 4, seed=9)
    write_images(tmp_path / "second" / name, 4, seed=10)
    assert len(read_dataset(tmp_path / "second", 0, 0.2).samples) == 4


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_of_unknown_kind_is_refused(mvtec: Path, part: str) -> None:
    Image.new("L", (40, 40)).save(mvtec / part / "loose.png")
    with pytest.raises(InputError, match=r"loose\.png: its kind is unknown"):
        read_dataset(mvtec, 0, 0.2)


def test_an_empty_train_folder_is_refused_and_an_empty_type_noted(mvtec: Path) -> None:
    (mvtec / "test" / "dent").mkdir()
    assert any("dent holds no images" in note for note in read_dataset(mvtec, 0, 0.2).notes)
    for file in (mvtec / "train" / "good").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="expected at least 2 good images"):
        read_dataset(mvtec, 0, 0.2)


def test_a_12_bit_camera_is_not_trained_on_in_the_dark(tmp_path: Path) -> None:
    write_deep(tmp_path / "deep", 10, 4095)
    dataset = read_dataset(tmp_path / "deep", 0, 0.2)
    with pytest.raises(
        InputError, match=r"brightest value in 10 16-bit images is 4095 of 65535; set data\.white_level"
    ):
        examine(dataset)
    assert examine(dataset, white_level=4095).samples == dataset.samples
    assert examine(dataset, white_level=65535).samples == dataset.samples  # asked for in so many words
    with pytest.raises(ImageError, match="above the white level 1023"):
        examine(dataset, white_level=1023)


def test_training_and_scoring_share_the_white_level(tmp_path: Path) -> None:
    write_deep(tmp_path / "deep", 10, 4095)
    (tmp_path / "c.toml").write_text("[data]\nwhite_level = 4095\n")
    arguments = ("train", tmp_path / "deep", "--out", tmp_path / "b", "--config", tmp_path / "c.toml", *TRAIN)
    assert invoke(*arguments).exit_code == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["input_spec"]["white_level"] == 4095
    line = (tmp_path / "b" / "report" / "scores.csv").read_text().splitlines()[1].split(",")
    scored = invoke("score", tmp_path / "b", tmp_path / "deep" / line[0], "--jsonl")
    assert json.loads(scored.stdout.splitlines()[0])["score"] == pytest.approx(float(line[3]), abs=1e-5)
    # A brighter image than the camera of the training can deliver: no verdict but unknown.
    Image.fromarray(np.full((40, 40), 9000, np.uint16)).save(tmp_path / "bright.png")
    scored = invoke("score", tmp_path / "b", tmp_path / "bright.png", "--jsonl")
    assert json.loads(scored.stdout.splitlines()[0])["verdict"] == "unknown"
    assert "above the white level 4095" in scored.stdout


@pytest.mark.parametrize(("key", "value"), [("layout", "mvtek"), ("split", "rnd")])
def test_wrong_options_are_refused_before_anything_is_read(
    good_folder: Path, tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=f"data.{key}"):
        invoke("train", good_folder, "--out", tmp_path / "b", f"--{key}", value)


def test_options_reach_the_dataset(mtd: Path, tmp_path: Path) -> None:
    paths = [f"MT_Free/Imgs/MT_Free_{i}.jpg" for i in range(16)]
    lists = {"train": paths[:12], "validation": paths[12:]}
    (mtd / "splits.json").write_text(json.dumps(lists))
    for option, trained in (("given", 12), ("random", 8)):
        out = tmp_path / option
        assert invoke("train", mtd, "--out", out, "--split", option, *TRAIN).exit_code == 0
        assert provenance(out)["data"]["counts"]["train"]["good"] == trained
        assert provenance(out)["config"]["data"]["split"] == option
    with pytest.raises(InputError, match="--group-aware needs to know"):
        invoke("train", mtd, "--out", tmp_path / "g", "--group-aware", *TRAIN)
    with pytest.raises(InputError, match="expected COIL images"):
        invoke("train", mtd, "--out", tmp_path / "c", "--layout", "coil20", *TRAIN)


def test_a_manifest_trains_and_is_evaluated(mvtec: Path, tmp_path: Path) -> None:
    rows = ["path,kind,split"]
    rows += [f"train/good/{i:03d}.png,good,train" for i in range(12)]
    rows += [f"test/good/{i:03d}.png,good,{'validation' if i < 4 else 'test'}" for i in range(8)]
    rows += [f"test/hole/{i:03d}.png,hole,{'validation' if i < 3 else 'test'}" for i in range(6)]
    (mvtec / "mine.csv").write_text("\n".join(rows))
    assert invoke("train", mvtec / "mine.csv", "--out", tmp_path / "b", *TRAIN).exit_code == 0
    out = invoke("evaluate", tmp_path / "b", mvtec / "mine.csv", "--threads", 1)
    lines = dict(line.split(": ", 1) for line in out.stdout.splitlines())
    assert (lines["n_normal"], lines["n_anomalous"]) == ("4", "3")
    assert (lines["left_out_trained_on"], lines["left_out_held_out"]) == ("12", "7")
    with pytest.raises(InputError, match="unknown layout 'mvtek'"):
        invoke("evaluate", tmp_path / "b", mvtec / "mine.csv", "--layout", "mvtek")


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(good_folder: Path, threads: int) -> None:
    paths, spec = [p.name for p in sorted(good_folder.iterdir())], InputSpec(height_px=32, width_px=32)
    alone = load_inputs(good_folder, paths, spec)
    assert np.array_equal(load_inputs(good_folder, paths, spec, threads), alone)
    dataset = read_dataset(good_folder, 0, 0.2)
    assert examine(dataset, threads=threads) == examine(dataset)
