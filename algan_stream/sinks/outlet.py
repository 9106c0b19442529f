"""A sink that waits for something outside gets a queue and a thread, so that no verdict waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from algan_stream import plugins, wire
from algan_stream.doorman import Doorman
from algan_stream.errors import ConfigError, PluginError, ProtocolError, SinkRefusedError
from algan_stream.logs import Seldom
from algan_stream.ranges import check_ranges
from algan_stream.sinks.backlog import Backlog, FileBacklog, MemoryBacklog
from algan_stream.sinks.base import DeliveryCounts, QueuedSink, Sink
from algan_stream.sinks.breaker import Breaker
from algan_stream.types import FrameVerdict

log = logging.getLogger(__name__)

#: Longest wait between two attempts while the service stops.
_LAST_RETRY_S = 0.5


class DeliveryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Key `delivery` of a sink.

    Attributes:
        queue_size: Most verdicts that wait in memory; then the oldest are lost, and counted.
        spill: Folder for verdicts that must not be lost: they wait on disk instead, also across restarts, and
            are delivered in order when the receiver is back. At least once: after a kill, the last may come
            twice (camera and frame_id tell).
        spill_max_mb: Most that waits there; then the newest are lost, and counted.
        retry_first_s: Wait after the first failure; it doubles with each further one.
        retry_most_s: Longest wait between two attempts.
        open_after: Failures in a row after which the circuit counts as open: the receiver is away, and is
            only tried now and then.
        drain_s: How long a stop waits for what is still to be delivered.
    """

    queue_size: int = 10_000
    spill: str | None = None
    spill_max_mb: int = 1024
    retry_first_s: float = 0.2
    retry_most_s: float = 10.0
    open_after: int = 3
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        check_ranges(
            ("queue_size", self.queue_size, 1, 10_000_000),
            ("spill_max_mb", self.spill_max_mb, 1, 1_000_000),
            ("retry_first_s", self.retry_first_s, 0.001, 3600),
            ("retry_most_s", self.retry_most_s, self.retry_first_s, 3600),
            ("open_after", self.open_after, 1, 1000),
            ("drain_s", self.drain_s, 0, 3600),
        )


