"""The rendered parts: same bytes everywhere, honest masks, and a conveyor that shows the same parts."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from algan_stream.demo.conveyor import Conveyor, ConveyorFrame
from algan_stream.demo.parts import DEFECTS, RADIUS_SHARE, PartImage, render_part, write_dataset
from algan_stream.errors import InputError
from algan_stream.images import read_image


def _grow(mask: npt.NDArray[np.bool_], by_px: int) -> npt.NDArray[np.bool_]:
    for _ in range(by_px):
        p = np.pad(mask, 1)
        rows = p[:-2] | p[1:-1] | p[2:]
        mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return mask


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again, other = (render_part(s, defect="crack", size_px=96) for s in (7, 7, 8))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


def test_bytes_are_those_of_every_other_machine() -> None:
    # A changed look changes this on purpose: put the new value here. A value that differs from machine to
    # machine is a bug: some array operation is not exactly rounded (see surface.py).
    parts = [render_part(s, defect=d, size_px=64) for s, d in enumerate((None, *DEFECTS))]
    frame = Conveyor(3).frame(70)
    arrays = [a for p in parts for a in (p.image, p.mask)]
    assert _digest(*arrays, frame.image, frame.boxes) == "69dd4f9432d57d91"


@pytest.mark.parametrize("size_px", [32, 101, 256])
def test_shapes_and_types(size_px: int) -> None:
    part = render_part(0, size_px=size_px)
    assert isinstance(part, PartImage)
    assert part.image.shape == (size_px, size_px, 3)
    assert part.image.dtype == np.uint8
    assert part.mask.shape == (size_px, size_px)
    assert part.mask.dtype == np.bool_
    assert part.defect is None
    assert not part.mask.any()


def test_good_parts_vary_a_little_around_one_look() -> None:
    images = np.stack([render_part(s, size_px=64).image for s in range(40)]).astype(np.float32)
    spread = images.std(axis=0)
    assert 2.0 < float(np.median(spread)) < 12.0
    assert 40.0 < float(images.mean()) < 160.0
    clipped = float(((images == 0) | (images == 255)).mean())
    assert clipped < 0.01


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("size_px", [64, 128])
def test_a_defect_shows_in_its_mask_and_nowhere_else(defect: str, size_px: int) -> None:
    for seed in range(30):
        bad = render_part(seed, defect=defect, size_px=size_px)
        good = render_part(seed, size_px=size_px)
        assert bad.defect == defect
        part_px = np.pi * (RADIUS_SHARE * size_px) ** 2
        assert 0.001 < bad.mask.sum() / part_px < 0.12, "as large as such defects are"
        difference = np.abs(bad.image.astype(np.int16) - good.image).max(axis=2)
        assert difference[bad.mask].mean() > 8.0, "visible above noise of 2 grey levels"
        halo = _grow(bad.mask, max(3, size_px // 24))
        assert difference[~halo].max() <= 12, "beyond lens blur and a fibre's shadow nothing changes"


def test_defects_of_one_kind_differ_from_part_to_part() -> None:
    for defect in DEFECTS:
        places = {
            np.argwhere(render_part(s, defect=defect, size_px=64).mask).mean(0).tobytes() for s in range(8)
        }
        assert len(places) >= 6


def test_there_are_enough_kinds_of_defects() -> None:
    assert len(set(DEFECTS)) >= 5


def test_defects_are_findable_but_not_trivial() -> None:
    """Plain nearest-neighbour distance on 32 × 32 grey values: better than chance, far from perfect."""

    def look(part: PartImage) -> npt.NDArray[np.float32]:
        return part.image.astype(np.float32).mean(axis=2).reshape(32, 2, 32, 2).mean(axis=(1, 3)).ravel()

    train = np.stack([look(render_part(s, size_px=64)) for s in range(200)])
    good = np.stack([look(render_part(1000 + s, size_px=64)) for s in range(60)])
    bad = np.stack(
        [look(render_part(2000 + s, defect=DEFECTS[s % len(DEFECTS)], size_px=64)) for s in range(70)]
    )

    def score(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.stack([np.sqrt(((train - one) ** 2).sum(axis=1)).min() for one in x])

    auroc = float((score(bad)[:, None] > score(good)[None, :]).mean())
    assert 0.7 < auroc < 0.995


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"seed": 0, "defect": "rabies"}, "rabies"),
        ({"seed": -1}, "seed"),
        ({"seed": 0, "size_px": 16}, "size_px"),
        ({"seed": 0, "size_px": 513}, "size_px"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        render_part(**arguments)  # type: ignore[arg-type]


def test_importing_the_renderer_loads_no_image_library() -> None:
    code = (
        "import sys, algan_stream.demo.conveyor, algan_stream.demo.parts\n"
        "assert not {'cv2', 'PIL', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dataset_has_the_layout_of_mvtec(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", good=3, test_good=2, test_defective=9, size_px=48, seed=5)
    assert len(list((root / "train" / "good").glob("*.png"))) == 3
    assert len(list((root / "test" / "good").glob("*.png"))) == 2
    assert {p.name for p in (root / "train").iterdir()} == {"good"}
    assert {p.name for p in (root / "test").iterdir()} == {"good", *DEFECTS}
    assert {p.name for p in (root / "ground_truth").iterdir()} == set(DEFECTS)
    images = sorted(p for d in DEFECTS for p in (root / "test" / d).iterdir())
    assert len(images) == 9
    for path in images:
        mask, kind = read_image(root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png")
        assert kind == "grey8"
        assert mask.shape == (48, 48)
        assert set(np.unique(mask)) == {0, 255}
    every = [p.read_bytes() for p in root.rglob("*.png") if not p.stem.endswith("_mask")]
    assert len(set(every)) == len(every), "no part appears twice"


def test_dataset_stores_the_rendered_pixels(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, good=1, test_good=0, test_defective=0, size_px=48, seed=2)
    pixels, order = read_image(root / "train" / "good" / "000.png")
    assert order == "rgb8"
    assert np.array_equal(pixels[:, :, ::-1], render_part(2_000_000, size_px=48).image)


def test_dataset_is_never_mixed_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="empty"):
        write_dataset(tmp_path, good=1, test_good=0, test_defective=0)
    with pytest.raises(InputError, match="test_good"):
        write_dataset(tmp_path / "new", good=1, test_good=-1, test_defective=0)


def _crops(frame: ConveyorFrame) -> list[npt.NDArray[np.uint8]]:
    return [frame.image[int(y0) : int(y1), int(x0) : int(x1)] for x0, y0, x1, y1 in frame.boxes]


def test_conveyor_frames_depend_on_seed_and_index_alone() -> None:
    in_order = list(islice(Conveyor(4, size_px=64).frames(), 60))
    alone = Conveyor(4, size_px=64).frame(59)
    assert np.array_equal(in_order[59].image, alone.image)
    assert np.array_equal(in_order[59].boxes, alone.boxes)
    assert in_order[59].part_ids == alone.part_ids
    assert in_order[59].defects == alone.defects
    assert not np.array_equal(alone.image, Conveyor(5, size_px=64).frame(59).image)


def test_conveyor_boxes_hold_whole_parts_and_move_with_the_belt() -> None:
    line = Conveyor(1, frame_wh=(320, 200), size_px=64, speed_px=7, defect_rate=0.5)
    truth: dict[int, str | None] = {}
    before: dict[int, float] = {}
    for frame in islice(line.frames(), 120):
        assert frame.image.shape == (200, 320, 3)
        assert frame.image.dtype == np.uint8
        assert frame.boxes.dtype == np.float32
        assert frame.boxes.shape == (len(frame.part_ids), 4)
        assert len(frame.defects) == len(frame.part_ids)
        here: dict[int, float] = {}
        for (x0, y0, x1, y1), number, defect in zip(frame.boxes, frame.part_ids, frame.defects, strict=True):
            assert x0 >= 0
            assert y0 >= 0
            assert x1 <= 320
            assert y1 <= 200
            assert x1 - x0 == y1 - y0 == 64
            assert truth.setdefault(number, defect) == defect
            here[number] = float(x0)
        assert all(here[n] - before[n] == 7 for n in here.keys() & before.keys())
        before = here
    assert sorted(truth) == list(range(len(truth))), "no part passes unseen"
    assert {d is None for d in truth.values()} == {True, False}


def test_conveyor_crops_look_like_part_images() -> None:
    line = Conveyor(2, defect_rate=0.0, size_px=64)
    crops = np.stack([_crops(f)[0] for f in islice(line.triggered_frames(), 80)]).astype(np.float32)
    parts = np.stack([render_part(s, size_px=64).image for s in range(80)]).astype(np.float32)
    assert np.abs(crops.mean(axis=0) - parts.mean(axis=0)).mean() < 2.0
    assert crops.mean() == pytest.approx(parts.mean(), abs=1.5)
    assert np.median(crops.std(axis=0)) == pytest.approx(np.median(parts.std(axis=0)), rel=0.2)
    grain = [float(np.abs(np.diff(x[:, :6], axis=2)).mean()) for x in (crops, parts)]
    assert grain[0] == pytest.approx(grain[1], rel=0.1), "same noise and belt texture"


def test_free_running_crops_look_like_triggered_ones() -> None:
    line = Conveyor(2, defect_rate=0.0, size_px=64)
    # Every 29th frame: the lamp goes through its whole range.
    free = np.stack([c for i in range(40, 1000, 29) for c in _crops(line.frame(i))]).astype(np.float32)
    parts = np.stack([render_part(s, size_px=64).image for s in range(80)]).astype(np.float32)
    assert np.abs(free.mean(axis=0) - parts.mean(axis=0)).mean() < 2.0


def test_trigger_centres_one_part_per_frame() -> None:
    line = Conveyor(6, defect_rate=1.0)
    for number, frame in enumerate(islice(line.triggered_frames(), 5)):
        assert frame.part_ids == (number,)
        assert frame.defects[0] in DEFECTS
        x0, y0, x1, y1 = frame.boxes[0]
        assert (x0 + x1) / 2 == 320
        assert 0 <= y0 < y1 <= 360


def test_belt_covers_frames_larger_than_its_tile() -> None:
    frame = Conveyor(0, frame_wh=(500, 300), size_px=32).frame(400)
    assert frame.image.shape == (300, 500, 3)
    assert frame.image[:4].mean() == pytest.approx(frame.image[-4:].mean(), rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"defect_rate": 1.5}, "defect_rate"),
        ({"defect_rate": float("nan")}, "defect_rate"),
        ({"frame_wh": (100, 360)}, "frame_wh"),
        ({"size_px": 8}, "size_px"),
        ({"speed_px": 0}, "speed_px"),
    ],
)
def test_conveyor_names_wrong_arguments(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Conveyor(**arguments)  # type: ignore[arg-type]
