"""Videos for people: every frame is in one, within bounds, and what a kill leaves can be played."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from algan_stream.errors import ConfigError
from algan_stream.sinks.outlet import open_sink
from algan_stream.sinks.video import VideoSink
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind
from algan_stream.viewing import annotate, to_bgr
from fakes import grey_frame
from lines import wait_for
from test_archive import _SHAPES, _picture


def _sink(folder: Path, **more: Any) -> VideoSink:
    sink = open_sink({"kind": "video", "path": str(folder), "min_free_gb": 0.0, **more}, "sinks[0]")
    assert isinstance(sink, VideoSink)
    return sink


def _verdict(frame_id: int, camera: str = "cam", kind: VerdictKind = VerdictKind.REJECT) -> FrameVerdict:
    box = BoxVerdict(box=(20, 20, 60, 50), verdict=kind, score=1.5, reason="score_above_threshold")
    odd = BoxVerdict(
        box=(float("nan"), 0, float("inf"), 1e30), verdict=VerdictKind.UNKNOWN, reason="invalid_box"
    )
    return FrameVerdict(
        camera=camera,
        frame_id=frame_id,
        verdict=kind,
        boxes=(box, odd),
        outcome=Outcome.SCORED,
        captured_ns=0,
    )


def _write(
    sink: VideoSink, first: int, count: int, camera: str = "cam", size: tuple[int, int] = (96, 128)
) -> None:
    for i in range(first, first + count):
        sink.write_frame(grey_frame(i, image=np.full(size, 2 * i % 200, np.uint8)), _verdict(i, camera))


def _frames(file: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(file)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    capture.release()
    return found


def test_every_frame_of_every_camera(tmp_path: Path) -> None:
    sink = _sink(tmp_path)
    _write(sink, 0, 30)
    _write(sink, 0, 20, "other")
    _write(sink, 30, 10, size=(64, 80))  # the camera was set up anew
    sink.close()
    counts = sink.counts()
    assert (counts.delivered, counts.lost, counts.failures) == (60, 0, 0)
    files = sorted(tmp_path.rglob("*.avi"))
    assert [len(_frames(file)) for file in sorted(files, key=lambda f: f.name[7:] + f.name)] == [30, 10, 20]
    pictures = _frames(next(file for file in files if "other" in file.name))
    assert pictures[0].shape == (96, 128, 3)
    red = pictures[3][20, 40].astype(int)  # on the box's edge
    assert red[2] > red[0] + 60
    assert red[2] > red[1] + 60
    assert abs(int(pictures[9][70, 100, 0]) - 18) <= 12  # and beside it the picture


def test_small_pictures_and_each_third(tmp_path: Path) -> None:
    sink = _sink(tmp_path, height_px=48, every=3, cameras=["cam"])
    _write(sink, 0, 30)
    _write(sink, 0, 30, "other")
    sink.write_frame(grey_frame(33, image=np.zeros((0, 0), np.uint8)), _verdict(33))
    sink.close()
    [file] = tmp_path.rglob("*.avi")
    pictures = _frames(file)
    assert len(pictures) == 10
    assert pictures[0].shape == (48, 64, 3)


def test_segments_and_how_many_stay(tmp_path: Path) -> None:
    sink = _sink(tmp_path, segment_mb=0.1)
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    for i in range(80):
        sink.write_frame(grey_frame(i, image=noise, pixel_format="bgr8"), _verdict(i))
    sink.close()
    files = sorted(tmp_path.rglob("*.avi"))
    assert len(files) > 5
    assert all(file.stat().st_size < 300_000 for file in files)
    assert sum(len(_frames(file)) for file in files) == 80 == sink.counts().delivered
    sink = _sink(tmp_path, max_gb=0.001)
    sizes = {file: file.stat().st_size for file in files}  # at once: they may go while they are looked at
    wait_for(lambda: sum(sizes[file] for file in tmp_path.rglob("*.avi")) <= 1_000_000)
    sink.close()
    assert sorted(tmp_path.rglob("*.avi")) == files[-len(list(tmp_path.rglob("*.avi"))) :]


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() != 0 or os.system(f"mount -t tmpfs -o size=6m none {disk} 2>/dev/null") != 0:
        pytest.skip("only root may mount a small file system")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    try:
        sink = _sink(disk / "videos")
        for i in range(120):
            sink.write_frame(grey_frame(i, image=noise, pixel_format="bgr8"), _verdict(i))
        sink.close()
        counts = sink.counts()
        assert counts.delivered + counts.lost == 120
        assert min(counts.delivered, counts.lost) > 20
        assert sum(len(_frames(file)) for file in disk.rglob("*.avi")) == counts.delivered
    finally:
        os.system(f"umount {disk}")


def test_what_a_kill_leaves_can_be_played(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from test_sinks_video import _sink, _write; from pathlib import Path; import time;"
        "sink = _sink(Path(sys.argv[1])); _write(sink, 0, 60);\n"
        "while sink.counts().waiting: time.sleep(0.02)\n"
        "print('written', flush=True); time.sleep(60)"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert not list(tmp_path.rglob("[0-9]*.avi"))
    sink = _sink(tmp_path)
    wait_for(lambda: bool(list(tmp_path.rglob("[0-9]*.avi"))))
    sink.close()
    [file] = tmp_path.rglob("*.avi")
    assert 50 <= len(_frames(file)) <= 60  # the last were still in the library's buffer


@pytest.mark.parametrize("pixel_format", _SHAPES)
def test_any_format_can_be_looked_at(pixel_format: str) -> None:
    image = _picture(pixel_format)
    before = image.copy()
    picture = to_bgr(image, pixel_format)  # type: ignore[arg-type]
    assert picture.shape == (6, 8, 3)
    assert picture.dtype == np.uint8
    annotate(picture, _verdict(0))
    assert (image == before).all()


def test_bayer_colours_are_the_right_way_round() -> None:
    """A red surface through each pattern, which OpenCV names otherwise."""
    for pattern, at in {"rggb": (0, 0), "bggr": (1, 1), "grbg": (0, 1), "gbrg": (1, 0)}.items():
        mosaic = np.zeros((8, 8), np.uint8)
        mosaic[at[0] :: 2, at[1] :: 2] = 200
        blue, green, red = to_bgr(mosaic, f"bayer_{pattern}8")[4, 4]  # type: ignore[arg-type]
        assert red > 150, pattern
        assert max(blue, green) < 50, pattern


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"path": "/dev/null/x"}, "path: cannot write /dev/null/x"),
        ({"path": "x", "fps": 0}, "fps: expected 0.1 to 1000, got 0"),
        ({"path": "x", "segment_mb": 5000}, "segment_mb: expected 0.1 to 2000"),
    ],
)
def test_a_wrong_section(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_sink({"kind": "video", **section}, "sinks[0]")
