"""Pictures that are kept: which, whole, as they were scored, within bounds, and never at a verdict's cost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from algan_stream import archive
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.errors import AlganError, ConfigError, InputError
from algan_stream.pipeline import Pipeline
from algan_stream.sinks import frames as frames_module
from algan_stream.sinks.archive import ArchiveSink, lot
from algan_stream.sinks.buffers import Buffers
from algan_stream.sinks.outlet import open_sink
from algan_stream.sinks.retention import Kept, Retention
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind
from fakes import FakeEngine, ListSink, fake_bundle, grey_frame
from lines import get, line_of, running, wait_for

_ALL = {"passes": 1.0, "min_free_gb": 0.0}
#: Every format, with the shape that a frame of 8 × 6 has in it.
_SHAPES = {
    "bgr8": (6, 8, 3), "rgb8": (6, 8, 3), "grey8": (6, 8), "bgra8": (6, 8, 4), "rgba8": (6, 8, 4),
    "grey16": (6, 8),
    "bayer_rggb8": (6, 8), "bayer_bggr8": (6, 8), "bayer_grbg8": (6, 8), "bayer_gbrg8": (6, 8),
    "nv12": (9, 8), "nv21": (9, 8), "i420": (9, 8), "yuyv": (6, 8, 2), "uyvy": (6, 8, 2),
}  # fmt: skip


@contextmanager
def _sink(folder: Path, **more: Any) -> Iterator[ArchiveSink]:
    sink = open_sink({"kind": "archive", "path": str(folder), **_ALL, **more}, "sinks[0]")
    assert isinstance(sink, ArchiveSink)
    yield sink
    sink.close()


def _verdict(frame_id: int, kind: VerdictKind = VerdictKind.PASS, **more: Any) -> FrameVerdict:
    boxes = (BoxVerdict(verdict=kind, score=-0.25),)
    more = {"camera": "cam", "captured_ns": 7, "boxes": boxes, **more}
    return FrameVerdict(frame_id=frame_id, verdict=kind, outcome=Outcome.SCORED, **more)


def _entries(folder: Path) -> list[tuple[Path, archive.Entry]]:
    return [(path, archive.read_entry(path)) for path in archive.entries(folder)]


def _picture(pixel_format: str = "bgr8", seed: int = 0) -> np.ndarray:
    dtype = np.uint16 if pixel_format == "grey16" else np.uint8
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, _SHAPES[pixel_format], dtype, True)


@pytest.mark.parametrize("encoding", ["png", "npy", "jpeg"])
@pytest.mark.parametrize("pixel_format", _SHAPES)
def test_pixels_come_back_as_they_were_scored(pixel_format: str, encoding: str, tmp_path: Path) -> None:
    image = _picture(pixel_format)
    frame = grey_frame(3, image=image, pixel_format=pixel_format)
    with _sink(tmp_path, encoding=encoding) as sink:
        sink.write_frame(frame, _verdict(3))
    [(path, entry)] = _entries(tmp_path)
    assert entry.verdict == _verdict(3)
    assert entry.pixels is not None
    assert entry.pixels.lossy == (encoding == "jpeg" and pixel_format in ("bgr8", "rgb8", "grey8"))
    found = archive.read_pixels(path, entry.pixels)
    assert found.shape == image.shape
    assert found.dtype == image.dtype
    if not entry.pixels.lossy:
        np.testing.assert_array_equal(found, image)


def test_a_picture_looks_right_in_any_viewer(tmp_path: Path) -> None:
    red = np.zeros((6, 8, 3), np.uint8)
    red[..., 0] = 255
    with _sink(tmp_path) as sink:
        sink.write_frame(grey_frame(image=red, pixel_format="rgb8"), _verdict(0))
    [png] = tmp_path.rglob("*.png")
    assert cv2.imread(str(png))[0, 0].tolist() == [0, 0, 255]


def test_vectors_and_frames_without_pixels(tmp_path: Path) -> None:
    vector = np.array([1.5, -2.0, np.float32(0.1)], np.float32)
    nothing = np.zeros((0, 0), np.uint8)
    with _sink(tmp_path) as sink:
        sink.write_frame(grey_frame(0, image=nothing, vector=vector), _verdict(0))
        sink.write_frame(grey_frame(1, image=nothing), _verdict(1, VerdictKind.UNKNOWN, reason="bad_image"))
    (path, first), (_, second) = _entries(tmp_path)
    assert first.pixels is not None
    assert archive.read_pixels(path, first.pixels).tolist() == vector.tolist()
    assert second.pixels is None
    assert second.verdict.reason == "bad_image"


def test_any_view_of_the_pixels(tmp_path: Path) -> None:
    big = _picture()
    with _sink(tmp_path) as sink:
        sink.write_frame(grey_frame(image=big[::-1, 1:7], pixel_format="bgr8"), _verdict(0))
    [(path, entry)] = _entries(tmp_path)
    assert entry.pixels is not None
    np.testing.assert_array_equal(archive.read_pixels(path, entry.pixels), big[::-1, 1:7])


def test_memory_that_is_written_anew_after_the_verdict(tmp_path: Path) -> None:
    """As a ring in shared memory is: the archive holds what was scored, not what came later."""
    ring = np.zeros((8, 8), np.uint8)
    got = ListSink()

    with _sink(tmp_path) as sink:
        pipeline = Pipeline(fake_bundle(), FakeEngine(max_batch=1), [sink, got])
        pipeline.open_camera("cam", 4, "block")
        pipeline.start()
        for i in range(20):
            answered = threading.Event()

            def reply(_: FrameVerdict, answered: threading.Event = answered) -> None:
                ring.fill(255)
                answered.set()

            ring.fill(i)
            pipeline.receive(grey_frame(i, image=ring, reply=reply))
            assert answered.wait(20)
        pipeline.close()
    assert len(got.verdicts) == 20
    for i, (path, entry) in enumerate(_entries(tmp_path)):
        assert entry.pixels is not None
        assert entry.verdict.frame_id == i
        assert (archive.read_pixels(path, entry.pixels) == i).all()


def test_buffers_are_used_again_and_never_while_they_are_read() -> None:
    buffers = Buffers(3 * 96)
    one, first = buffers.copy(np.full((4, 8, 3), 1, np.uint8))
    two, second = buffers.copy(np.full((4, 8, 3), 2, np.uint8))
    assert not np.shares_memory(one, two)
    assert (one == 1).all()
    buffers.give_back(first)
    three, third = buffers.copy(np.full((4, 24), 3, np.uint8)[:, ::-1])  # another shape of the same size
    assert third is first
    assert three.flags.c_contiguous
    assert (two == 2).all()
    small, fourth = buffers.copy(np.full((2, 8), 4, np.uint16))
    buffers.give_back(second)  # of a size that is not wanted any more
    buffers.prepare()
    again, fifth = buffers.copy(np.full((2, 8), 5, np.uint16))
    assert fifth.nbytes == fourth.nbytes == 32
    assert (small == 4).all()
    assert (again == 5).all()
    empty, _ = buffers.copy(np.zeros((0, 0), np.uint8))
    assert empty.shape == (0, 0)
    buffers.prepare()


def test_which_frames_are_kept(tmp_path: Path) -> None:
    kinds = list(VerdictKind)
    for folder in ("a", "b"):
        with _sink(tmp_path / folder, passes=0.25, unknowns=0.5, cameras=["cam", "other"]) as sink:
            for i in range(1200):
                sink.write_frame(grey_frame(i), _verdict(i, kinds[i % 3]))
                sink.write_frame(grey_frame(i), _verdict(i, VerdictKind.REJECT, camera="elsewhere"))
    kept = [[(e.verdict.camera, e.verdict.frame_id) for _, e in _entries(tmp_path / f)] for f in "ab"]
    assert kept[0] == kept[1]  # by the frame's id alone
    assert {camera for camera, _ in kept[0]} == {"cam"}
    by_kind = {kind: sum(kinds[i % 3] is kind for _, i in kept[0]) for kind in kinds}
    assert by_kind[VerdictKind.REJECT] == 400
    assert 75 <= by_kind[VerdictKind.PASS] <= 125
    assert 170 <= by_kind[VerdictKind.UNKNOWN] <= 230


def test_lots_are_even() -> None:
    lots = [lot(camera, i) for camera in ("a", "b") for i in range(5000)]
    counts, _ = np.histogram(lots, bins=10, range=(0, 1))
    assert counts.min() > 880
    assert counts.max() < 1120
    assert lots[:5000] != lots[5000:]


def test_a_slow_disk_costs_pictures_but_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(archive, "write_whole", _then(archive.write_whole, lambda: release.wait(30)))
    with _sink(tmp_path, queue_mb=1.0) as sink:
        started = time.monotonic()
        for i in range(200):
            sink.write_frame(grey_frame(i, image=np.full((300, 400), i, np.uint8)), _verdict(i))
        assert time.monotonic() - started < 5.0  # else 200 × 30 s
        counts = sink.counts()
        assert counts.waiting + counts.lost == 200
        assert counts.lost > 150
        release.set()
    counts = sink.counts()
    assert (counts.delivered + counts.lost, counts.waiting, counts.failures) == (200, 0, 0)
    assert [e.verdict.frame_id for _, e in _entries(tmp_path)] == list(range(counts.delivered))
    assert caplog.text.count("its queue is full") == 1  # not once for each


def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = [True]

    def fail() -> None:
        if full[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "write_whole", _then(archive.write_whole, fail, only=".json"))
    with _sink(tmp_path) as sink:
        for i in range(10):
            sink.write_frame(grey_frame(i), _verdict(i))
        wait_for(lambda: sink.counts().lost == 10)
        assert not list(tmp_path.rglob("*.png"))  # nothing is left of what is not whole
        full[0] = False
        for i in range(10, 15):
            sink.write_frame(grey_frame(i), _verdict(i))
    counts = sink.counts()
    assert (counts.delivered, counts.lost, counts.failures) == (5, 10, 10)
    assert [e.verdict.frame_id for _, e in _entries(tmp_path)] == list(range(10, 15))
    assert caplog.text.count("No space left") == 1
    assert "works again" in caplog.text


def test_a_real_full_disk(tmp_path: Path) -> None:
    """A file system of 3 MB, of its own; what does not fit is lost, what is there is whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() != 0 or os.system(f"mount -t tmpfs -o size=3m none {disk} 2>/dev/null") != 0:
        pytest.skip("only root may mount a small file system")
    try:
        with _sink(disk / "keep", encoding="npy") as sink:
            for i in range(40):
                sink.write_frame(grey_frame(i, image=np.full((300, 500), i, np.uint8)), _verdict(i))
        counts = sink.counts()
        assert counts.delivered + counts.lost == 40
        assert counts.lost >= 20
        whole = _entries(disk / "keep")
        assert len(whole) == counts.delivered > 10
        for path, entry in whole:
            assert entry.pixels is not None
            archive.read_pixels(path, entry.pixels)
        # With room kept free the oldest go instead, and nothing is lost.
        with _sink(disk / "keep", encoding="npy", min_free_gb=0.001) as sink:
            for i in range(40, 50):
                sink.write_frame(grey_frame(i, image=np.full((300, 500), i, np.uint8)), _verdict(i))
        assert (sink.counts().delivered, sink.counts().lost) == (10, 0)
        assert [e.verdict.frame_id for _, e in _entries(disk / "keep")][-10:] == list(range(40, 50))
    finally:
        os.system(f"umount {disk}")


