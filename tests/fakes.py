"""Stand-ins: an engine whose answers and failures a test controls, a bundle without files, sinks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import MODEL, Bundle, FileEntry, Manifest
from algan_stream.calibration import with_raw_threshold
from algan_stream.engines.base import Engine, EngineIdentity, Slot
from algan_stream.sinks.base import Sink
from algan_stream.types import Frame, FrameVerdict, InputSpec

SPEC = InputSpec(height_px=4, width_px=4)


class FakeEngine(Engine):
    """The logit is minus the mean of the input's first plane, so the score grows with brightness: −1 to 1.

    Reads its slots as late as it can, at `collect`, so that a slot written too early is noticed.

    Args:
        max_batch: Most images in one batch.
        streams: Batches that run at the same time.
        delay_s: Time that each batch takes.
        patience_s: Longest wait for a slot and for an answer.
        on_start: Called with the batch's number when it is submitted; may raise.
        on_finish: Called with the batch's number and its logits; returns the logits to give; may raise.
    """

    def __init__(
        self,
        *,
        max_batch: int = 4,
        streams: int = 1,
        delay_s: float = 0.0,
        patience_s: float = 60.0,
        on_start: Callable[[int], None] | None = None,
        on_finish: Callable[[int, npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None,
        spec: InputSpec = SPEC,
    ) -> None:
        identity = EngineIdentity("fake", "1", "none", "fp32", threads=1)
        super().__init__(identity, spec, max_batch, slot_count=2 * streams + 1, streams=streams)
        #: Cleared: batches hang until it is set again.
        self.release = threading.Event()
        self.release.set()
        self.batch_sizes: list[int] = []
        self.closed = 0
        self._delay_s, self.patience_s = delay_s, patience_s
        self._on_start, self._on_finish = on_start, on_finish
        self._running: dict[int, tuple[int, int]] = {}

    def close(self) -> None:
        self.closed += 1

    def _start(self, slot: Slot, count: int) -> None:
        number = len(self.batch_sizes)
        self.batch_sizes.append(count)
        if self._on_start:
            self._on_start(number)
        self._running[slot.index] = (number, count)

    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        number, count = self._running.pop(slot.index)
        time.sleep(self._delay_s)
        if not self.release.wait(timeout_s):
            raise TimeoutError
        logits = -slot.inputs_nchw[:count, 0].mean(axis=(1, 2))
        return self._on_finish(number, logits) if self._on_finish else logits


def fake_bundle(threshold: float | None = 0.0, spec: InputSpec = SPEC) -> Bundle:
    """A bundle of a manifest alone: enough for everything that does not load the model."""
    scores = np.linspace(-1.0, 0.0, 99)
    manifest = Manifest(
        format_version=1,
        name="fake",
        model_kind="algan-image",
        input_spec=spec,
        tolerance={"fp32": 1e-4},
        calibration=None if threshold is None else with_raw_threshold(scores, threshold),
        files={MODEL: FileEntry("0" * 64, 0)},
    )
    return Bundle(Path("no-such-bundle"), manifest)


class ListSink(Sink):
    """Keeps the verdicts."""

    def __init__(self) -> None:
        self.verdicts: list[FrameVerdict] = []
        self.closed = 0

    def write(self, verdict: FrameVerdict) -> None:
        self.verdicts.append(verdict)

    def close(self) -> None:
        self.closed += 1


class BrokenSink(ListSink):
    """Takes nothing and cannot even be closed."""

    def write(self, verdict: FrameVerdict) -> None:
        raise OSError(f"no space left for frame {verdict.frame_id}")

    def close(self) -> None:
        raise OSError("cannot be closed")


def grey_frame(frame_id: int = 0, brightness: int = 0, camera: str = "cam", **more: object) -> Frame:
    """A frame of one brightness; `FakeEngine` scores it `brightness / 127.5 − 1`."""
    image = np.full((8, 8), brightness, np.uint8)
    frame = Frame(camera, frame_id, image, "grey8", captured_ns=time.time_ns(), part_id=f"part-{frame_id}")
    for name, value in more.items():
        setattr(frame, name, value)
    return frame
