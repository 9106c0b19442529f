"""A receiver that is dead, slow or wrong delays no verdict, and costs none that must not be lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from algan_stream import plugins
from algan_stream.errors import ConfigError, SinkRefusedError
from algan_stream.sinks.backlog import FileBacklog
from algan_stream.sinks.base import Sink
from algan_stream.sinks.breaker import Breaker
from algan_stream.sinks.jsonl import JsonlSink
from algan_stream.sinks.outlet import DeliveryConfig, Outlet, open_sink
from algan_stream.types import FrameVerdict, Outcome, VerdictKind

_QUICK: dict[str, Any] = {"retry_first_s": 0.001, "retry_most_s": 0.01, "drain_s": 5.0}


def _verdict(frame_id: int) -> FrameVerdict:
    kind = VerdictKind.PASS
    return FrameVerdict(
        camera="cam", frame_id=frame_id, verdict=kind, outcome=Outcome.SCORED, captured_ns=frame_id
    )


class Receiver:
    """What stands behind the sinks: takes, hangs, fails or refuses, as the test wishes."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.opened = 0
        self.closed = 0
        self.down = False
        self.up = threading.Event()
        self.up.set()
        self.refuses: frozenset[int] = frozenset()

    def open(self) -> Sink:
        receiver = self
        receiver.opened += 1

        class _Sink(Sink):
            waits = True

            def write(self, verdict: FrameVerdict) -> None:
                receiver.up.wait(30)
                if receiver.down:
                    raise ConnectionError("gone")
                if verdict.frame_id in receiver.refuses:
                    raise SinkRefusedError("no such part")
                receiver.got.append(verdict.frame_id)

            def close(self) -> None:
                receiver.closed += 1

        return _Sink()