def test_the_oldest_go_first(tmp_path: Path) -> None:
    with _sink(tmp_path, encoding="npy", max_gb=0.001) as sink:  # 1 MB
        for i in range(60):
            sink.write_frame(grey_frame(i, image=np.full((200, 250), i, np.uint8)), _verdict(i))
    ids = [e.verdict.frame_id for _, e in _entries(tmp_path)]
    assert ids == list(range(60 - len(ids), 60))
    assert 15 <= len(ids) <= 19  # of 51 kB each
    files = [f for f in tmp_path.glob("2*/**/*") if f.is_file()]
    assert len(files) == 2 * len(ids)
    # The next run knows of them.
    with _sink(tmp_path, encoding="npy", max_gb=0.001) as sink:
        for i in range(60, 65):
            sink.write_frame(grey_frame(i, image=np.full((200, 250), i, np.uint8)), _verdict(i))
    assert [e.verdict.frame_id for _, e in _entries(tmp_path)] == list(range(65 - len(ids), 65))


def test_what_is_too_old_goes_even_if_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "_REST_S", 0.05)
    with _sink(tmp_path, max_days=10.0) as sink:
        sink.write_frame(grey_frame(0), _verdict(0))
        sink.write_frame(grey_frame(1), _verdict(1))
    old, young = (path for path, _ in _entries(tmp_path))
    nine, eleven = time.time() - 9 * 86_400, time.time() - 11 * 86_400
    os.utime(old, (eleven, eleven))
    os.utime(young, (nine, nine))
    with _sink(tmp_path, max_days=10.0):
        wait_for(lambda: not old.exists())
    assert [path for path, _ in _entries(tmp_path)] == [young]
    with _sink(tmp_path, max_days=8.0):
        wait_for(lambda: not young.exists())
    assert not list(tmp_path.glob("2*"))  # nor are empty folders left


