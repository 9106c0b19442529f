"""An engine that fails on demand, as a plugin from outside; its own `dist-info` makes it one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle
from algan_stream.engines import openvino
from algan_stream.engines.base import Engine, Slot


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`kind: faulty`; fails while the file `flag` exists: to start, or to finish, as it says."""

    kind: Literal["faulty"]
    flag: str


def create(bundle: Bundle, config: Config) -> Engine:
    engine = openvino.create(bundle, openvino.Config(kind="openvino", threads=1, max_batch=4))
    start: Any = engine._start
    finish: Any = engine._finish
    flag = Path(config.flag)

    def says(word: str) -> bool:
        return flag.exists() and flag.read_text() == word

    def faulty_start(slot: Slot, count: int) -> None:
        if says("start"):
            raise RuntimeError("the device is gone")
        start(slot, count)

    def faulty_finish(slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = finish(slot, timeout_s)
        if says("finish"):
            raise RuntimeError("the device is gone")
        return logits

    engine._start, engine._finish = faulty_start, faulty_finish  # type: ignore[method-assign]
    return engine


def install(folder: Path) -> str:
    """Makes it a plugin for a process with the returned folders on PYTHONPATH."""
    info = folder / "faulty_engine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[algan_stream.engines]\nfaulty = faulty_engine\n")
    return f"{folder}:{Path(__file__).parent}"
