from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algan_stream.errors import ImageError, InputError
from algan_stream.types import InputSpec
from algan_trainer.data import Dataset, data_hash, file_hashes, list_labelled, load_inputs, read_dataset

SPEC = InputSpec(height_px=32, width_px=32)
Write = Callable[..., None]


def check(dataset: Dataset) -> None:
    """What holds for every layout."""
    paths = [s.path for s in dataset.samples]
    assert len(set(paths)) == len(paths)
    assert not any(s.anomalous for s in dataset.of("train") + dataset.calibration)
    assert not {s.path for s in dataset.of("train")} & {s.path for s in dataset.calibration}
    assert dataset.of("train")
    assert dataset.calibration
    assert all((dataset.root / path).is_file() for path in paths)


def counts(dataset: Dataset) -> dict[tuple[str, str], int]:
    return dict(Counter((s.split, s.kind) for s in dataset.samples))


def test_folder(good_folder: Path) -> None:
    dataset = read_dataset(good_folder, 0, 0.2)
    check(dataset)
    assert dataset.layout == "folder"
    assert counts(dataset) == {("train", "good"): 11, ("calibration", "good"): 3}
    assert dataset.validation == dataset.calibration


def test_mvtec_halves_the_test_images_type_by_type(mvtec: Path) -> None:
    dataset = read_dataset(mvtec, 0, 0.2)
    check(dataset)
    assert counts(dataset) == {
        ("train", "good"): 12,
        ("validation", "good"): 4,
        ("test", "good"): 4,
        ("validation", "hole"): 3,
        ("test", "hole"): 3,
        ("validation", "scratch"): 2,
        ("test", "scratch"): 2,
    }
    assert {s.split for s in dataset.calibration} == {"validation"}


def test_mvtec_without_good_test_images_holds_some_out(mvtec: Path) -> None:
    for file in (mvtec / "test" / "good").iterdir():
        file.unlink()
    dataset = read_dataset(mvtec, 0, 0.25)
    check(dataset)
    assert len(dataset.of("calibration")) == 3
    assert {s.split for s in dataset.calibration} == {"calibration"}


def test_mtd_at_random_as_in_the_paper(mtd: Path) -> None:
    dataset = read_dataset(mtd, 0, 0.2)
    check(dataset)
    of = Counter((s.split, s.anomalous) for s in dataset.samples)
    assert of == {
        ("train", False): 8,
        ("validation", False): 4,
        ("test", False): 4,
        ("validation", True): 4,
        ("test", True): 4,
    }


def test_mtd_by_its_list(mtd: Path) -> None:
    lists = {
        "train": ["MT_Free/Imgs/MT_Free_3.jpg"],
        "validation": ["MT_Free/Imgs/MT_Free_0.jpg", "MT_Crack/Imgs/MT_Crack_0.jpg"],
        "test": ["MT_Blowhole/Imgs/MT_Blowhole_1.jpg"],
    }
    (mtd / "splits.json").write_text(json.dumps(lists))
    dataset = read_dataset(mtd, 5, 0.2)
    check(dataset)
    assert {split: [s.path for s in dataset.of(split)] for split in lists} == lists


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["MT_Free/Imgs/MT_Free_0.jpg"], "test": ["MT_Free/Imgs/MT_Free_0.jpg"]}, "more than once"),
        ({"train": ["MT_Free/Imgs/none.jpg"]}, r"none\.jpg: no such file"),
        ({"train": ["../secret.jpg"]}, "no such file below"),
        ({"trian": []}, "trian: unknown split"),
        ({"train": ["MT_Crack/Imgs/MT_Crack_0.jpg"]}, "defective but listed for training"),
        ([1], "expected lists of paths"),
    ],
)
def test_a_wrong_list_is_refused(lists: object, message: str, mtd: Path) -> None:
    (mtd / "splits.json").write_text(json.dumps(lists))
    with pytest.raises(InputError, match=message):
        read_dataset(mtd, 0, 0.2)


@pytest.mark.parametrize("layout", ["good_folder", "mvtec", "mtd"])
def test_seed_decides_the_split(layout: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(layout)
    first = read_dataset(root, 1, 0.2)
    assert first == read_dataset(root, 1, 0.2)
    assert first != read_dataset(root, 2, 0.2)


def test_hash_follows_content_and_split(good_folder: Path) -> None:
    def digest(seed: int) -> str:
        dataset = read_dataset(good_folder, seed, 0.2)
        return data_hash(dataset, file_hashes(good_folder, dataset.samples))

    before = digest(0)
    assert before == digest(0)
    assert before != digest(1)
    Image.new("L", (40, 40), 3).save(good_folder / "000.png")
    assert before != digest(0)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        read_dataset(tmp_path, 0, 0.2)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(tmp_path / "none", 0, 0.2)


def test_one_image_is_too_few(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, 1, seed=0)
    with pytest.raises(InputError, match="expected at least 2 good images"):
        read_dataset(tmp_path, 0, 0.2)


def test_two_images_do(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, 2, seed=0)
    check(read_dataset(tmp_path, 0, 0.9))


def test_good_beside_bad_is_not_trained_on_by_mistake(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "good", 3, seed=0)
    write_images(tmp_path / "bad", 3, seed=1)
    with pytest.raises(InputError, match="takes good images only"):
        read_dataset(tmp_path, 0, 0.2)
    assert Counter(s.kind for s in list_labelled(tmp_path)) == {"good": 3, "bad": 3}


def test_all_bad_files_are_named(good_folder: Path) -> None:
    (good_folder / "003.png").write_bytes(b"")
    whole = (good_folder / "005.png").read_bytes()
    (good_folder / "005.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"(?s)003\.png.*005\.png"):
        load_inputs(good_folder, [f"{i:03d}.png" for i in range(8)], SPEC)


def test_inputs_are_the_cores(good_folder: Path) -> None:
    from algan_stream.images import read_image
    from algan_stream.preprocess import preprocess

    inputs = load_inputs(good_folder, ["002.png", "001.png"], SPEC)
    image, pixel_format = read_image(good_folder / "001.png")
    assert np.array_equal(inputs[1:], preprocess(image, SPEC, pixel_format=pixel_format))