def test_retention_by_age_stops_at_the_first_that_may_stay(tmp_path: Path) -> None:
    retention = Retention(tmp_path, 10**9, 10.0, 0)
    for i in range(5):
        file = tmp_path / "d" / str(i)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"12345")
        retention.add(Kept((file,), 5, float(i)))
    retention.apply(12.5)
    assert [f.name for f in sorted(tmp_path.glob("d/*"))] == ["3", "4"]
    assert (len(retention), retention.total_bytes, retention.deleted) == (2, 10, 3)


def test_what_a_kill_leaves(tmp_path: Path) -> None:
    with _sink(tmp_path) as sink:
        sink.write_frame(grey_frame(0), _verdict(0))
    [(path, _)] = _entries(tmp_path)
    (path.parent / "000000.000000001-cam-9-reject.png").write_bytes(b"without an entry")
    (path.parent / ".part-000000.000000002-cam-9-reject.json").write_bytes(b"{")
    (path.parent / "a note of mine.txt").write_text("stays")
    with _sink(tmp_path) as sink:
        sink.write_frame(grey_frame(1), _verdict(1))
    assert [e.verdict.frame_id for _, e in _entries(tmp_path)] == [0, 1]
    stray = {f.name for f in path.parent.iterdir()} - {f.name for f in path.parent.glob("*-pass.*")}
    assert stray == {"a note of mine.txt"}


