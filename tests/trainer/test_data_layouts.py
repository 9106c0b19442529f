"""Every layout: what it lists, how it is split, where its masks are, and when it is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algan_stream.errors import ImageError, InputError
from algan_trainer.data import (
    LAYOUTS,
    Dataset,
    Sample,
    data_root,
    is_manifest,
    layout_of,
    list_labelled,
    read_dataset,
    read_mask,
)

Write = Callable[..., None]


def counts(dataset: Dataset) -> dict[tuple[str, str], int]:
    return dict(Counter((s.split, s.kind) for s in dataset.samples))


def write_mask(path: Path, rows: slice, level: int = 255) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[rows] = level
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def loco(tmp_path: Path, write_images: Write) -> Path:
    root = tmp_path / "loco"
    write_images(root / "train" / "good", 6, seed=1)
    write_images(root / "validation" / "good", 4, seed=2)
    write_images(root / "test" / "good", 4, seed=3)
    write_images(root / "test" / "logical_anomalies", 4, seed=4, defect=True)
    write_images(root / "test" / "structural_anomalies", 2, seed=5, defect=True)
    write_mask(root / "ground_truth" / "logical_anomalies" / "000" / "000.png", slice(0, 4))
    write_mask(root / "ground_truth" / "logical_anomalies" / "000" / "001.png", slice(10, 12), 211)
    return root


@pytest.fixture
def visa(tmp_path: Path, write_images: Write) -> Path:
    root = tmp_path / "candle"
    write_images(root / "Data" / "Images" / "Normal", 8, seed=1)
    write_images(root / "Data" / "Images" / "Anomaly", 4, seed=2, defect=True)
    write_mask(root / "Data" / "Masks" / "Anomaly" / "000.png", slice(0, 4), 2)
    rows = ["image,label,mask"]
    rows += [f"candle/Data/Images/Normal/{i:03d}.png,normal," for i in range(8)]
    labels = ["melt", '"melt,hole"', "hole", "melt"]
    rows += [f"candle/Data/Images/Anomaly/{i:03d}.png,{labels[i]}," for i in range(4)]
    (root / "image_anno.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def coil(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(1, 21):
        for angle in range(10):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"obj{number}__{angle * 5}.png")
    return tmp_path


def test_loco_calibrates_with_its_validation_part(loco: Path) -> None:
    dataset = read_dataset(loco, 0, 0.2)
    assert dataset.layout == "mvtec"
    assert counts(dataset) == {
        ("train", "good"): 6,
        ("calibration", "good"): 4,
        ("validation", "good"): 2,
        ("test", "good"): 2,
        ("validation", "logical_anomalies"): 2,
        ("test", "logical_anomalies"): 2,
        ("validation", "structural_anomalies"): 1,
        ("test", "structural_anomalies"): 1,
    }
    assert {s.split for s in dataset.calibration} == {"calibration"}


def test_masks_of_loco_add_up(loco: Path) -> None:
    sample = next(s for s in list_labelled(loco) if s.path == "test/logical_anomalies/000.png")
    mask = read_mask(loco, sample)
    assert mask is not None
    assert np.flatnonzero(mask.all(axis=1)).tolist() == [0, 1, 2, 3, 10, 11]
    assert mask.sum() == 6 * 40
    write_mask(loco / sample.mask / "002.png", slice(0, 1))
    Image.new("L", (3, 3)).save(loco / sample.mask / "003.png")
    with pytest.raises(ImageError, match="expected masks of one size"):
        read_mask(loco, sample)


def test_mvtec_3d_takes_only_the_photographs(tmp_path: Path, write_images: Write) -> None:
    for seed, part in enumerate(("train/good", "validation/good", "test/good", "test/hole")):
        write_images(tmp_path / part / "rgb", 4, seed=seed)
        (tmp_path / part / "xyz").mkdir()
        Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / part / "xyz" / "000.tiff")
    write_mask(tmp_path / "test" / "hole" / "gt" / "000.png", slice(0, 2))
    dataset = read_dataset(tmp_path, 0, 0.2)
    assert Counter(s.split for s in dataset.samples) == {
        "train": 4,
        "calibration": 4,
        "validation": 4,
        "test": 4,
    }
    assert all("/rgb/" in s.path for s in dataset.samples)
    assert [s.mask for s in dataset.samples if s.mask] == ["test/hole/gt/000.png"]


def test_defective_images_under_validation_leave_the_test_part_whole(
    mvtec: Path, write_images: Write
) -> None:
    write_images(mvtec / "validation" / "good", 3, seed=11)
    write_images(mvtec / "validation" / "hole", 3, seed=12, defect=True)
    dataset = read_dataset(mvtec, 0, 0.2)
    assert Counter(s.split for s in dataset.samples) == {"train": 12, "validation": 6, "test": 18}


@pytest.mark.parametrize("name", ["000_mask.png", "000.png"])
def test_masks_of_mvtec_by_either_name(mvtec: Path, name: str) -> None:
    for file in (mvtec / "ground_truth" / "hole").iterdir():
        file.unlink()
    write_mask(mvtec / "ground_truth" / "hole" / name, slice(0, 2))
    masks = {s.path: s.mask for s in list_labelled(mvtec) if s.mask}
    assert masks == {"test/hole/000.png": f"ground_truth/hole/{name}"}


def test_a_mask_drawn_by_its_opacity(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[:2, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "m.png")
    mask = read_mask(tmp_path, Sample("a.png", "hole", "", mask="m.png"))
    assert mask is not None
    assert mask.tolist() == [[False] * 4] * 2 + [[True] * 4] * 2


def test_a_sample_without_a_mask_and_a_broken_one(tmp_path: Path) -> None:
    assert read_mask(tmp_path, Sample("a.png", "hole", "")) is None
    (tmp_path / "m.png").write_bytes(b"x")
    for name, message in (("m.png", "cannot be decoded as a mask"), ("n.png", "no such mask")):
        with pytest.raises(ImageError, match=message):
            read_mask(tmp_path, Sample("a.png", "hole", "", mask=name))


def test_visa_without_a_split_of_its_own(visa: Path) -> None:
    dataset = read_dataset(visa, 0, 0.2)
    assert dataset.layout == "visa"
    of = Counter((s.split, s.anomalous) for s in dataset.samples)
    assert of == {
        ("train", False): 4,
        ("validation", False): 2,
        ("test", False): 2,
        ("validation", True): 2,
        ("test", True): 2,
    }
    assert Counter(s.kind for s in dataset.samples) == {"good": 8, "melt": 2, "hole": 1, "combined": 1}


def test_visa_masks_number_the_types_of_defect(visa: Path) -> None:
    sample = next(s for s in list_labelled(visa) if s.mask)
    mask = read_mask(visa, sample)
    assert mask is not None
    assert mask.sum() == 4 * 40


@pytest.mark.parametrize("where", [".", ".."])
def test_visa_by_its_list(visa: Path, where: str) -> None:
    rows = ["object,split,label,image,mask", "capsules,train,normal,capsules/Data/Images/Normal/000.png,"]
    for i in range(8):
        split = "train" if i < 6 else "test"
        rows.append(f"candle,{split},normal,candle/Data/Images/Normal/{i:03d}.png,")
    rows += [f"candle,test,anomaly,candle/Data/Images/Anomaly/{i:03d}.png," for i in range(4)]
    listing = visa / where / "split_csv" / "1cls.csv"
    listing.parent.mkdir()
    listing.write_text("\n".join(rows) + "\n")
    dataset = read_dataset(visa, 0, 0.2)
    assert [s.path for s in dataset.of("train")] == [f"Data/Images/Normal/{i:03d}.png" for i in range(6)]
    assert Counter(s.split for s in dataset.samples) == {"train": 6, "validation": 3, "test": 3}
    assert Counter(s.split for s in read_dataset(visa, 0, 0.2, split="random").samples)["train"] == 4
    listing.write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(InputError, match=r"does not list candle/Data/Images/Anomaly/003\.png"):
        read_dataset(visa, 0, 0.2)
    listing.write_text("object,image\n")
    with pytest.raises(InputError, match="lacks the column split"):
        read_dataset(visa, 0, 0.2)


def test_coil_by_the_paper(coil: Path) -> None:
    dataset = read_dataset(coil, 3, 0.2)
    assert dataset.layout == "coil20"
    of = Counter((s.split, s.anomalous) for s in dataset.samples)
    assert of == {
        ("train", False): 12,
        ("validation", False): 4,
        ("test", False): 4,
        ("validation", True): 90,
        ("test", True): 90,
    }
    normal = {s.path.partition("__")[0] for s in dataset.samples if not s.anomalous}
    assert len(normal) == 2
    assert all(s.kind == s.path.partition("__")[0] for s in dataset.samples if s.anomalous)
    assert any("normal objects: obj" in note for note in dataset.notes)
    labelled = {s.path: s.kind for s in list_labelled(coil, seed=3)}
    assert labelled == {s.path: s.kind for s in dataset.samples}


def test_the_seed_chooses_coils_normal_objects(coil: Path) -> None:
    chosen = {
        frozenset(s.path.partition("__")[0] for s in read_dataset(coil, seed, 0.2).of("train"))
        for seed in range(5)
    }
    assert len(chosen) > 1


def test_coil_100_has_ten_normal_objects(tmp_path: Path) -> None:
    for number in range(1, 101):
        Image.new("L", (4, 4), number).save(tmp_path / f"obj{number}__0.png")
    dataset = read_dataset(tmp_path, 0, 0.2)
    assert dataset.layout == "coil100"
    assert sum(not s.anomalous for s in dataset.samples) == 10


def manifest(folder: Path, *rows: str, header: str = "path,kind,split,mask,group") -> Path:
    (folder / "manifest.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder / "manifest.csv"


@pytest.fixture
def pictures(tmp_path: Path, write_images: Write) -> Path:
    write_images(tmp_path / "i", 8, seed=1)
    return tmp_path


ROWS = (
    "i/000.png,good,train,,a",
    "i/001.png,good,train,,b",
    "i/002.png,good,validation,,c",
    "i/003.png,scratch,validation,i/007.png,d",
    "i/004.png,good,test,,e",
    "i/005.png,dent,test,,f",
)


def test_manifest_by_its_table_or_its_folder(pictures: Path) -> None:
    table = manifest(pictures, *ROWS)
    for data in (table, pictures):
        dataset = read_dataset(data, 0, 0.2)
        assert (dataset.layout, dataset.root) == ("manifest", pictures)
        assert [s.split for s in dataset.samples] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
        assert data_root(data) == pictures
        assert list_labelled(data) == list(dataset.samples)
    sample = dataset.samples[3]
    assert (sample.kind, sample.mask, sample.group) == ("scratch", "i/007.png", "d")
    mask = read_mask(pictures, sample)
    assert mask is not None
    assert mask.shape == (40, 40)


def test_manifest_of_paths_and_kinds_is_split_at_random(pictures: Path) -> None:
    rows = [f"i/{i:03d}.png,{'good' if i < 4 else 'dent'}" for i in range(8)]
    dataset = read_dataset(manifest(pictures, *rows, header="path,kind"), 0, 0.2)
    assert counts(dataset) == {
        ("train", "good"): 2,
        ("validation", "good"): 1,
        ("test", "good"): 1,
        ("validation", "dent"): 2,
        ("test", "dent"): 2,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("i/000.png,good,train,,", r"manifest\.csv:8: i/000\.png is listed in line 2 already"),
        ("none.png,good,train,,", r"manifest\.csv:8: none\.png: no such file"),
        ("../x.png,good,train,,", "no such file below"),
        ("i/006.png,good,trian,,", "8: unknown split 'trian'; expected train, calibration"),
        ("i/006.png,good,,,", "8: split is empty; expected one in every row, or in none"),
        ("i/006.png,,test,,", "8: kind is empty"),
        (",good,test,,", "8: path is empty"),
        ("i/006.png,dent,train,,", r"8: i/006\.png is defective \(dent\) but listed for train"),
        ("i/006.png,dent,calibration,,", "listed for calibration"),
        ("i/006.png,dent,test,nomask.png,", r"8: nomask\.png: no such file"),
        ("i/006.png,good", r"8: expected 5 fields \(path,kind,split,mask,group\), got 2"),
    ],
)
def test_an_error_in_a_manifest_names_its_line(pictures: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(manifest(pictures, *ROWS, row), 0, 0.2)


def test_up_to_ten_errors_of_a_manifest_are_named(pictures: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_dataset(manifest(pictures, *ROWS, *(f"x{i}.png,good,test,," for i in range(13))), 0, 0.2)
    assert str(caught.value).count("no such file") == 10
    assert "… and 3 more" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,kind,splt", "1: unknown column 'splt'"),
        ("path,split", "1: lacks the column kind"),
        ("path,kind,kind", "1: a column is there twice"),
    ],
)
def test_a_wrong_header_is_refused(pictures: Path, header: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(manifest(pictures, header=header), 0, 0.2, layout="manifest")


def test_a_folder_whose_manifest_is_wrong_is_not_taken_for_another_layout(pictures: Path) -> None:
    manifest(pictures, header="file,kind")
    with pytest.raises(InputError, match="lacks the column path"):
        read_dataset(pictures, 0, 0.2)


def test_an_empty_manifest_is_refused(pictures: Path) -> None:
    with pytest.raises(InputError, match="lists no images"):
        read_dataset(manifest(pictures), 0, 0.2)


def test_a_table_of_numbers_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "vectors.csv").write_text("a,b,label\n1,2,good\n")
    assert not is_manifest(tmp_path / "vectors.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert not is_manifest(tmp_path / "binary.csv")


def test_what_fits_no_layout_is_refused_with_the_layouts_named(mvtec: Path, tmp_path: Path) -> None:
    (mvtec / "train" / "good").rename(mvtec / "train" / "fine")
    with pytest.raises(InputError, match=r"holds `ground_truth`, but no `train/good`") as caught:
        layout_of(mvtec)
    assert all(name in str(caught.value) for name in LAYOUTS)
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="is a file, and no manifest"):
        layout_of(tmp_path / "a.png")


def test_a_folder_of_datasets_is_refused_with_their_names(mvtec: Path) -> None:
    with pytest.raises(InputError, match="is no dataset itself but holds 1; name one: mvtec"):
        read_dataset(mvtec.parent, 0, 0.2)


def test_a_layout_can_be_named(mtd: Path, good_folder: Path) -> None:
    for i in range(13):
        (good_folder / f"{i:03d}.png").rename(good_folder / f"obj{i // 7}__{i}.png")
    assert layout_of(good_folder) == "folder"  # for one image is not called so
    (good_folder / "013.png").unlink()
    assert layout_of(good_folder) == "coil20"
    assert len(read_dataset(good_folder, 0, 0.2, layout="folder").samples) == 13
    with pytest.raises(InputError, match="expected COIL images"):
        read_dataset(mtd, 0, 0.2, layout="coil100")
    with pytest.raises(InputError, match="unknown layout 'mvtek'; expected auto, folder, mvtec"):
        list_labelled(mtd, "mvtek")


def test_a_random_split_where_folders_give_it_is_refused(mvtec: Path) -> None:
    with pytest.raises(InputError, match="layout mvtec has its split in its folders"):
        read_dataset(mvtec, 0, 0.2, split="random")
