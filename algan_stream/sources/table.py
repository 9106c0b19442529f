"""A table of feature vectors as a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np

from algan_stream.sources.base import Payload, Source, SourceContext, played
from algan_stream.tables import read_table, require_fit
from algan_stream.types import Frame, VectorSpec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source with `kind: table`.

    Attributes:
        path: `.npy` or `.csv`, one vector a row.
        fps: Rows per second; 0 = as fast as they are scored.
        loop: Begin again after the last row.
        shuffle: Play in random order, another one in each round.
        seed: Of that order.
    """

    kind: Literal["table"] = "table"
    path: str
    fps: float = 0.0
    loop: bool = False
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fps <= 1_000_000:
            raise ValueError(f"fps: expected 0 to 1000000, got {self.fps}")


class TableSource(Source):
    """Plays rows; `part_id` is the row's `id`, or its number."""

    payloads: tuple[Payload, ...] = ("vector",)
    on_demand: ClassVar[bool] = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__()
        self._config, self._context = config, context
        self._table = read_table(Path(config.path))
        if isinstance(context.spec, VectorSpec):
            require_fit(self._table, context.spec)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yields each row, also one with a number missing: that is for the pipeline to answer."""
        config, rows = self._config, range(len(self._table.values))
        seed = config.seed if config.shuffle else None
        for frame_id, row in played(rows, stop, fps=config.fps, loop=config.loop, seed=seed):
            yield self._frame(row, frame_id)

    def _frame(self, row: int, frame_id: int) -> Frame:
        return Frame(
            camera=self._context.camera,
            frame_id=frame_id,
            image=np.zeros((0, 0), np.uint8),
            pixel_format="grey8",
            vector=self._table.values[row],
            captured_ns=time.time_ns(),
            deadline_ns=self._context.deadline_ns(),
            part_id=self._table.row_name(row),
        )


def create(config: Config, context: SourceContext) -> TableSource:
    """Reads the table.

    Raises:
        InputError: It cannot be read, or does not fit the bundle.
    """
    return TableSource(config, context)
