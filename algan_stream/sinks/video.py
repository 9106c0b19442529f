"""A video of each camera for people, with boxes, scores and verdicts drawn in; never for scores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from algan_stream.archive import UNFINISHED
from algan_stream.errors import ConfigError
from algan_stream.ranges import check_ranges
from algan_stream.sinks.frames import FrameSink
from algan_stream.sinks.retention import Kept, Retention, scan
from algan_stream.types import Frame, FrameVerdict
from algan_stream.viewing import annotate, to_bgr

#: Room for what the library still holds back, and for the files' ends.
_RESERVE_BYTES = 2_000_000


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: video`.

    Motion JPEG in `.avi` files, `FOLDER/2026-11-25/152207-CAMERA.avi` (UTC): every picture stands for itself,
    so that a kill costs no more than the file's last ones.

    Attributes:
        path: Folder, made if it is missing.
        fps: Pictures per second at which the video is played.
        every: Only each so-manieth frame of a camera.
        height_px: Larger pictures are made as small as this; None: as they are.
        cameras: Only these cameras; None: all.
        segment_s: A new file after this time.
        segment_mb: Or when it has this many megabytes.
        max_gb: Most gigabytes (10⁹ bytes) in all; then the oldest files go.
        max_days: Longest that a file is kept; None: as long as there is room.
        min_free_gb: Below that much free space on its disk the oldest go as well.
        queue_mb: Most megabytes of pixels that wait to be drawn; what comes then is missing, and counted.
        drain_s: How long a stop waits for what is still to be drawn.
    """

    kind: Literal["video"]
    path: str
    fps: float = 25.0
    every: int = 1
    height_px: int | None = 720
    cameras: tuple[str, ...] | None = None
    segment_s: float = 600.0
    segment_mb: float = 500.0
    max_gb: float = 20.0
    max_days: float | None = None
    min_free_gb: float = 1.0
    queue_mb: float = 64.0
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        check_ranges(
            ("fps", self.fps, 0.1, 1000),
            ("every", self.every, 1, 1_000_000),
            ("height_px", self.height_px, 16, 16_384),
            ("segment_s", self.segment_s, 1, 86_400),
            # An AVI file of more than 2 GB is not read everywhere.
            ("segment_mb", self.segment_mb, 0.1, 2000),
            ("max_gb", self.max_gb, 0.001, 1_000_000),
            ("max_days", self.max_days, 0.001, 36_500),
            ("min_free_gb", self.min_free_gb, 0, 1_000_000),
            ("queue_mb", self.queue_mb, 1, 1_000_000),
            ("drain_s", self.drain_s, 0, 3600),
        )


class _Segment:
    """One file that is being written; it has its name once it is whole."""

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float) -> None:
        import cv2

        self.path, self.size_wh = path, size_wh
        self.began_s, self.frames = time.monotonic(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.part = path.with_name(UNFINISHED + path.name)
        self._writer = cv2.VideoWriter(
            str(self.part), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, size_wh
        )
        if not self._writer.isOpened():
            raise OSError(f"{path} cannot be written")

    def add(self, picture_bgr: Any) -> None:
        self._writer.write(picture_bgr)
        self.frames += 1

    def bytes(self) -> int:
        return self.part.stat().st_size

    def close(self) -> Kept | None:
        """Ends the file; None if nothing is in it."""
        self._writer.release()
        if not self.part.exists() or self.part.stat().st_size == 0 or self.frames == 0:
            self.part.unlink(missing_ok=True)
            return None
        self.part.replace(self.path)
        return Kept((self.path,), self.path.stat().st_size, time.time())


class VideoSink(FrameSink):
    """The only writer of its folder."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.queue_mb, config.drain_s)
        self._config, self._root = config, Path(config.path)
        age_s = None if config.max_days is None else config.max_days * 86_400
        free = round(config.min_free_gb * 1e9)
        self._retention = Retention(self._root, round(config.max_gb * 1e9), age_s, free)
        self._adopted = False
        self._open: dict[str, _Segment] = {}
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f"{UNFINISHED}probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(f"path: cannot write {config.path}: {error.strerror}") from error

    def keeps(self, frame: Frame, verdict: FrameVerdict) -> bool:
        """Frames with a picture, of the cameras that are wanted."""
        wanted = self._config.cameras is None or verdict.camera in self._config.cameras
        return wanted and frame.image.size > 0 and verdict.frame_id % self._config.every == 0

    def store(self, frame: Frame, verdict: FrameVerdict) -> None:
        """Draws the verdict and appends the picture to its camera's file."""
        import cv2

        picture = to_bgr(frame.image, frame.pixel_format)
        annotate(picture, verdict)
        height, width = picture.shape[:2]
        if self._config.height_px is not None and height > self._config.height_px:
            size = (max(1, round(width * self._config.height_px / height)), self._config.height_px)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        if self._free_bytes() < picture.nbytes + _RESERVE_BYTES:  # OpenCV would say nothing of a full disk
            self.end()
            raise OSError(28, f"no space left on the disk of {self._root}")
        self._segment_for(verdict.camera, (picture.shape[1], picture.shape[0])).add(picture)

    def rest(self) -> None:
        """Finds what an earlier run left, once; ends files that are due; deletes what is too much."""
        if not self._adopted:
            self._retention.adopt(_found(self._root))
            self._adopted = True
        for camera, segment in list(self._open.items()):
            if self._is_over(segment):
                self._finish(camera)
        self._retention.apply(needed_bytes=sum(segment.bytes() for segment in self._open.values()))

    def end(self) -> None:
        """Ends all files."""
        for camera in list(self._open):
            self._finish(camera)

    def _segment_for(self, camera: str, size_wh: tuple[int, int]) -> _Segment:
        segment = self._open.get(camera)
        if segment is not None and (self._is_over(segment) or segment.size_wh != size_wh):
            self._finish(camera)
            segment = None
        if segment is None:
            segment = self._open[camera] = _Segment(self._free_name(camera), size_wh, self._config.fps)
        return segment

    def _is_over(self, segment: _Segment) -> bool:
        old = time.monotonic() - segment.began_s >= self._config.segment_s
        return old or segment.bytes() >= self._config.segment_mb * 1e6

    def _finish(self, camera: str) -> None:
        kept = self._open.pop(camera).close()
        if kept is not None:
            self._retention.add(kept)

    def _free_name(self, camera: str) -> Path:
        now = time.time()
        while True:
            path = self._root / time.strftime("%Y-%m-%d/%H%M%S", time.gmtime(now))
            path = path.with_name(f"{path.name}-{camera}.avi")
            if not path.exists():
                return path
            now += 1  # shorter than a second, or the clock was set back

    def _free_bytes(self) -> int:
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize


def create(config: Config) -> VideoSink:
    """Opens the folder.

    Raises:
        ConfigError: It cannot be written.
    """
    sink = VideoSink(config)
    sink.start()
    return sink


def _found(root: Path) -> Iterator[Kept]:
    """Videos of an earlier run, oldest first; one that a kill cut off keeps what is in it."""
    for day in sorted(folder for folder in root.glob("????-??-??") if folder.is_dir()):
        for name, files in scan(day, lambda file: file.name.removeprefix(UNFINISHED)).items():
            for file in files:
                path = Path(file.path)
                if name.endswith(".avi") and path.name.startswith(UNFINISHED):
                    path = path.replace(path.with_name(name))
                if name.endswith(".avi"):
                    stat = path.stat()
                    yield Kept((path,), stat.st_size, stat.st_mtime)