class Outlet(QueuedSink):
    """Delivers to a sink from a thread of its own, in order, and again until it is taken.

    While the receiver is gone, one attempt at a time is made, at growing intervals; whatever the receiver
    does, `write` returns at once.

    Args:
        name: Names the sink in messages.
        open_sink: Makes the sink; called again after a failure, since a broken connection is best made anew.
        sink: The first one, already open.
        config: How verdicts wait.

    Raises:
        ConfigError: The spill folder cannot be used.
    """

    def __init__(self, name: str, open_sink: Callable[[], Sink], sink: Sink, config: DeliveryConfig) -> None:
        self.name, self._open_sink, self._config = name, open_sink, config
        self._sink: Sink | None = sink
        self._backlog: Backlog = (
            MemoryBacklog(config.queue_size)
            if config.spill is None
            else FileBacklog(Path(config.spill), config.spill_max_mb << 20)
        )
        self._counts = DeliveryCounts()
        self._breaker = Breaker(config.open_after, config.retry_first_s, config.retry_most_s)
        self._refusals, self._refused_in_a_row = Seldom(), 0
        self._tick_s = sink.tick_s
        self._more = threading.Event()
        self._stopping = threading.Event()
        self._closed = False
        self._give_up = float("inf")
        self._thread = threading.Thread(target=self._deliver_all, name=f"outlet-{name}", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str | None:
        """Where the sink can be reached, if it listens."""
        return getattr(self._sink, "endpoint", None)

    @property
    def doorman(self) -> Doorman | None:
        """Who decides about connections to the sink, if it listens with keys."""
        return getattr(self._sink, "doorman", None)

    def write(self, verdict: FrameVerdict) -> None:
        """Puts a verdict into the queue."""
        if lost := self._backlog.put(wire.encode(verdict)):
            if self._counts.lost == 0:
                full = (
                    "queue"
                    if self._config.spill is None
                    else f"spill folder {self._config.spill} or its disk"
                )
                log.error("%s: its %s is full; verdicts are lost for it from now on", self.name, full)
            self._counts.lost += lost
        self._more.set()

    def counts(self) -> DeliveryCounts:
        """What became of the verdicts, at this moment."""
        return msgspec.structs.replace(self._counts, waiting=len(self._backlog), circuit=self._breaker.state)

    def begin_close(self) -> None:
        """Lets the time for `close` begin, without waiting: several outlets then drain at once."""
        if self._stopping.is_set():
            return
        self._give_up = time.monotonic() + self._config.drain_s
        self._stopping.set()
        self._more.set()

    def close(self) -> None:
        """Delivers what waits, for `drain_s`; the rest is lost, or stays in the spill folder."""
        if self._closed:
            return
        self.begin_close()
        self._closed = True
        self._thread.join(max(0.0, self._give_up - time.monotonic()) + 1.0)
        if left := len(self._backlog):
            where = "they wait in the spill folder" if self._config.spill else "they are lost for it"
            log.warning("%s: %d verdicts are not delivered; %s", self.name, left, where)
        stuck = self._thread.is_alive()  # in the receiver's hands; it must not find the file gone
        self._counts.lost += 0 if stuck and self._config.spill else self._backlog.close()
        if self._sink is not None and not stuck:
            self._sink.close()

    def _deliver_all(self) -> None:
        while time.monotonic() < self._give_up:
            record = self._backlog.peek()
            if record is None and self._stopping.is_set():
                return
            if record is None and not self._more.wait(self._tick_s):
                self._attempt(None)
                continue
            self._more.clear()
            if record is not None and self._attempt(record):
                self._backlog.pop()

    def _attempt(self, record: bytes | None) -> bool:
        """Delivers a record, or a sign of life for None; returns whether the record is done with."""
        self._breaker.begin()
        try:
            if self._sink is None:
                self._sink = self._open_sink()
            if record is None:
                self._sink.tick()
            else:
                self._sink.write(wire.decode_verdict(record))
        except (SinkRefusedError, ProtocolError) as error:  # the latter: spilt by another version
            self._breaker.succeeded()  # it answers, at least
            self._refuse(error)
            return True
        except Exception as error:  # noqa: BLE001  whatever a receiver's library raises
            self._fail(error)
            return False
        self._counts.delivered += record is not None
        if failed := self._breaker.succeeded():
            log.warning("%s: works again after %d failed attempts", self.name, failed)
        if self._refused_in_a_row and record is not None:
            log.info("%s: takes verdicts again after %d refused ones", self.name, self._refused_in_a_row)
            self._refused_in_a_row = 0
        return True

    def _refuse(self, error: Exception) -> None:
        self._counts.refused += 1
        self._refused_in_a_row += 1
        if (silent := self._refusals.silenced()) is not None:
            more = f"; {silent} more since the last such message" if silent else ""
            log.error("%s: refused for good: %s%s", self.name, error, more)

    def _fail(self, error: Exception) -> None:
        was = self._breaker.state
        wait_s = self._breaker.failed()
        self._counts.failures += 1
        if self._breaker.failures == 1:
            log.error("%s: nothing can be delivered: %s", self.name, error)
        elif was == "closed" and self._breaker.state == "open":
            log.warning(
                "%s: %d attempts failed; from now on it is tried at most every %g s: %s",
                self.name, self._breaker.failures, self._config.retry_most_s, error,
            )  # fmt: skip
        else:
            log.debug("%s: attempt %d failed: %s", self.name, self._breaker.failures, error)
        if self._sink is not None:
            try:
                self._sink.close()
            except Exception:
                log.debug("%s: could not be closed", self.name, exc_info=True)
            self._sink = None
        if self._stopping.is_set():  # little time is left to wait for the receiver
            time.sleep(min(wait_s, _LAST_RETRY_S, max(0.0, self._give_up - time.monotonic())))
        else:
            self._stopping.wait(wait_s)


def own_keys(section: dict[str, Any], path: str) -> dict[str, Any]:
    """A sink's section without `delivery` and `only`, which are checked, and every kind's.

    Raises:
        ConfigError: A key of `delivery`, or `only`, is wrong.
    """
    plugins.convert(section.get("delivery", {}), DeliveryConfig, f"{path}.delivery")
    if section.get("only", "frames") not in ("frames", "parts"):
        raise ConfigError(f"{path}.only: expected frames or parts, got {section['only']!r}")
    return {key: value for key, value in section.items() if key not in ("delivery", "only")}


def open_sink(section: dict[str, Any], path: str) -> Sink:
    """Opens the sink that a configuration section names, behind an outlet if it waits for something outside.

    Args:
        section: Of the sink; its key `delivery` gives any sink an outlet.
        path: Where it stands in the file, for messages (`sinks[0]`).

    Raises:
        AlganError: A key is wrong, or the sink cannot be opened.
    """
    own = own_keys(section, path)
    delivery = plugins.convert(section.get("delivery", {}), DeliveryConfig, f"{path}.delivery")
    module, config = plugins.load("sinks", own, path)
    with plugins.placed(path):
        try:
            sink: Sink = module.create(config)
        except ModuleNotFoundError as error:
            raise PluginError(
                f"{path}.kind: {own['kind']} needs the Python package {error.name}; "
                f"pip install 'algan-stream[{own['kind']}]'"
            ) from error
        name, sink.only = f"{path} ({own['kind']})", section.get("only")
        if isinstance(sink, QueuedSink):
            sink.name = name
            if "delivery" in section:
                sink.close()
                raise ConfigError(f"{path}.delivery: {own['kind']} has a queue of its own; see its keys")
        if isinstance(sink, QueuedSink) or (not sink.waits and "delivery" not in section):
            return sink
        try:
            outlet = Outlet(name, lambda: module.create(config), sink, delivery)
            outlet.only = sink.only
            return outlet
        except BaseException:
            sink.close()
            raise
