"""What every source must do, and what each does of its own. A new file source is a line in `SOURCES`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from algan_stream import plugins
from algan_stream.errors import AlganError, InputError
from algan_stream.ledger import Ledger
from algan_stream.sources.base import Pace, Source, SourceContext
from algan_stream.types import Frame

_COUNT = 9


def _images(folder: Path) -> dict[str, Any]:
    (folder / "images").mkdir()
    for i in range(_COUNT):
        Image.fromarray(np.full((6, 8, 3), 20 * i, np.uint8)).save(folder / "images" / f"{i:02}.png")
    return {"kind": "folder", "path": str(folder / "images"), "fps": 0}


def _video(folder: Path) -> dict[str, Any]:
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for i in range(_COUNT):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return {"kind": "video", "path": str(folder / "v.avi"), "fps": 0}


#: Makes `_COUNT` frames, frame i of brightness 20 i, and returns the section that plays them.
SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {"folder": _images, "video": _video}


def _open(section: dict[str, Any], deadline_ms: float | None = None) -> Source:
    module, config = plugins.load("sources", section, "source")
    context = SourceContext("cam", deadline_ms, 4, Ledger(), lambda *_: None)
    source: Source = module.create(config, context)
    return source


def _play(source: Source, most: int = 1000) -> list[Frame]:
    return list(islice(source.frames(threading.Event()), most))


@pytest.fixture(params=SOURCES)
def section(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return SOURCES[request.param](tmp_path)


def test_every_frame_once_and_in_order(section: dict[str, Any]) -> None:
    before = time.time_ns()
    frames = _play(_open(section))
    assert [frame.frame_id for frame in frames] == list(range(_COUNT))
    for i, frame in enumerate(frames):
        assert frame.camera == "cam"
        assert frame.image.dtype == np.uint8
        assert frame.image.shape[2:] == (3,)
        assert frame.pixel_format in ("bgr8", "rgb8")
        assert abs(float(frame.image.mean()) - 20 * i) < 3
        assert (frame.fault, frame.boxes, frame.deadline_ns, frame.entry) == ("", None, None, -1)
        assert before <= frame.captured_ns <= time.time_ns()


def test_frames_do_not_share_memory(section: dict[str, Any]) -> None:
    """The pipeline holds several at once."""
    frames = _play(_open(section))
    assert not any(np.shares_memory(a.image, b.image) for a, b in pairwise(frames))


def test_it_can_be_played_again(section: dict[str, Any]) -> None:
    source = _open(section)
    assert len(_play(source)) == len(_play(source)) == _COUNT
    source.close()
    source.close()


def test_looping_counts_on(section: dict[str, Any]) -> None:
    frames = _play(_open({**section, "loop": True}), most=2 * _COUNT + 3)
    assert [frame.frame_id for frame in frames] == list(range(2 * _COUNT + 3))
    assert np.array_equal(frames[1].image, frames[_COUNT + 1].image)


def test_stop_ends_it(section: dict[str, Any]) -> None:
    stop = threading.Event()
    frames = _open({**section, "loop": True}).frames(stop)
    next(frames)
    stop.set()
    assert len(list(frames)) <= 1


def test_stop_ends_a_wait(section: dict[str, Any]) -> None:
    stop = threading.Event()
    frames = _open({**section, "fps": 0.01}).frames(stop)
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    list(frames)
    assert time.monotonic() - started < 20  # at this rate the second frame would come after 100 s


def test_the_rate_is_kept_on_average(section: dict[str, Any]) -> None:
    started = time.monotonic()
    _play(_open({**section, "fps": 100}))
    assert time.monotonic() - started > 0.9 * (_COUNT - 1) / 100


def test_deadlines_count_from_arrival(section: dict[str, Any]) -> None:
    before = time.monotonic_ns()
    for frame in _play(_open(section, deadline_ms=250.0)):
        assert frame.deadline_ns is not None
        assert before + 250_000_000 <= frame.deadline_ns <= time.monotonic_ns() + 250_000_000


@pytest.mark.parametrize("fps", [-1, 10_001, float("nan")])
def test_a_rate_without_sense(section: dict[str, Any], fps: float) -> None:
    with pytest.raises(AlganError, match="source: fps: expected 0 to 10000"):
        _open({**section, "fps": fps})


def test_nothing_there(section: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="there is no such"):
        _open({**section, "path": "nowhere"})


def test_a_file_that_breaks_after_the_start_is_announced(section: dict[str, Any]) -> None:
    """It was good when the line was started; then the disk failed."""
    source = _open(section)
    path = Path(section["path"])
    broken = sorted(path.iterdir())[4] if path.is_dir() else path
    broken.write_bytes(broken.read_bytes()[: round(broken.stat().st_size * 0.5)])
    frames = _play(source)
    assert [frame.frame_id for frame in frames] == list(range(len(frames)))
    faults = [frame for frame in frames if frame.fault]
    assert len(faults) == 1
    assert faults[0].image.size == 0
    assert faults[0].fault.startswith("bad_image: " if path.is_dir() else "video_broken: ")


def test_a_file_that_vanishes_is_announced(section: dict[str, Any]) -> None:
    """Even in the middle of a loop the stream goes on, with faults."""
    source = _open({**section, "loop": True, "fps": 1000})
    path = Path(section["path"])
    frames = source.frames(stop := threading.Event())
    seen = list(islice(frames, _COUNT))
    assert not any(frame.fault for frame in seen)
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()
    vanished = list(islice(frames, 3))
    stop.set()
    assert all(frame.fault for frame in vanished)
    assert [frame.frame_id for frame in vanished] == [_COUNT, _COUNT + 1, _COUNT + 2]


# ---- each of its own ------------------------------------------------------------------------------------


def test_folder_names_its_parts(tmp_path: Path) -> None:
    section = _images(tmp_path)
    assert [frame.part_id for frame in _play(_open(section))] == [f"{i:02}.png" for i in range(_COUNT)]


def test_folder_shuffles_each_round_anew_and_always_the_same_way(tmp_path: Path) -> None:
    section = {**_images(tmp_path), "shuffle": True, "loop": True}
    rounds = [[f.part_id for f in _play(_open(section), 2 * _COUNT)] for _ in range(2)]
    assert rounds[0] == rounds[1]
    first, second = rounds[0][:_COUNT], rounds[0][_COUNT:]
    assert first != second
    assert sorted(first) == sorted(second)
    assert [f.part_id for f in _play(_open({**section, "seed": 1}), _COUNT)] != first


def test_video_keeps_its_own_rate(tmp_path: Path) -> None:
    section = _video(tmp_path)
    del section["fps"]
    started = time.monotonic()
    assert len(_play(_open(section))) == _COUNT
    assert time.monotonic() - started > 0.9 * (_COUNT - 1) / 25


@pytest.mark.parametrize("content", [b"", b"no video", b"RIFF" + bytes(200)])
def test_video_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.avi").write_bytes(content)
    with pytest.raises(InputError, match=r"v\.avi: (cannot be opened as a video|holds no frame)"):
        _open({"kind": "video", "path": str(tmp_path / "v.avi")})


def test_pace_does_not_hurry_after_a_stall() -> None:
    pace, stop = Pace(50), threading.Event()
    pace.wait(stop)
    time.sleep(0.3)
    started = time.monotonic()
    for _ in range(6):
        assert pace.wait(stop)
    assert time.monotonic() - started > 0.07  # one frame late at most, not fifteen at once
