"""A line as a running service: sources, pipeline and sinks around one gated engine."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from algan_stream import plugins
from algan_stream.boxes.base import BoxFinder, find_boxes
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.config import CameraConfig, LineConfig
from algan_stream.control import Control
from algan_stream.doorman import Doorman
from algan_stream.drift import DriftMonitor
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.errors import AlganError, LedgerError
from algan_stream.feeds import Feed, open_feed
from algan_stream.guard.guard import Guard
from algan_stream.health import Health, HealthServer
from algan_stream.ledger import CameraAccount
from algan_stream.metrics import Metrics
from algan_stream.model import Model
from algan_stream.pipeline import Pipeline
from algan_stream.sinks.base import DeliveryCounts, QueuedSink, Sink
from algan_stream.sinks.outlet import open_sink
from algan_stream.sources.base import Source
from algan_stream.sources.link import Link
from algan_stream.standin import BackgroundBuild, open_or_stand_in

log = logging.getLogger(__name__)

_GLANCE_S = 0.05


class Service:
    """Runs one line. Everything that can be checked is checked by the constructor.

    Args:
        line: The configuration.
        extra_sinks: Sinks besides the configured ones, e.g. a live display; closed with the others.
        build_if_missing: Where the engine has to be built first, build it while a slower one serves.
        file: Where the configuration comes from, for reading it again.

    Raises:
        AlganError: Configuration, bundle, engine, a source or a sink cannot be used.
    """

    def __init__(
        self,
        line: LineConfig,
        extra_sinks: Sequence[Sink] = (),
        *,
        build_if_missing: bool = False,
        file: Path | None = None,
    ) -> None:
        #: As it is now; `file` as it was read last.
        self.line, self.file = line, None if file is None else file.resolve()
        self._running, self._stop = threading.Event(), threading.Event()
        self._failed: list[BaseException] = []
        bundle = read_bundle(line.bundle)
        if bundle.manifest.calibration is None:
            log.warning(
                "%s is not calibrated: every verdict will be unknown; run `algan-stream calibrate`",
                bundle.path,
            )
        self._build: BackgroundBuild | None = None
        if build_if_missing:
            engine, self._build = open_or_stand_in(bundle, line.engine, open_engine)
        else:
            engine = open_engine(bundle, line.engine)
        self.pipeline = Pipeline(bundle, engine, batch=line.batch)
        self.health = Health(self)
        #: Serves metrics and health, where the line says so.
        self.http: HealthServer | None = None
        #: Answers `algan-stream ctl`, where the line says so.
        self.control: Control | None = None
        metrics = Metrics(self) if line.http else None
        #: Tests the scores of all cameras against the calibration of the model that serves.
        self.drift = DriftMonitor(line.drift)
        self.drift.follow(self.pipeline.model)
        self.pipeline.on_takeover = self.drift.follow
        self._own_sinks: list[Sink] = [*((metrics,) if metrics else ()), self.drift, *extra_sinks]
        #: Those that the line names, each with its section.
        self.configured_sinks: list[tuple[dict[str, Any], Sink]] = []
        self.feeds: list[Feed] = []
        try:
            for i, section in enumerate(line.sinks):
                self.configured_sinks.append((section, self.open_sink(section, f"sinks[{i}]")))
            for i, camera in enumerate(line.cameras):
                self.open_camera(camera, f"cameras[{i}]")
            if line.http and metrics:
                self.http = HealthServer(line.http, self.health, metrics)
            if line.control:
                self.control = Control(self, line.control, line.swap, open_engine)
            self.use_sinks(self.configured_sinks)
        except BaseException:
            self._close_all()
            raise

    def run(self) -> dict[str, CameraAccount]:
        """Runs until every source has ended or `stop` is called; then scores what was received.

        Returns:
            The final accounts, with nothing in flight.

        Raises:
            AlganError: A part of the service broke.
        """
        self.pipeline.start()
        if self._build is not None:
            self._build.start(self._adopt)
        for feed in self.feeds:
            self.start_camera(feed)
        self._running.set()
        if self.control is not None:
            self.control.start()
        try:
            while running := [feed for feed in tuple(self.feeds) if feed.running]:
                if self.pipeline.broken.is_set():
                    self.stop()
                running[0].wait(_GLANCE_S)
            self.stop()  # where the sources have ended by themselves
            self.pipeline.close(self.line.drain_timeout_s)
        finally:
            self._close_all()
        if self._failed:
            raise AlganError(f"a source broke: {self._failed[0]}") from self._failed[0]
        return self.accounts()

    @property
    def bundle(self) -> Bundle:
        """Of the model that serves at this moment."""
        return self.pipeline.model.bundle

    @property
    def engine(self) -> Engine:
        """The one that serves at this moment."""
        return self.pipeline.model.engine

    @property
    def building(self) -> bool:
        """Whether the line's own engine may still take over from its stand-in."""
        return self._build is not None and self._build.running

    @property
    def sources(self) -> list[tuple[CameraConfig, Source, BoxFinder]]:
        """What every camera of the line is."""
        return [(feed.camera, feed.source, feed.boxes) for feed in tuple(self.feeds)]

    @property
    def sinks(self) -> list[Sink]:
        """Where verdicts go."""
        return [*self._own_sinks, *(sink for _, sink in self.configured_sinks)]

    @property
    def guards(self) -> dict[str, Guard]:
        """By the configured camera; those without a section `guard` have none."""
        return {feed.camera.id: feed.guard for feed in tuple(self.feeds) if feed.guard is not None}

    def accounts(self) -> dict[str, CameraAccount]:
        """The ledger at this moment.

        Raises:
            LedgerError: It does not add up.
        """
        return self.pipeline.ledger.snapshot()

    def refusals(self) -> dict[str, int]:
        """Messages that sources refused, by code; they were no frames, or named none. And connections."""
        total: Counter[str] = Counter()
        for counts in (*(s.counts for _, s, _ in self.sources), *(d.counts for d in self._doormen())):
            total.update(dict(counts))  # a copy at once: its thread may add a code meanwhile
        return dict(total)

    def links(self) -> dict[str, Link]:
        """The connections to live cameras and their triggers, by name."""
        return {link.name: link for _, source, _ in self.sources for link in source.links}

    def deliveries(self) -> dict[str, DeliveryCounts]:
        """What became of the verdicts that wait for somebody else, by sink."""
        return {sink.name: sink.counts() for sink in self.sinks if isinstance(sink, QueuedSink)}

    @property
    def phase(self) -> Literal["starting", "running", "stopping"]:
        """Frames are taken while it is `running`; it is `stopping` until the last verdict is out."""
        if self._stop.is_set():
            return "stopping"
        return "running" if self._running.is_set() else "starting"

    @property
    def failures(self) -> list[str]:
        """What ended parts before their time; the others go on."""
        closed = [doorman.failure for doorman in self._doormen() if doorman.failure]
        return [*(f"a source broke: {error}" for error in tuple(self._failed)), *closed]

    def stop(self) -> None:
        """Asks the sources to end; safe from signal handlers and other threads."""
        self._stop.set()
        for feed in tuple(self.feeds):
            feed.stop.set()

    def wait_for_stop(self, timeout_s: float) -> bool:
        """Waits until it is `stopping`; returns whether it is."""
        return self._stop.wait(timeout_s)

    def use_sinks(self, configured: list[tuple[dict[str, Any], Sink]]) -> None:
        """Lets verdicts go to these of the line's sinks; the others are the caller's to close."""
        self.configured_sinks = configured
        self.pipeline.out.use((*(self.control.observers if self.control else ()), *self.sinks))

    def _doormen(self) -> list[Doorman]:
        parts = (*(source for _, source, _ in self.sources), *self.sinks)
        return [doorman for part in parts if (doorman := getattr(part, "doorman", None)) is not None]

    def open_sink(self, section: dict[str, Any], path: str) -> Sink:
        """Opens a sink of the line for the bundle that serves.

        Raises:
            AlganError: A key is wrong, or the sink cannot be used.
        """
        sink = open_sink(section, path)
        try:
            with plugins.placed(path):
                sink.use_bundle(self.bundle)
        except BaseException:
            sink.close()
            raise
        return sink

    def tell_sinks(self, bundle: Bundle) -> None:
        """Another bundle judges from now on; a sink that cannot follow keeps what it can."""
        for sink in self.sinks:
            try:
                sink.use_bundle(bundle)
            except AlganError as error:
                log.error("%s cannot follow to %s: %s", type(sink).__name__, bundle.path, error)

    def open_camera(self, camera: CameraConfig, path: str) -> Feed:
        """Opens a camera of the line; raises what `open_feed` does."""
        feed = open_feed(camera, path, self.pipeline, self.feeds)
        self.drift.configure(camera.id, camera.drift)
        return feed

    def start_camera(self, feed: Feed) -> None:
        """Lets frames of an opened camera come."""
        name = f"source-{feed.camera.id}"
        feed.thread = threading.Thread(target=self._feed, args=(feed,), name=name, daemon=True)
        feed.thread.start()
        if self._stop.is_set():  # it came too late to be asked
            feed.stop.set()

    def forget_camera(self, feed: Feed) -> None:
        """Takes a camera whose source has ended out of the line; its account stays."""
        self.feeds.remove(feed)
        self.pipeline.paused -= feed.names
        for name in feed.names:
            self.pipeline.close_camera(name)

    def _feed(self, feed: Feed) -> None:
        try:
            for frame in feed.source.frames(feed.stop):
                if feed.guard is not None:
                    feed.guard.check(frame)
                frame.rule, frame.when_empty = feed.camera.rule, feed.camera.when_empty
                find_boxes(feed.boxes, frame)
                self.pipeline.receive(frame, feed.camera.track)
            self.pipeline.end_parts(feed.names)
        except BaseException as error:
            log.exception("a source broke")
            self._failed.append(error)
            if isinstance(error, LedgerError):  # accounts that do not add up are worth nothing any more
                self.stop()

    def _adopt(self, engine: Engine) -> None:
        """The background build's engine takes over; the stand-in is closed once it has nothing to do."""
        assert self._build is not None
        old, retired = self.engine, self.pipeline.swap(Model(self.bundle, engine))
        while not (retired.wait(0.1) or self._build.stopping.is_set()):
            pass
        for idle in {old, engine} - {self.engine}:  # the new one, where the end overtook it
            idle.close()

    def _close_all(self) -> None:
        if self._build is not None:
            self._build.stop()
        parts: list[Control | Source | BoxFinder | Sink | Engine | HealthServer]
        parts = [self.control] if self.control else []
        parts += [part for feed in self.feeds for part in (feed.source, feed.boxes)]
        parts += [self.http] if self.http else []
        for sink in self.sinks:
            if isinstance(sink, QueuedSink):
                sink.begin_close()
        for part in (*parts, *self.sinks, self.engine):
            try:
                part.close()
            except Exception:
                log.exception("%s could not be closed", type(part).__name__)


@contextmanager
def stop_on_signals(service: Service) -> Iterator[None]:
    """Turns SIGTERM and SIGINT into a clean stop while the block runs; a second signal ends at once."""

    def handler(number: int, _: FrameType | None) -> None:
        log.info("%s: stopping; frames already received will still be scored", signal.Signals(number).name)
        service.stop()
        signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
