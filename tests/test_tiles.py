"""Tiles cover every pixel of a frame, and their scores become one verdict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algan_stream.boxes.tiles import Config, create, tile_boxes
from algan_stream.calibration import with_raw_threshold
from algan_stream.decision import Decider, unknown
from algan_stream.errors import ConfigError
from algan_stream.plugins import load
from algan_stream.types import BoxVerdict, VerdictKind
from fakes import grey_frame

PASS, REJECT, UNKNOWN = VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    overlap=st.integers(0, 7),
)
def test_every_pixel_is_covered_by_tiles_of_one_size(
    height: int, width: int, tile: tuple[int, int], overlap: int
) -> None:
    boxes = tile_boxes(height, width, *tile, overlap)
    covered = np.zeros((height, width), np.int64)
    for x0, y0, x1, y1 in boxes.astype(int):
        assert (y1 - y0, x1 - x0) == (min(tile[0], height), min(tile[1], width))
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    for low, high in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        starts, ends = np.unique(low), np.unique(high)
        assert (ends[:-1] - starts[1:] >= overlap).all()
    least = [
        -(-(extent - overlap) // (side - overlap)) if extent > side else 1
        for extent, side in zip((height, width), tile, strict=True)
    ]
    assert len(boxes) == least[0] * least[1]


def test_the_plugin_cuts_a_frame() -> None:
    frame = grey_frame(image=np.zeros((100, 150), np.uint8))
    boxes = create(Config(height_px=60, overlap_px=10)).find(frame)
    assert boxes is not None
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [
        [0, 0, 60, 60], [45, 0, 105, 60], [90, 0, 150, 60],
        [0, 40, 60, 100], [45, 40, 105, 100], [90, 40, 150, 100],
    ]  # fmt: skip
    assert frame.fuse == "max"
    wide = create(Config(height_px=100, width_px=75, fuse="mean"))
    halves = wide.find(frame)
    assert halves is not None
    assert halves.tolist() == [[0, 0, 75, 100], [75, 0, 150, 100]]
    assert frame.fuse == "mean"


def test_a_frame_that_could_not_be_decoded_keeps_its_fault() -> None:
    frame = grey_frame(image=np.zeros((0, 0), np.uint8), fault="bad_image")
    assert create(Config(height_px=8)).find(frame) is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "tiles"}, "height_px"),
        ({"kind": "tiles", "height_px": 0}, "expected 1 or more"),
        (
            {"kind": "tiles", "height_px": 64, "width_px": 32, "overlap_px": 32},
            "overlap_px: expected 0 to 31",
        ),
        ({"kind": "tiles", "height_px": 64, "overlap_px": -1}, "overlap_px"),
        ({"kind": "tiles", "height_px": 64, "fuse": "median"}, "fuse"),
        ({"kind": "tiles", "height_px": 64, "size": 3}, "size"),
    ],
)
def test_a_wrong_section_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("boxes", section, "cameras[0].boxes")


def _verdicts(*scores: float, threshold: float = 0.5) -> tuple[Decider, list[BoxVerdict]]:
    decider = Decider(with_raw_threshold([-1.0, 0.0, 0.5], threshold))
    return decider, decider.decide(-np.array(scores, np.float32), [(0.0, 0.0, 1.0, 1.0)] * len(scores))


def test_max_lets_one_tile_reject_the_frame() -> None:
    decider, tiles = _verdicts(-3.0, 0.75, -3.0)
    assert decider.fuse(tiles, "max") == (REJECT, "score_above_threshold", None)


def test_mean_compares_the_mean_with_the_threshold() -> None:
    decider, tiles = _verdicts(-3.0, 0.75, -3.0)
    assert decider.fuse(tiles, "mean") == (PASS, "", pytest.approx(-1.75))
    decider, tiles = _verdicts(0.25, 1.25)
    assert decider.fuse(tiles, "mean") == (REJECT, "mean_score_above_threshold", 0.75)
    decider, tiles = _verdicts(0.25, 0.75)
    assert decider.fuse(tiles, "mean") == (PASS, "", 0.5)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_tile_without_a_score_never_lets_the_frame_pass(how: str) -> None:
    decider, tiles = _verdicts(-3.0, -3.0)
    late = BoxVerdict(verdict=UNKNOWN, reason="late", score=-3.0)
    for bad in (unknown("invalid_box"), late, *_verdicts(np.nan)[1]):
        kind, reason, fused = decider.fuse([tiles[0], bad, tiles[1]], how)  # type: ignore[arg-type]
        assert (kind, reason, fused) == (UNKNOWN, bad.reason, None)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_without_tiles_or_threshold_there_is_no_verdict(how: str) -> None:
    assert Decider(None).fuse([], how) == (UNKNOWN, "no_boxes", None)  # type: ignore[arg-type]
    tiles = Decider(None).decide(np.zeros(2, np.float32), [None, None])
    assert Decider(None).fuse(tiles, how) == (UNKNOWN, "not_calibrated", None)  # type: ignore[arg-type]