@contextmanager
def _outlet(receiver: Receiver, **config: Any) -> Iterator[Outlet]:
    outlet = Outlet("sinks[0]", receiver.open, receiver.open(), DeliveryConfig(**{**_QUICK, **config}))
    yield outlet
    outlet.close()


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@pytest.fixture(params=["memory", "spill"])
def waiting(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {} if request.param == "memory" else {"spill": str(tmp_path / "spill")}


def test_everything_in_order(waiting: dict[str, Any]) -> None:
    receiver = Receiver()
    with _outlet(receiver, **waiting) as outlet:
        for i in range(500):
            outlet.write(_verdict(i))
    assert receiver.got == list(range(500))
    assert outlet.counts().delivered == 500
    assert outlet.counts().waiting == outlet.counts().lost == outlet.counts().failures == 0
    assert (receiver.opened, receiver.closed) == (1, 1)


def test_a_receiver_that_hangs_delays_nobody(waiting: dict[str, Any]) -> None:
    receiver = Receiver()
    receiver.up.clear()
    with _outlet(receiver, **waiting) as outlet:
        for i in range(300):
            outlet.write(_verdict(i))  # would hang here
        assert outlet.counts().waiting == 300
        receiver.up.set()
    assert receiver.got == list(range(300))


def test_a_receiver_that_goes_and_comes_back(waiting: dict[str, Any]) -> None:
    receiver = Receiver()
    with _outlet(receiver, **waiting) as outlet:
        for i in range(100):
            receiver.down = 30 <= i < 70
            outlet.write(_verdict(i))
            if i == 50:
                _until(lambda: outlet.counts().failures >= 3)
    assert receiver.got == list(range(100))
    assert outlet.counts().lost == 0
    assert receiver.opened == outlet.counts().failures + 1  # each time by a new connection
    assert receiver.closed == receiver.opened


def test_refused_for_good_holds_up_nothing(waiting: dict[str, Any]) -> None:
    receiver = Receiver()
    receiver.refuses = frozenset({3, 4, 9})
    with _outlet(receiver, **waiting) as outlet:
        for i in range(12):
            outlet.write(_verdict(i))
    assert receiver.got == [0, 1, 2, 5, 6, 7, 8, 10, 11]
    assert (outlet.counts().refused, outlet.counts().failures) == (3, 0)


def test_a_full_memory_loses_the_oldest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.up.clear()
    with _outlet(receiver, queue_size=5) as outlet:
        outlet.write(_verdict(0))
        _until(lambda: outlet.counts().waiting == 1 and not outlet._more.is_set())
        time.sleep(0.05)  # it is in the receiver's hands now
        for i in range(1, 11):
            outlet.write(_verdict(i))
        assert outlet.counts().lost == 5
        receiver.up.set()
    assert receiver.got == [0, 6, 7, 8, 9, 10]
    counts = outlet.counts()
    assert counts.delivered + counts.lost == 11
    assert "verdicts are lost for it" in caplog.text


def test_the_end_waits_for_a_dead_receiver_no_longer_than_told() -> None:
    receiver = Receiver()
    receiver.down = True
    with _outlet(receiver, drain_s=0.2) as outlet:
        for i in range(10):
            outlet.write(_verdict(i))
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert outlet.counts().lost == 10
    outlet.close()  # may be called twice
    assert outlet.counts().lost == 10


def test_several_outlets_drain_at_once() -> None:
    receivers = [Receiver() for _ in range(4)]
    outlets = []
    for receiver in receivers:
        receiver.down = True
        config = DeliveryConfig(**{**_QUICK, "drain_s": 1.5})
        outlets.append(Outlet("sinks[0]", receiver.open, receiver.open(), config))
        outlets[-1].write(_verdict(0))
    started = time.monotonic()
    for outlet in outlets:
        outlet.begin_close()
    for outlet in outlets:
        outlet.close()
    assert time.monotonic() - started < 4.5  # one after the other would take 6
    assert [outlet.counts().lost for outlet in outlets] == [1] * 4


def test_the_end_does_not_wait_for_a_receiver_that_hangs() -> None:
    receiver = Receiver()
    receiver.up.clear()
    with _outlet(receiver, drain_s=0.1) as outlet:
        outlet.write(_verdict(0))
    assert receiver.closed == 0  # it is still in use
    receiver.up.set()


def test_spilt_verdicts_are_delivered_after_a_restart(tmp_path: Path) -> None:
    spill = str(tmp_path / "spill")
    receiver = Receiver()
    receiver.down = True
    with _outlet(receiver, spill=spill, drain_s=0.1) as outlet:
        for i in range(40):
            outlet.write(_verdict(i))
    assert outlet.counts().lost == 0
    receiver.down = False
    with _outlet(receiver, spill=spill) as outlet:
        for i in range(40, 50):
            outlet.write(_verdict(i))
    assert receiver.got == list(range(50))


def test_a_record_of_another_version_in_the_spill_folder(tmp_path: Path) -> None:
    backlog = FileBacklog(tmp_path / "spill", 1 << 20)
    backlog.put(b"no verdict")
    backlog.close()
    receiver = Receiver()
    with _outlet(receiver, spill=str(tmp_path / "spill")) as outlet:
        outlet.write(_verdict(1))
    assert receiver.got == [1]
    assert outlet.counts().refused == 1


def test_any_sink_can_have_an_outlet(tmp_path: Path) -> None:
    section = {"kind": "jsonl", "path": str(tmp_path / "v.jsonl")}
    plain = open_sink(section, "sinks[0]")
    assert isinstance(plain, JsonlSink)
    plain.close()
    outlet = open_sink({**section, "delivery": {"spill": str(tmp_path / "spill")}}, "sinks[0]")
    assert isinstance(outlet, Outlet)
    outlet.write(_verdict(7))
    outlet.close()
    assert b'"frame_id":7' in (tmp_path / "v.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("delivery", "message"),
    [
        ({"queue_size": 0}, r"sinks\[1\]\.delivery: .*queue_size: expected 1 to"),
        ({"retry_first_s": 2.0, "retry_most_s": 1.0}, "retry_most_s: expected 2 to 3600, got 1"),
        ({"spil": "x"}, r"sinks\[1\]\.delivery\.spil: unknown key"),
        ({"spill": "/dev/null/x"}, r"sinks\[1\]: spill: cannot use"),
    ],
)
def test_a_wrong_delivery(delivery: dict[str, Any], message: str, tmp_path: Path) -> None:
    section = {"kind": "jsonl", "path": str(tmp_path / "v.jsonl"), "delivery": delivery}
    with pytest.raises(ConfigError, match=message):
        open_sink(section, "sinks[1]")


def test_outlets_are_no_kind_of_sink() -> None:
    assert {"outlet", "backlog"}.isdisjoint(plugins.kinds("sinks"))


def test_a_circuit_opens_is_probed_and_closes() -> None:
    breaker = Breaker(open_after=3, first_s=1.0, most_s=8.0)
    waits = []
    for state in ("closed", "closed", "open", "open", "open", "open"):
        breaker.begin()
        waits.append(breaker.failed())
        assert breaker.state == state
        breaker.begin()
        assert breaker.state == ("half_open" if state == "open" else "closed")
    for wait_s, longest_s in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest_s / 2 <= wait_s <= longest_s
    assert breaker.succeeded() == 6
    assert (breaker.state, breaker.failures) == ("closed", 0)
    assert breaker.failed() <= 1.0


def test_the_state_of_the_circuit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.down = True
    with _outlet(receiver, open_after=2) as outlet:
        outlet.write(_verdict(0))
        _until(lambda: outlet.counts().circuit == "open")
        _until(lambda: outlet.counts().failures >= 6)
        receiver.down = False
        _until(lambda: outlet.counts().delivered == 1)
        assert outlet.counts().circuit == "closed"
    told = [(record.levelname, record.message) for record in caplog.records]
    assert [level for level, _ in told] == ["ERROR", "WARNING", "WARNING"]  # not one for each attempt
    assert "nothing can be delivered: gone" in told[0][1]
    assert "2 attempts failed; from now on it is tried at most every 0.01 s" in told[1][1]
    assert "works again after" in told[2][1]


def test_refusals_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.refuses = frozenset(range(50))
    with _outlet(receiver) as outlet:
        for i in range(60):
            outlet.write(_verdict(i))
    assert (outlet.counts().refused, outlet.counts().delivered) == (50, 10)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "sinks[0]: refused for good: no such part"
    ]