def test_damage_is_seen(tmp_path: Path) -> None:
    with _sink(tmp_path) as sink:
        for i in range(5):
            sink.write_frame(grey_frame(i, image=_picture(seed=i), pixel_format="bgr8"), _verdict(i))
    found = _entries(tmp_path)
    files = [path.with_name(entry.pixels.file) for path, entry in found if entry.pixels]
    files[0].unlink()
    files[1].write_bytes(b"")
    files[2].write_bytes(files[2].read_bytes()[:60])
    files[3].write_bytes(files[4].read_bytes())  # a picture, but another
    messages = ["cannot be read", "is no image", "is no image|cannot be decoded|other pixels", "other pixels"]
    for (path, entry), message in zip(found, messages, strict=False):
        assert entry.pixels is not None
        with pytest.raises(InputError, match=message):
            archive.read_pixels(path, entry.pixels)
    found[4][0].write_text("{}")
    with pytest.raises(InputError, match="is no entry of an archive"):
        archive.read_entry(found[4][0])
    newer = msgspec.structs.replace(found[3][1], format=99)
    found[3][0].write_bytes(msgspec.json.encode(newer))
    with pytest.raises(InputError, match="is of format 99, newer than 1; update algan-stream"):
        archive.read_entry(found[3][0])
    elsewhere = msgspec.structs.replace(found[0][1].pixels, file="../x.png")
    with pytest.raises(InputError, match="expected a name in the same folder"):
        archive.read_pixels(found[0][0], elsewhere)


