"""What a model's verdicts have been of late: the shares that a trial compares."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec

from algan_stream.model import Model
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, Outcome, VerdictKind

#: Unknowns that an engine is to blame for.
ENGINE_FAULTS = frozenset({"engine_error", "engine_stuck", "score_not_finite"})
#: Unknowns that a model or its slowness is to blame for; all others come from cameras, clients and operators.
_BLAMED = ENGINE_FAULTS | {"not_calibrated", "late", "expired", "queue_full"}
#: Models remembered at the same time: before, now, and what a rollback came from.
_MODELS = 4
_PASS, _REJECT, _UNKNOWN, _ENGINE_FAULT = range(4)

_Key: TypeAlias = tuple[str, float | None, str]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts of one model on its latest frames.

    Attributes:
        frames: How many, without those that are unknown for no fault of the model.
        unknown: Share of them that are unknown.
        reject: Share of rejects among the judged ones; None where none was judged.
        engine_faults: Frames that the engine failed on.
    """

    frames: int = 0
    unknown: float = 0.0
    reject: float | None = None
    engine_faults: int = 0


class Outcomes(Sink):
    """Counts the verdicts of each model over its latest frames.

    Args:
        window: Frames that are looked back on.
    """

    def __init__(self, window: int) -> None:
        self.only = "frames"  # a part's scores are those of its frames
        self._size = window
        self._windows: dict[_Key, _Window] = {}

    def write(self, verdict: FrameVerdict) -> None:
        """Counts one verdict."""
        if (code := _code(verdict)) is None:
            return
        key = (verdict.model, verdict.threshold, verdict.engine)
        window = self._windows.get(key)
        if window is None:
            while len(self._windows) >= _MODELS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = _Window(self._size)
        window.add(code)

    def rates(self, model: Model) -> Rates:
        """How a model has judged; safe from any thread."""
        window = self._windows.get(_key(model))
        return Rates() if window is None else window.rates()

    def forget(self, model: Model) -> None:
        """Begins anew with a model, which served before."""
        self._windows.pop(_key(model), None)


class _Window:
    def __init__(self, size: int) -> None:
        self._codes: deque[int] = deque()
        self._size, self._counts = size, [0, 0, 0, 0]

    def add(self, code: int) -> None:
        if len(self._codes) == self._size:
            self._counts[self._codes.popleft()] -= 1
        self._codes.append(code)
        self._counts[code] += 1

    def rates(self) -> Rates:
        passed, rejected, unknown, faults = self._counts
        frames, judged = sum((passed, rejected, unknown, faults)), passed + rejected
        return Rates(
            frames=frames,
            unknown=(unknown + faults) / max(1, frames),
            reject=rejected / judged if judged else None,
            engine_faults=faults,
        )


def _key(model: Model) -> _Key:
    return model.name, model.threshold, model.engine_name


def _code(verdict: FrameVerdict) -> int | None:
    if verdict.outcome is Outcome.FAILED and any(box.reason in ENGINE_FAULTS for box in verdict.boxes):
        return _ENGINE_FAULT  # also where another box of the frame is a reject
    if verdict.verdict is VerdictKind.UNKNOWN:
        return _UNKNOWN if verdict.reason in _BLAMED else None
    return _REJECT if verdict.verdict is VerdictKind.REJECT else _PASS
