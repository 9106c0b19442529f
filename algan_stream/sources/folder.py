"""A folder of images as a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np

from algan_stream.errors import ImageError
from algan_stream.images import list_images, read_image
from algan_stream.sources.base import Source, SourceContext, played
from algan_stream.types import Frame, InputSpec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: folder`.

    Attributes:
        path: Folder; images are taken from it and its subfolders, in order of their paths.
        fps: Frames per second; 0 = as fast as they are scored.
        loop: Begin again after the last image.
        shuffle: Play in random order, another one in each round.
        seed: Of that order.
    """

    kind: Literal["folder"] = "folder"
    path: str
    fps: float = 0.0
    loop: bool = False
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fps <= 10_000:
            raise ValueError(f"fps: expected 0 to 10000, got {self.fps}")


class FolderSource(Source):
    """Plays image files; `part_id` is the file's path below the folder."""

    on_demand: ClassVar[bool] = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__()
        self._config, self._context = config, context
        self._root = Path(config.path)
        self._paths = list_images(config.path)
        spec = context.spec
        self._white_level = spec.white_level if isinstance(spec, InputSpec) else None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields each image; a file that cannot be decoded is announced with the fault `bad_image`."""
        config = self._config
        seed = config.seed if config.shuffle else None
        for frame_id, path in played(self._paths, stop, fps=config.fps, loop=config.loop, seed=seed):
            yield self._frame(path, frame_id)

    def _frame(self, path: Path, frame_id: int) -> Frame:
        fault = ""
        try:
            image, pixel_format = read_image(path, self._white_level)
        except ImageError as error:
            image, pixel_format, fault = np.zeros((0, 0), np.uint8), "grey8", f"bad_image: {error}"
        return Frame(
            camera=self._context.camera,
            frame_id=frame_id,
            image=image,
            pixel_format=pixel_format,
            captured_ns=time.time_ns(),
            deadline_ns=self._context.deadline_ns(),
            part_id=path.relative_to(self._root).as_posix(),
            fault=fault,
        )


def create(config: Config, context: SourceContext) -> FolderSource:
    """Lists the folder.

    Raises:
        InputError: It does not exist or holds no image.
    """
    return FolderSource(config, context)