def test_a_camera_named_like_a_folder(tmp_path: Path) -> None:
    with _sink(tmp_path / "keep") as sink:
        sink.write_frame(grey_frame(0, camera=".."), _verdict(0, camera=".."))
    assert [e.verdict.camera for _, e in _entries(tmp_path / "keep")] == [".."]
    assert [f.name for f in tmp_path.iterdir()] == ["keep"]


def test_one_writer_for_each_folder(tmp_path: Path) -> None:
    with _sink(tmp_path), pytest.raises(ConfigError, match=r"sinks\[0\]: path: .* is in use by another sink"):
        open_sink({"kind": "archive", "path": str(tmp_path)}, "sinks[0]")
    with _sink(tmp_path):
        pass


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"path": "/dev/null/x"}, "path: cannot write /dev/null/x"),
        ({"path": "x", "passes": 1.5}, "passes: expected 0 to 1, got 1.5"),
        ({"path": "x", "encoding": "gif"}, "encoding: expected one of png, npy, jpeg, got 'gif'"),
        ({"path": "x", "max_gb": 0}, "max_gb: expected 0.001 to"),
        ({"path": "x", "queue_size": 9}, "queue_size: unknown key"),
    ],
)
def test_a_wrong_section(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_sink({"kind": "archive", **section}, "sinks[0]")


def test_a_queue_of_its_own_is_enough(tmp_path: Path) -> None:
    section = {"kind": "archive", "path": str(tmp_path), "delivery": {"spill": str(tmp_path / "s")}}
    with pytest.raises(ConfigError, match=r"sinks\[0\]\.delivery: archive has a queue of its own"):
        open_sink(section, "sinks[0]")
    with _sink(tmp_path) as sink, pytest.raises(AlganError, match="expected a frame with the verdict"):
        sink.write(_verdict(0))


def test_in_a_line(bundle: Bundle, tmp_path: Path) -> None:
    """With its counts among the metrics, and the bundle kept beside the pictures."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    for i in range(12):
        cv2.imwrite(str(pictures / f"{i:02}.png"), _picture(seed=i))
    (pictures / "99.png").write_bytes(b"no image")
    sinks = [{"kind": "archive", "path": str(tmp_path / "keep"), **_ALL}]
    line = line_of(bundle, {"kind": "folder", "path": str(pictures), "fps": 200, "loop": True}, sinks=sinks)
    name = "sinks[0] (archive)"
    with running(line) as service:
        wait_for(lambda: service.deliveries()[name].delivered >= 13)
        families = {f.name: f for f in text_string_to_metric_families(get(service, "/metrics")[2])}
        counted = {s.labels["outcome"]: s.value for s in families["algan_sink_verdicts"].samples}
        assert counted["delivered"] >= 13
        assert counted["lost"] == 0
    found = _entries(tmp_path / "keep")
    assert sum(a.frames.received for a in service.accounts().values()) == len(found)
    [copy] = (tmp_path / "keep" / "bundles").iterdir()
    assert read_bundle(copy).model_sha256 == bundle.model_sha256
    assert {entry.bundle for _, entry in found} == {copy.name}
    unread = [entry for _, entry in found if entry.verdict.reason.startswith("bad_image")]
    assert unread
    assert all(entry.pixels is None for entry in unread)


def _then(write: Callable[..., int], before: Callable[[], object], only: str = "") -> Callable[..., int]:
    def wrapped(path: Path, *parts: bytes, sync: bool = False) -> int:
        if path.name.endswith(only):
            before()
        return write(path, *parts, sync=sync)

    return wrapped
