"""The accounts: every frame and every box that a source announced ends in exactly one outcome."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from algan_stream.errors import LedgerError
from algan_stream.types import Outcome, VerdictKind

#: What a reason's code looks like. Codes name metrics' series and must not grow without bound.
_CODE = re.compile(r"[a-z0-9_]{1,64}")


class Tally(msgspec.Struct, kw_only=True):
    """Counts of one kind of thing, frames or boxes; `received` is the sum of all others."""

    received: int = 0
    scored: int = 0
    dropped: int = 0
    expired: int = 0
    failed: int = 0
    in_flight: int = 0


class CameraAccount(msgspec.Struct, kw_only=True):
    """The accounts of one camera.

    Attributes:
        frames: Frames by outcome.
        boxes: Boxes by outcome; a whole frame counts no box.
        reasons: How often each reason's code stood beside dropped, expired or failed.
        ended: Ended frames by outcome, then by the reason's code; "" for scored.
        verdicts: The same frames by the verdict that went out, then by its reason's code; "" for pass.
        missing: Frames lost before they reached us, seen as gaps in the source's count.
    """

    frames: Tally
    boxes: Tally
    reasons: dict[str, int]
    ended: dict[str, dict[str, int]]
    verdicts: dict[str, dict[str, int]]
    missing: int


@dataclass
class _Book:
    received: int = 0
    received_boxes: int = 0
    ended: Counter[tuple[Outcome, str]] = field(default_factory=Counter)
    verdicts: Counter[tuple[VerdictKind, str]] = field(default_factory=Counter)
    boxes: Counter[Outcome] = field(default_factory=Counter)
    open: dict[int, int] = field(default_factory=dict)  # entry → number of its boxes
    missing: int = 0


class Ledger:
    """Thread-safe double-entry accounts: what came in is counted apart from what is still open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._books: dict[str, _Book] = {}
        self._entries = itertools.count()

    def open(self, camera: str, boxes: int = 0) -> int:
        """Enters an announced frame with its number of boxes; returns the entry that `close` needs."""
        with self._lock:
            book = self._books.setdefault(camera, _Book())
            entry = next(self._entries)
            book.received += 1
            book.received_boxes += boxes
            book.open[entry] = boxes
            return entry

    def close(
        self,
        camera: str,
        entry: int,
        outcome: Outcome,
        reason: str = "",
        box_outcomes: Sequence[Outcome] | None = None,
        said: tuple[VerdictKind, str] = (VerdictKind.UNKNOWN, ""),
    ) -> None:
        """Ends a frame. Boxes share its outcome unless each has its own.

        Of a reason only the code before a colon is counted: details differ from frame to frame, and the
        books of a line that runs for months must not grow with them.

        Args:
            camera: Whose frame.
            entry: What `open` gave.
            outcome: The frame's.
            reason: Of an outcome other than scored.
            box_outcomes: One for each announced box.
            said: The verdict that goes out on it, and why.

        Raises:
            LedgerError: The entry is not open, or the number of boxes is not the announced one.
        """
        with self._lock:
            book = self._books.get(camera)
            boxes = book.open.get(entry) if book else None
            if book is None or boxes is None:
                raise LedgerError(f"camera {camera}: entry {entry} ended twice or was never received")
            ends = list(box_outcomes) if box_outcomes is not None else [outcome] * boxes
            if len(ends) != boxes:
                raise LedgerError(f"camera {camera}: {boxes} boxes were announced, {len(ends)} ended")
            del book.open[entry]
            book.ended[outcome, "" if outcome is Outcome.SCORED else _code(reason)] += 1
            book.verdicts[said[0], _code(said[1])] += 1
            book.boxes.update(ends)

    def missed(self, camera: str, frames: int) -> None:
        """Counts frames that were lost before they reached us."""
        with self._lock:
            self._books.setdefault(camera, _Book()).missing += frames

    def snapshot(self) -> dict[str, CameraAccount]:
        """The accounts of all cameras at one moment.

        Raises:
            LedgerError: They do not add up.
        """
        with self._lock:
            accounts = {camera: _account(book) for camera, book in sorted(self._books.items())}
        for camera, account in accounts.items():
            _check(camera, "frames", account.frames)
            _check(camera, "boxes", account.boxes)
        return accounts


def _account(book: _Book) -> CameraAccount:
    frames: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    for (outcome, code), count in book.ended.items():
        frames[outcome] += count
        if outcome is not Outcome.SCORED:
            reasons[code] += count
    return CameraAccount(
        frames=_tally(book.received, frames, len(book.open)),
        boxes=_tally(book.received_boxes, book.boxes, sum(book.open.values())),
        reasons=dict(sorted(reasons.items())),
        ended=_nested(book.ended),
        verdicts=_nested(book.verdicts),
        missing=book.missing,
    )


def _nested(counts: Counter[Any]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (kind, code), count in sorted(counts.items()):
        nested.setdefault(kind.value, {})[code] = count
    return nested


def _code(reason: str) -> str:
    """The part of a reason that is the same for all frames of a kind; `other` for one that has none."""
    if not reason:  # asked for every frame, and nearly all have none
        return ""
    code = reason.partition(":")[0]
    return code if _CODE.fullmatch(code) else "other"


def _tally(received: int, ended: Counter[Outcome], in_flight: int) -> Tally:
    return Tally(
        received=received,
        scored=ended[Outcome.SCORED],
        dropped=ended[Outcome.DROPPED],
        expired=ended[Outcome.EXPIRED],
        failed=ended[Outcome.FAILED],
        in_flight=in_flight,
    )


def _check(camera: str, what: str, tally: Tally) -> None:
    accounted = tally.scored + tally.dropped + tally.expired + tally.failed + tally.in_flight
    if tally.received != accounted:
        raise LedgerError(f"camera {camera}: {tally.received} {what} received but {accounted} accounted for")
