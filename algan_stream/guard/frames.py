"""Frames to learn from: a folder of images, a video, or a camera of a line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from algan_stream import plugins
from algan_stream.bundle import read_bundle
from algan_stream.config import LineConfig, read_line
from algan_stream.errors import ConfigError, InputError
from algan_stream.images import list_images, read_image
from algan_stream.ledger import Ledger
from algan_stream.sources.base import SourceContext
from algan_stream.types import FULL_RANGE, Frame, InputSpec, Spec


@dataclass(frozen=True)
class Recording:
    """Frames in order, whether they follow each other as a camera gave them, and white of 16 bits."""

    frames: Iterator[Frame]
    sequence: bool
    white_level: int = FULL_RANGE


def open_frames(path: Path, camera: str = "", most: int = 1000, white_level: int | None = None) -> Recording:
    """Opens what a path names: a folder of images, a line's `.yaml`, or else a video.

    Args:
        path: The folder or file.
        camera: Which one of a line.
        most: Frames of a line that are taken at most; a camera has no end.
        white_level: White of 16-bit image files; None: they are refused.

    Raises:
        AlganError: It cannot be opened; while it is read, a frame is broken.
    """
    if path.is_dir():
        return Recording(_images(path, white_level), sequence=False)
    if path.suffix in (".yaml", ".yml"):
        line = read_line(path)
        spec = read_bundle(line.bundle).manifest.spec
        white = spec.white_level if isinstance(spec, InputSpec) else FULL_RANGE
        return Recording(_of_line(line, spec, camera, most), sequence=True, white_level=white)
    return Recording(_of_source({"kind": "video", "path": str(path), "fps": 0}, None), sequence=True)


def _images(folder: Path, white_level: int | None) -> Iterator[Frame]:
    for number, path in enumerate(list_images(folder)):
        image, pixel_format = read_image(path, white_level)
        yield Frame("images", number, image, pixel_format, captured_ns=0, part_id=str(path))


def _of_line(line: LineConfig, spec: Spec, camera: str, most: int) -> Iterator[Frame]:
    names = [section.id for section in line.cameras]
    name = camera or (names[0] if len(names) == 1 else "")
    if name not in names:
        raise ConfigError(f"--camera: expected one of {', '.join(names)}, got {name!r}")
    section = line.cameras[names.index(name)].source
    for number, frame in enumerate(_of_source(section, spec)):
        if number >= most:
            return
        yield frame


def _of_source(section: dict[str, object], spec: Spec | None) -> Iterator[Frame]:
    module, config = plugins.load("sources", section, "source")
    context = SourceContext("learn", None, 1, Ledger(), lambda name, size: None, spec)
    source, stop = module.create(config, context), threading.Event()
    try:
        for frame in source.frames(stop):
            if frame.fault:
                raise InputError(f"frame {frame.frame_id}: {frame.fault}; learn from sound frames only")
            yield frame
    finally:
        stop.set()
        source.close()
