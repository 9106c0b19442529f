"""The accounts add up at every moment, whatever happens, from any number of threads."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from algan_stream.errors import LedgerError
from algan_stream.ledger import Ledger, Tally
from algan_stream.types import Outcome, VerdictKind

_outcomes = st.sampled_from(Outcome)


class Books(RuleBasedStateMachine):
    """Random frames against the simplest bookkeeping there is: one list of what happened."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.open: dict[tuple[str, int], int] = {}
        self.ended: list[tuple[str, Outcome, list[Outcome]]] = []
        self.missing = {"a": 0, "b": 0}

    @rule(target=entries, camera=st.sampled_from("ab"), boxes=st.integers(0, 4))
    def receive(self, camera: str, boxes: int) -> tuple[str, int]:
        entry = self.ledger.open(camera, boxes)
        self.open[camera, entry] = boxes
        return camera, entry

    @rule(which=consumes(entries), outcome=_outcomes, data=st.data())
    def end(self, which: tuple[str, int], outcome: Outcome, data: st.DataObject) -> None:
        boxes = self.open.pop(which)
        own = data.draw(st.none() | st.lists(_outcomes, min_size=boxes, max_size=boxes))
        self.ledger.close(*which, outcome, "why", own)
        self.ended.append((which[0], outcome, [outcome] * boxes if own is None else own))
        with pytest.raises(LedgerError, match="ended twice"):
            self.ledger.close(*which, outcome, "again")

    @rule(which=entries, extra=st.sampled_from([-1, 1]))
    def end_with_wrong_boxes(self, which: tuple[str, int], extra: int) -> None:
        boxes = self.open[which]
        if boxes + extra >= 0:
            with pytest.raises(LedgerError, match=f"{boxes} boxes were announced, {boxes + extra} ended"):
                self.ledger.close(*which, Outcome.SCORED, "", [Outcome.SCORED] * (boxes + extra))

    @rule(camera=st.sampled_from("ab"), frames=st.integers(1, 5))
    def lose(self, camera: str, frames: int) -> None:
        self.ledger.missed(camera, frames)
        self.missing[camera] += frames

    @invariant()
    def adds_up(self) -> None:
        for camera, account in self.ledger.snapshot().items():
            ended = [(outcome, boxes) for name, outcome, boxes in self.ended if name == camera]
            still_open = [boxes for (name, _), boxes in self.open.items() if name == camera]
            assert account.frames == _tally([outcome for outcome, _ in ended], len(still_open))
            assert account.boxes == _tally([b for _, boxes in ended for b in boxes], sum(still_open))
            unscored = sum(outcome is not Outcome.SCORED for outcome, _ in ended)
            assert account.reasons == ({"why": unscored} if unscored else {})
            assert sum(count for codes in account.ended.values() for count in codes.values()) == len(ended)
            assert account.verdicts == ({"unknown": {"": len(ended)}} if ended else {})  # unless one was said
            assert account.missing == self.missing[camera]


def _tally(ended: list[Outcome], in_flight: int) -> Tally:
    counts = {outcome.value: ended.count(outcome) for outcome in Outcome}
    return Tally(received=len(ended) + in_flight, in_flight=in_flight, **counts)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=25)


def test_an_entry_of_another_camera_or_none_at_all_is_refused() -> None:
    ledger = Ledger()
    entry = ledger.open("a")
    for camera, wrong in (("b", entry), ("a", entry + 1), ("nobody", 0)):
        with pytest.raises(LedgerError, match="ended twice or was never received"):
            ledger.close(camera, wrong, Outcome.SCORED)
    assert ledger.snapshot()["a"].frames == Tally(received=1, in_flight=1)


def test_books_that_do_not_add_up_are_an_error() -> None:
    ledger = Ledger()
    ledger.open("a", 2)
    ledger._books["a"].received += 1
    with pytest.raises(LedgerError, match="camera a: 2 frames received but 1 accounted for"):
        ledger.snapshot()


def test_reasons_are_counted_by_code_so_that_their_number_stays_bounded() -> None:
    ledger = Ledger()
    for i in range(5):
        ledger.close("a", ledger.open("a"), Outcome.FAILED, f"bad_image: line {i} of file {i}.png")
    ledger.close("a", ledger.open("a"), Outcome.DROPPED, "queue_full")
    assert ledger.snapshot()["a"].reasons == {"bad_image": 5, "queue_full": 1}


def test_ends_and_verdicts_are_told_by_their_codes() -> None:
    ledger = Ledger()

    def end(outcome: Outcome, reason: str, verdict: VerdictKind, why: str) -> None:
        ledger.close("a", ledger.open("a"), outcome, reason, None, (verdict, why))

    end(Outcome.SCORED, "not looked at", VerdictKind.PASS, "")
    end(Outcome.SCORED, "", VerdictKind.REJECT, "score_above_threshold")
    end(Outcome.SCORED, "", VerdictKind.REJECT, "score_above_threshold")
    end(Outcome.EXPIRED, "late", VerdictKind.UNKNOWN, "late")
    end(Outcome.FAILED, "bad_image: a", VerdictKind.UNKNOWN, "bad_image: a")
    end(Outcome.FAILED, "Somebody else's words", VerdictKind.UNKNOWN, "x" * 65)
    account = ledger.snapshot()["a"]
    assert account.ended == {
        "expired": {"late": 1},
        "failed": {"bad_image": 1, "other": 1},
        "scored": {"": 3},
    }
    assert account.verdicts == {
        "pass": {"": 1},
        "reject": {"score_above_threshold": 2},
        "unknown": {"late": 1, "bad_image": 1, "other": 1},
    }
    assert account.reasons == {"late": 1, "bad_image": 1, "other": 1}


def test_many_threads() -> None:
    ledger, frames, sums_seen = Ledger(), 400, []
    stop = threading.Event()

    def work(camera: str) -> None:
        for i in range(frames):
            entry = ledger.open(camera, i % 3)
            ledger.close(camera, entry, list(Outcome)[i % 4], "why")

    def watch() -> None:
        while not stop.is_set():
            sums_seen.append(len(ledger.snapshot()))  # raises if they do not add up

    threads = [threading.Thread(target=work, args=(camera,)) for camera in "aabbcc"]
    watcher = threading.Thread(target=watch)
    for thread in (*threads, watcher):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()
    assert sums_seen
    for account in ledger.snapshot().values():
        assert (account.frames.received, account.frames.in_flight) == (2 * frames, 0)
        assert account.frames.scored == account.frames.failed == frames / 2
