"""Where boxes come from: a layout, your own function, what is no belt; and what a frame makes of them."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from algan_stream.boxes import blobs, layout
from algan_stream.boxes import callable as own
from algan_stream.boxes.base import find_boxes
from algan_stream.bundle import Bundle
from algan_stream.config import CameraConfig, LineConfig
from algan_stream.decision import by_rule
from algan_stream.errors import ConfigError, InputError
from algan_stream.ledger import Tally
from algan_stream.pipeline import Pipeline
from algan_stream.plugins import convert, load
from algan_stream.service import Service
from algan_stream.types import BoxVerdict, Frame, Rule, VerdictKind
from fakes import FakeEngine, ListSink, fake_bundle, grey_frame

PASS, REJECT, UNKNOWN = VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN

# ---- layout ---------------------------------------------------------------------------------------------

_TRAY = {"origin": [10, 20], "pitch": [30, 40], "size": [24, 32], "rows": 4, "columns": 6}


def test_a_tray_of_24_pockets() -> None:
    _, config = load("boxes", {"kind": "layout", "grid": _TRAY, "frame": [200, 180]}, "boxes")
    frame = grey_frame(image=np.zeros((180, 200), np.uint8))
    found = layout.create(config).find(frame)
    assert found is not None
    assert found.shape == (24, 4)
    assert (found[0].tolist(), found[-1].tolist()) == ([10, 20, 34, 52], [160, 140, 184, 172])
    assert frame.box_names is not None
    assert (frame.box_names[0], frame.box_names[6], frame.box_names[-1]) == ("A1", "B1", "D6")
    assert (frame.fault, layout._letters(25), layout._letters(26), layout._letters(701)) == (
        "",
        "Z",
        "AA",
        "ZZ",
    )


def test_a_pocket_has_its_name_in_the_verdict() -> None:
    finder = layout.create(layout.Config(pockets={"left": (0, 0, 4, 8), "right": (4, 0, 8, 8)}))
    sink = ListSink()
    running = Pipeline(fake_bundle(), FakeEngine(), [sink])
    running.open_camera("cam", 4, "block")
    running.start()
    frame, small = grey_frame(0), grey_frame(1, image=np.zeros((8, 6), np.uint8))
    frame.image[:, 4:] = 255
    for shown in (frame, small):
        find_boxes(finder, shown)
        running.receive(shown)
    running.close()
    by_id = {v.frame_id: v for v in sink.verdicts}
    assert [(b.name, b.verdict) for b in by_id[0].boxes] == [("left", PASS), ("right", REJECT)]
    assert by_id[0].stages.boxes_ms > 0
    # The other camera, or another setting of it: none of the pockets is where it should be.
    assert by_id[1].reason.startswith("layout_misfit: pocket right from (4, 0) to (8, 8)")
    assert [(b.name, b.verdict) for b in by_id[1].boxes] == [("left", UNKNOWN), ("right", UNKNOWN)]
    assert running.ledger.snapshot()["cam"].boxes == Tally(received=4, scored=2, failed=2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "either grid or pockets"),
        ({"grid": _TRAY, "pockets": {"a": [0, 0, 1, 1]}}, "either grid or pockets"),
        ({"pockets": {}}, "pockets"),
        ({"pockets": {"a": [5, 0, 5, 1]}}, r"pockets\.a"),
        ({"grid": {**_TRAY, "rows": 0}}, "rows"),
        ({"grid": {**_TRAY, "size": [0, 1]}}, "size"),
        ({"grid": {**_TRAY, "pitch": [0, 1]}}, "pitch"),
        ({"grid": {**_TRAY, "row": 1}}, r"boxes\.grid\.row"),
        ({"grid": _TRAY, "frame": [183, 180]}, "pocket A6 .* not wholly in a frame of 183×180"),
    ],
)
def test_a_wrong_layout_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("boxes", {"kind": "layout", **keys}, "boxes")


def test_frames_of_another_size_than_said() -> None:
    finder = layout.create(layout.Config(pockets={"a": (0, 0, 4, 4)}, frame=(8, 4)))
    frame = grey_frame()
    finder.find(frame)
    assert frame.fault == "layout_misfit: expected frames of 8×4, got 8×8"


# ---- your own function ----------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path) -> Any:
    (tmp_path / "my_boxes.py").write_text(
        "def two(frame):\n    return [[0, 0, 4, 4], [1, 1, 5, 5]]\n"
        "def bad(frame):\n    raise ZeroDivisionError(f'frame {frame.frame_id}')\n"
        "def odd(frame):\n    return [[1, 2, 3]]\n"
        "def whole(frame):\n    return None\n"
        "def sometimes(frame):\n    return 1 / 0 if frame.frame_id % 3 == 1 else [[0, 0, 4, 4]]\n"
        "class Finder:\n    def __init__(self):\n        self.calls = 0\n"
        "    def __call__(self, frame):\n        self.calls += 1\n        return [[0, 0, self.calls, 4]]\n"
        "number = 3\n"
    )
    yield str(tmp_path)
    sys.path.remove(str(tmp_path))
    sys.modules.pop("my_boxes", None)


def test_a_function_or_a_class_finds_boxes(module: str) -> None:
    two = own.create(own.Config(function="my_boxes:two", path=module))
    assert two.find(grey_frame()).tolist() == [[0, 0, 4, 4], [1, 1, 5, 5]]  # type: ignore[union-attr]
    finder = own.create(own.Config(function="my_boxes:Finder", path=module))
    assert [finder.find(grey_frame()).tolist() for _ in range(2)] == [[[0, 0, 1, 4]], [[0, 0, 2, 4]]]  # type: ignore[union-attr]
    assert own.create(own.Config(function="my_boxes:whole", path=module)).find(grey_frame()) is None


def test_a_function_that_raises_or_returns_nonsense_harms_its_frame_alone(module: str) -> None:
    for name, reason in (
        ("bad", "boxes_failed: ZeroDivisionError: frame 7"),
        ("odd", "boxes_failed: InputError: boxes: expected shape (N, 4), xyxy, got (1, 3)"),
    ):
        frame = grey_frame(7)
        find_boxes(own.create(own.Config(function=f"my_boxes:{name}", path=module)), frame)
        assert (frame.fault, frame.boxes) == (reason, None)
    many = own.create(own.Config(function="my_boxes:two", path=module, max_boxes=1))
    with pytest.raises(InputError, match="at most 1 boxes, got 2"):
        many.find(grey_frame())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_boxes:nope", "AttributeError"),
        ("no_such_module_here:f", "ModuleNotFoundError"),
        ("my_boxes:number", "cannot be called: it is a int"),
    ],
)
def test_a_function_that_is_not_there(module: str, function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own.create(own.Config(function=function, path=module))
    with pytest.raises(ConfigError, match="MODULE:FUNCTION"):
        load("boxes", {"kind": "callable", "function": "os.system"}, "boxes")


def test_a_line_outlives_its_finders_errors(
    bundle: Bundle, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = FakeEngine(spec=bundle.manifest.image_spec)
    monkeypatch.setattr("algan_stream.service.open_engine", lambda *_: engine)
    for i in range(9):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((8, 8), np.uint8))
    camera = {
        "id": "cam",
        "source": {"kind": "folder", "path": str(tmp_path)},
        "boxes": {"kind": "callable", "function": "my_boxes:sometimes", "path": module},
    }
    sink = ListSink()
    line = convert({"bundle": str(bundle.path), "cameras": [camera]}, LineConfig, "")
    accounts = Service(line, [sink]).run()
    assert accounts["cam"].frames == Tally(received=9, scored=6, failed=3)
    assert accounts["cam"].reasons == {"boxes_failed": 3}
    failed = [v for v in sink.verdicts if v.reason]
    assert sorted(v.frame_id for v in failed) == [1, 4, 7]
    assert {v.verdict for v in failed} == {UNKNOWN}
    camera["boxes"] = {"kind": "callable", "function": "my_boxes:gone", "path": module}
    with pytest.raises(ConfigError, match=r"cameras\[0\]\.boxes: function: my_boxes:gone"):
        Service(convert({"bundle": str(bundle.path), "cameras": [camera]}, LineConfig, ""))


def test_nothing_is_looked_for_in_a_frame_that_is_too_late_already() -> None:
    class Never(layout.Layout):
        def find(self, frame: Frame) -> Any:
            raise AssertionError

    frame = grey_frame(deadline_ns=1)
    find_boxes(Never(layout.Config(pockets={"a": (0, 0, 1, 1)})), frame)
    assert (frame.fault, frame.boxes, frame.boxes_ns) == ("", None, 0)


# ---- blobs ----------------------------------------------------------------------------------------------


def _belt(*parts: tuple[int, int, int, int], grey: int = 60) -> Frame:
    rng = np.random.default_rng(len(parts))
    image = np.clip(rng.normal(grey, 3, (120, 200, 3)), 0, 255).astype(np.uint8)
    for x0, y0, x1, y1 in parts:
        image[y0:y1, x0:x1] = 200
    return Frame("belt", 0, image, "bgr8", captured_ns=0)


_KEYS: dict[str, Any] = {"min_area": 100, "margin": 0, "merge": 3, "scale": 1.0}


@pytest.mark.parametrize("background", ["threshold", "image", "learned"])
def test_parts_on_a_belt(background: str, tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "background": background,
        "level": 100 if background == "threshold" else 40,
        **_KEYS,
    }
    if background == "image":
        cv2.imwrite(str(tmp_path / "belt.png"), _belt().image)
        keys["path"] = str(tmp_path / "belt.png")
    finder = blobs.create(blobs.Config(**keys))
    if background == "learned":
        for _ in range(10):
            learning = _belt()
            assert finder.find(learning) is None
            assert learning.fault == "background_learning"
    cut = (0, 80, 30, 110)  # only half in the picture
    pieces = ((100, 20, 120, 40), (122, 20, 140, 40))  # 2 px apart: one part
    found = finder.find(_belt((20, 20, 60, 60), *pieces, cut, (170, 90, 175, 95)))
    assert found is not None
    assert found.tolist() == [[20, 20, 60, 60], [100, 20, 140, 40]]
    half = blobs.create(blobs.Config(**{**keys, "whole_only": False, "warmup_frames": 0, "margin": 2}))
    half.find(_belt())
    cut_too = half.find(_belt(cut))
    assert cut_too is not None
    assert cut_too.tolist() == [[0, 78, 32, 112]]
    grey = Frame(
        "belt", 0, cv2.cvtColor(_belt((20, 20, 60, 60)).image, cv2.COLOR_BGR2GRAY), "grey8", captured_ns=0
    )
    if background != "learned":
        assert finder.find(grey).tolist() == [[20, 20, 60, 60]]  # type: ignore[union-attr]


def test_a_region_and_what_is_no_part() -> None:
    keys = {"background": "threshold", "level": 100, **_KEYS}
    finder = blobs.create(blobs.Config(**keys, roi=(50, 0, 200, 120), max_area=2000, max_boxes=2))
    assert finder.find(_belt((10, 20, 40, 50), (100, 20, 130, 50))).tolist() == [[100, 20, 130, 50]]  # type: ignore[union-attr]
    hand = _belt((60, 10, 160, 110))
    finder.find(hand)
    assert hand.fault == "blob_too_large: 10000 px², expected up to 2000"
    many = _belt(*((60 + 40 * i, 20, 80 + 40 * i, 40) for i in range(3)))
    assert finder.find(many) is None
    assert many.fault == "too_many_boxes: 3, expected up to 2"
    with pytest.raises(InputError, match="roi: ends at"):
        finder.find(grey_frame())
    darker = blobs.create(blobs.Config(background="threshold", level=30, parts="darker", **_KEYS))
    frame = _belt()
    frame.image[30:60, 30:60] = 0
    assert darker.find(frame).tolist() == [[30, 30, 60, 60]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"background": "image"}, "path"),
        ({"path": "x.png"}, "path"),
        ({"level": 0}, "level"),
        ({"min_area": 9, "max_area": 8}, "max_area"),
        ({"roi": [5, 0, 5, 1]}, "roi"),
        ({"scale": 0}, "scale"),
        ({"speed": 1}, "speed"),
    ],
)
def test_wrong_blobs_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("boxes", {"kind": "blobs", **keys}, "boxes")


def test_a_picture_of_the_belt_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no picture"):
        blobs.create(blobs.Config(background="image", path=str(tmp_path / "no.png")))
    cv2.imwrite(str(tmp_path / "belt.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="as large as the frames"):
        blobs.create(blobs.Config(background="image", path=str(tmp_path / "belt.png"))).find(_belt())


# ---- a frame's verdict ----------------------------------------------------------------------------------


def _verdicts(kinds: str) -> list[BoxVerdict]:
    told = {"p": PASS, "r": REJECT, "u": UNKNOWN}
    return [BoxVerdict(verdict=told[k], reason="" if k == "p" else f"{k}{i}") for i, k in enumerate(kinds)]


@pytest.mark.parametrize(
    ("rule", "kinds", "expected"),
    [
        ({}, "pup", (UNKNOWN, "u1")),
        ({}, "pur", (REJECT, "r2")),
        ({"reject_boxes": 2}, "prp", (PASS, "")),
        ({"reject_boxes": 2}, "prr", (REJECT, "boxes_rejected: 2 of 3")),
        ({"reject_boxes": 2}, "pru", (UNKNOWN, "u2")),
        ({"reject_boxes": 2, "tolerate_unknown": 1}, "ppu", (PASS, "")),
        ({"reject_boxes": 2, "tolerate_unknown": 1}, "pru", (UNKNOWN, "u2")),
        ({"reject_boxes": 3, "tolerate_unknown": 1}, "puu", (UNKNOWN, "u1")),
        ({"reject_boxes": 9, "tolerate_unknown": 9}, "uu", (UNKNOWN, "u0")),
        ({"reject_boxes": 9, "tolerate_unknown": 9}, "ur", (UNKNOWN, "u0")),
        ({"reject_boxes": 9}, "rr", (REJECT, "boxes_rejected: 2 of 2")),
        ({"reject_share": 0.3}, "pppppppprr", (PASS, "")),
        ({"reject_share": 0.3}, "ppppppprrr", (REJECT, "boxes_rejected: 3 of 10")),
        ({"tolerate_unknown": 2}, "pu", (UNKNOWN, "u1")),
        ({}, "", (UNKNOWN, "no_boxes")),
    ],
)
def test_rules(rule: dict[str, Any], kinds: str, expected: Any) -> None:
    assert by_rule(Rule(**rule), _verdicts(kinds)) == expected


def test_no_rule_lets_unknown_boxes_pass() -> None:
    for n in range(1, 6):
        for kinds in map("".join, itertools.product("pru", repeat=n)):
            _no_rule_lets_them_pass(kinds)


def _no_rule_lets_them_pass(kinds: str) -> None:
    for boxes, share, tolerated in itertools.product((None, 1, 2, 4), (None, 0.4), (0, 1, 3)):
        if boxes is None or share is None:
            rule = Rule(reject_boxes=boxes, reject_share=share, tolerate_unknown=tolerated)
            kind, _ = by_rule(rule, _verdicts(kinds))
            if kind is PASS:
                assert "p" in kinds
                assert kinds.count("u") <= tolerated
                # Even if each of them were a reject.
                assert by_rule(rule, _verdicts(kinds.replace("u", "r")))[0] is PASS
            if boxes == 1 and tolerated == 0:
                wanted = REJECT if "r" in kinds else UNKNOWN if "u" in kinds else PASS
                assert kind is wanted


@pytest.mark.parametrize(
    "section",
    [
        {"reject_boxes": 0},
        {"reject_share": 1.5},
        {"reject_share": 0.5, "reject_boxes": 1},
        {"tolerate_unknown": -1},
        {"k": 1},
    ],
)
def test_a_wrong_rule_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"cameras\[0\]\.rule"):
        convert({"id": "a", "source": {}, "rule": section}, CameraConfig, "cameras[0]")


def test_a_rule_and_the_mean_of_tiles_exclude_each_other(bundle: Bundle, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((8, 8), np.uint8))
    camera = {
        "id": "cam",
        "source": {"kind": "folder", "path": str(tmp_path)},
        "boxes": {"kind": "tiles", "height_px": 4, "fuse": "mean"},
        "rule": {"reject_boxes": 2},
    }
    with pytest.raises(ConfigError, match=r"cameras\[0\]\.rule: cannot be combined"):
        Service(convert({"bundle": str(bundle.path), "cameras": [camera]}, LineConfig, ""))


@pytest.mark.parametrize("when_empty", ["unknown", "ignore", "pass"])
def test_what_an_empty_frame_means(when_empty: str) -> None:
    sink, replies = ListSink(), []
    running = Pipeline(fake_bundle(), FakeEngine(), [sink])
    running.open_camera("cam", 9, "drop_newest")
    none = np.empty((0, 4), np.float32)
    frames = [
        grey_frame(0, boxes=none, reply=replies.append),
        grey_frame(1, boxes=none, fault="bad_image"),
        grey_frame(2, boxes=none, deadline_ns=1),
    ]
    for frame in frames:
        frame.when_empty = when_empty  # type: ignore[assignment]
        running.receive(frame)
    running.start()
    running.close()
    account = running.ledger.snapshot()["cam"]
    # What is empty because it was never looked at is unknown, whatever the camera says.
    assert account.frames.received == 3
    assert {v.frame_id: (v.verdict, v.reason) for v in sink.verdicts if v.frame_id} == {
        1: (UNKNOWN, "bad_image"),
        2: (UNKNOWN, "expired"),
    }
    expected = {"unknown": (UNKNOWN, "no_boxes"), "ignore": (UNKNOWN, "empty"), "pass": (PASS, "empty")}
    (said,) = replies
    assert (said.verdict, said.reason) == expected[when_empty]
    assert (0 in {v.frame_id for v in sink.verdicts}) is (when_empty != "ignore")
    assert account.frames.scored == (when_empty != "unknown")
    assert account.frames.failed == 1 + (when_empty == "unknown")
    assert account.frames.in_flight == 0


def test_a_frame_that_was_dropped_does_not_pass_by_a_lenient_rule() -> None:
    sink = ListSink()
    running = Pipeline(fake_bundle(), FakeEngine(), [sink])
    running.open_camera("cam", 1, "drop_oldest")
    for i in range(2):
        frame = grey_frame(i, boxes=np.array([(0, 0, 4, 4)], np.float32))
        frame.rule = Rule(reject_boxes=9, tolerate_unknown=9)
        running.receive(frame)
    running.start()
    running.close()
    assert [(v.frame_id, v.verdict, v.reason) for v in sink.verdicts] == [
        (0, UNKNOWN, "queue_full"),
        (1, PASS, ""),
    ]
