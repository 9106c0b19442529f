"""No split leaks: images of one part, and copies of one file, are on one side, near the wanted shares."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from algan_stream.errors import InputError
from algan_trainer.data import Dataset, Sample, read_dataset
from algan_trainer.data.dealing import deal, hold_out
from algan_trainer.data.found import HALF_AND_QUARTERS, HALVES, Found
from algan_trainer.data.groups import joined
from algan_trainer.data.mtd import tiles

Write = Callable[..., None]

_DATA = Path(os.environ.get("ALGAN_DATA", ""))
needs_mtd = pytest.mark.skipif(
    not (os.environ.get("ALGAN_DATA") and (_DATA / "mtd").is_dir()),
    reason="ALGAN_DATA does not point to the folder of real images",
)


def sides(samples: Sequence[Sample]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.group:
            found[sample.group].add(sample.split)
    return found


def write_tile(root: Path, kind: str, first: int, size: tuple[int, int], exposures: Sequence[int]) -> None:
    folder = root / kind / "Imgs"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first)
    for i, exposure in enumerate(exposures):
        pixels = rng.integers(0, 256, (size[1], size[0]), np.uint8)
        Image.fromarray(pixels).save(folder / f"exp{exposure}_num_{first + 10 * i}.jpg")


@pytest.fixture
def tiles_folder(tmp_path: Path) -> Path:
    """24 good tiles and 6 of which some exposures are defective."""
    root = tmp_path / "tiles"
    for i in range(24):
        write_tile(root, "MT_Free", 1000 * i, (10 + 4 * (i % 7), 12), range(1, 7))
    for i in range(24, 30):
        write_tile(root, "MT_Free", 1000 * i, (20, 30), range(1, 4))
        write_tile(root, "MT_Crack", 1000 * i + 100, (20, 30), range(4, 7))
    return root


@given(
    sizes=st.lists(st.integers(1, 7), min_size=8, max_size=60),
    bad=st.lists(st.integers(0, 3), max_size=12),
    seed=st.integers(0, 1000),
)
def test_units_are_never_torn_and_shares_are_near(sizes: list[int], bad: list[int], seed: int) -> None:
    units = [[Sample(f"{u}-{i}", "good", "") for i in range(size)] for u, size in enumerate(sizes)]
    # Defective units with 1 defective image and as many good ones as drawn.
    mixed = [
        [Sample(f"m{u}-bad", "hole", ""), *(Sample(f"m{u}-{i}", "good", "") for i in range(count))]
        for u, count in enumerate(bad)
    ]
    samples = [s for unit in units + mixed for s in unit]
    found = Found(samples, good=HALF_AND_QUARTERS, anomalous=HALVES)
    dealt = deal(found, units + mixed, np.random.default_rng(seed))
    assert dealt.keys() == {s.path for s in samples}
    for unit in units + mixed:
        assert len({dealt[s.path] for s in unit}) == 1
    assert not any(dealt[s.path] == "train" for unit in mixed for s in unit)
    held = Counter(dealt[s.path] for s in samples if s.anomalous)
    assert abs(held["validation"] - held["test"]) <= 1
    of = Counter(dealt[s.path] for s in samples if not s.anomalous)
    total, forced = sum(of.values()), sum(bad)
    if not forced:
        for split, share in HALF_AND_QUARTERS.items():
            assert abs(of[split] - share * total) <= max(sizes) + 1
    else:  # the good images beside defective ones are held out first
        wanted = min(0.5 * total, total - forced)
        assert abs(of["train"] - wanted) <= max(sizes) + 3 * len(bad) / 2 + 1


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=40), share=st.floats(0.01, 0.99))
def test_holding_out_takes_whole_units_and_leaves_some(sizes: list[int], share: float) -> None:
    units = [[Sample(f"{u}-{i}", "good", "train") for i in range(size)] for u, size in enumerate(sizes)]
    held = hold_out(units, share, np.random.default_rng(0))
    assert 0 < len(held) < sum(sizes)
    for unit in units:
        assert len({s.path in held for s in unit}) == 1
    wanted = max(1, round(share * sum(sizes)))
    assert len(held) <= max(wanted, min(sizes))
    assert len(held) >= min(wanted, sum(sizes) - 1) - max(sizes)


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_joined_is_connectedness(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = case
    names = joined(count, pairs)
    assert all(names[a] == names[b] for a, b in pairs)
    assert all(names[name] == name <= i for i, name in enumerate(names))
    assert len(set(names)) >= count - len(pairs)


def test_a_tile_is_a_run_of_rising_exposures(tmp_path: Path) -> None:
    write_tile(tmp_path, "MT_Free", 100, (20, 30), [1, 2, 3, 4, 5, 6])
    write_tile(tmp_path, "MT_Free", 200, (20, 30), [1, 2, 5])
    write_tile(tmp_path, "MT_Free", 300, (20, 30), [1, 2])
    paths = sorted(
        (p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.jpg")),
        key=lambda p: int(p.partition("num_")[2].removesuffix(".jpg")),
    )
    names = tiles(tmp_path, paths)
    assert [len(list(names)[a:b]) for a, b in ((0, 6), (6, 9), (9, 11))] == [6, 3, 2]
    assert len(set(names)) == 3
    assert len(set(names[:6])) == len(set(names[6:9])) == len(set(names[9:])) == 1
    assert tiles(tmp_path, [*paths, "MT_Free/Imgs/other.jpg"])[-1] == ""


def test_tiles_taken_in_turn_are_found_by_their_size(tmp_path: Path) -> None:
    """Exposures of two tiles alternate: 1 1 2 2 3 3; by the order alone the second 3 would stand alone."""
    shots = [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    paths = []
    for number, (tile, exposure) in enumerate(shots):
        paths.append(f"MT_Free/Imgs/exp{exposure}_num_{number}.jpg")
        size = (20, 40) if tile == "a" else (60, 30)
        (tmp_path / "MT_Free" / "Imgs").mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(tmp_path / paths[-1])
    names = tiles(tmp_path, paths)
    assert names[0] == names[2] == names[4]
    assert names[1] == names[3] == names[5]


@pytest.mark.parametrize("seed", range(4))
def test_group_aware_keeps_tiles_whole(tiles_folder: Path, seed: int) -> None:
    dataset = read_dataset(tiles_folder, seed, 0.2, group_aware=True)
    assert max(map(len, sides(dataset.samples).values())) == 1
    good = Counter(s.split for s in dataset.samples if not s.anomalous)
    total = sum(good.values())
    assert abs(good["train"] - total / 2) <= 12
    assert abs(good["validation"] - good["test"]) <= 18
    bad = Counter(s.split for s in dataset.samples if s.anomalous)
    assert set(bad) == {"validation", "test"}
    assert not any("on two sides" in note for note in dataset.notes)


def test_without_it_tiles_are_torn_and_a_note_says_so(tiles_folder: Path) -> None:
    dataset = read_dataset(tiles_folder, 0, 0.2)
    assert max(map(len, sides(dataset.samples).values())) > 1
    assert any("parts have images on two sides of the split" in note for note in dataset.notes)


def test_a_given_split_that_tears_a_tile_is_refused_if_asked_for(tiles_folder: Path) -> None:
    one, two = "MT_Free/Imgs/exp1_num_0.jpg", "MT_Free/Imgs/exp2_num_10.jpg"
    lists = {"train": [one], "validation": [two, "MT_Crack/Imgs/exp4_num_24100.jpg"]}
    (tiles_folder / "splits.json").write_text(json.dumps(lists))
    assert read_dataset(tiles_folder, 0, 0.2).of("train")
    with pytest.raises(
        InputError, match=r"exp1_num_0.*\(train\).*exp2_num_10.*\(validation\) show the same part"
    ):
        read_dataset(tiles_folder, 0, 0.2, group_aware=True)
    assert read_dataset(tiles_folder, 0, 0.2, split="random", group_aware=True).layout == "mtd"


def test_held_out_calibration_images_keep_groups_whole(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path, 30, seed=1)
    rows = [f"{i:03d}.png,good,train,part{i // 5}" for i in range(30)]
    (tmp_path / "manifest.csv").write_text("path,kind,split,group\n" + "\n".join(rows))
    dataset = read_dataset(tmp_path, 0, 0.3, group_aware=True)
    assert max(map(len, sides(dataset.samples).values())) == 1
    assert len(dataset.calibration) == 5


def test_group_aware_without_groups_is_refused(good_folder: Path) -> None:
    with pytest.raises(InputError, match="layout folder does not say; list the images in a manifest"):
        read_dataset(good_folder, 0, 0.2, group_aware=True)


@pytest.mark.parametrize("seed", range(6))
def test_copies_of_a_file_stay_together_whatever_the_options(good_folder: Path, seed: int) -> None:
    for i in range(5):
        shutil.copy(good_folder / "003.png", good_folder / f"copy{i}.png")
    dataset = read_dataset(good_folder, seed, 0.3)
    copied = [s.split for s in dataset.samples if s.path == "003.png" or s.path.startswith("copy")]
    assert len(copied) == 6
    assert len(set(copied)) == 1


def test_a_copy_of_a_training_image_in_the_test_folder_is_refused(mvtec: Path) -> None:
    shutil.copy(mvtec / "train" / "good" / "003.png", mvtec / "test" / "good" / "again.png")
    with pytest.raises(
        InputError, match=r"(?s)train/good/003\.png \(train\).*again\.png.*same image, byte for byte"
    ):
        read_dataset(mvtec, 0, 0.2)


def test_a_copy_with_another_label_is_refused(mvtec: Path) -> None:
    shutil.copy(mvtec / "test" / "good" / "003.png", mvtec / "test" / "hole" / "again.png")
    with pytest.raises(InputError, match=r"test/good/003\.png \(good\) and test/hole/again\.png \(hole\)"):
        read_dataset(mvtec, 0, 0.2)


def test_only_copies_are_too_few(good_folder: Path) -> None:
    for path in sorted(good_folder.iterdir())[1:]:
        shutil.copy(good_folder / "000.png", path)
    with pytest.raises(InputError, match="that are no copies of each other"):
        read_dataset(good_folder, 0, 0.2)


def real(**options: object) -> Dataset:
    return read_dataset(_DATA / "mtd", 0, 0.2, **options)  # type: ignore[arg-type]


@needs_mtd
@pytest.mark.data
def test_real_tiles_at_random_are_kept_whole() -> None:
    dataset = real(split="random", group_aware=True)
    groups = sides(dataset.samples)
    assert max(map(len, groups.values())) == 1
    assert 150 <= len(groups) <= 190
    good = Counter(s.split for s in dataset.samples if not s.anomalous)
    total = sum(good.values())
    for split, share in HALF_AND_QUARTERS.items():
        assert abs(good[split] / total - share) < 0.03
    bad = Counter(s.split for s in dataset.samples if s.anomalous)
    assert abs(bad["validation"] - bad["test"]) <= 12
    torn = sum(len(splits) > 1 for splits in sides(real(split="random").samples).values())
    assert torn > len(groups) / 2  # what the paper's own protocol does


@needs_mtd
@pytest.mark.data
def test_the_given_split_of_real_tiles() -> None:
    assert Counter(s.split for s in real().samples) == {"train": 426, "validation": 285, "test": 292}
    with pytest.raises(InputError, match="show the same part"):
        real(group_aware=True)
