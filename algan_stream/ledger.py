"""The accounts: every frame and every box that a source announced ends in exactly one outcome."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from algan_stream.errors import LedgerError
from algan_stream.types import Outcome


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
        missing: Frames lost before they reached us, seen as gaps in the source's count.
    """

    frames: Tally
    boxes: Tally
    reasons: dict[str, int]
    missing: int


@dataclass
class _Book:
    received: int = 0
    received_boxes: int = 0
    frames: Counter[Outcome] = field(default_factory=Counter)
    boxes: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
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
    ) -> None:
        """Ends a frame. Boxes share its outcome unless each has its own.

        Of the reason only the code before a colon is counted: details differ from frame to frame, and the
        books of a line that runs for months must not grow with them.

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
            book.frames[outcome] += 1
            book.boxes.update(ends)
            if outcome is not Outcome.SCORED:
                book.reasons[reason.partition(":")[0]] += 1

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
            accounts = {
                camera: CameraAccount(
                    frames=_tally(book.received, book.frames, len(book.open)),
                    boxes=_tally(book.received_boxes, book.boxes, sum(book.open.values())),
                    reasons=dict(sorted(book.reasons.items())),
                    missing=book.missing,
                )
                for camera, book in sorted(self._books.items())
            }
        for camera, account in accounts.items():
            _check(camera, "frames", account.frames)
            _check(camera, "boxes", account.boxes)
        return accounts


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
