"""A line as a running service: sources, pipeline and sinks around one gated engine."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

from algan_stream import plugins
from algan_stream.boxes.base import BoxFinder
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.config import CameraConfig, LineConfig
from algan_stream.doorman import Doorman
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import check_golden
from algan_stream.errors import AlganError, ConfigError, InputError, LedgerError
from algan_stream.health import Health, HealthServer
from algan_stream.intake import Backpressure
from algan_stream.ledger import CameraAccount
from algan_stream.metrics import Metrics
from algan_stream.pipeline import Pipeline
from algan_stream.sinks.base import Sink
from algan_stream.sinks.outlet import DeliveryCounts, Outlet, open_sink
from algan_stream.sources.base import Source, SourceContext
from algan_stream.standin import BackgroundBuild, open_or_stand_in
from algan_stream.types import VectorSpec

log = logging.getLogger(__name__)


def open_engine(bundle: Bundle, section: dict[str, Any] | None = None) -> Engine:
    """Builds an engine and lets it through the golden gate.

    Args:
        bundle: What it shall serve.
        section: Configuration section `engine`; by default OpenVINO in fp32.

    Raises:
        ConfigError: A key of the section is wrong.
        EngineError: It cannot be built, or does not reproduce the golden logits.
    """
    module, config = plugins.load("engines", section or {"kind": "openvino"}, "engine")
    engine: Engine = module.create(bundle, config)
    try:
        report = check_golden(bundle, engine)
    except AlganError:
        engine.close()
        raise
    log.info(
        "%s reproduces %d golden images: largest difference %.2g of %.2g allowed",
        engine.identity,
        report.images,
        report.max_logit_difference,
        report.tolerance,
    )
    return engine


class Service:
    """Runs one line. Everything that can be checked is checked by the constructor.

    Args:
        line: The configuration.
        extra_sinks: Sinks besides the configured ones, e.g. a live display; closed with the others.
        build_if_missing: Where the engine has to be built first, build it while a slower one serves.

    Raises:
        AlganError: Configuration, bundle, engine, a source or a sink cannot be used.
    """

    def __init__(
        self, line: LineConfig, extra_sinks: Sequence[Sink] = (), *, build_if_missing: bool = False
    ) -> None:
        self._line = line
        self._running, self._stop = threading.Event(), threading.Event()
        self._failed: list[BaseException] = []
        self.bundle = read_bundle(line.bundle)
        self._build: BackgroundBuild | None = None
        #: What serves at this moment.
        self.engine: Engine
        if build_if_missing:
            self.engine, self._build = open_or_stand_in(self.bundle, line.engine, open_engine)
        else:
            self.engine = open_engine(self.bundle, line.engine)
        self.health = Health(self)
        #: Serves metrics and health, where the line says so.
        self.http: HealthServer | None = None
        metrics = Metrics(self) if line.http else None
        self.sinks: list[Sink] = [*((metrics,) if metrics else ()), *extra_sinks]
        self.sources: list[tuple[CameraConfig, Source, BoxFinder]] = []
        try:
            for i, section in enumerate(line.sinks):
                self.sinks.append(open_sink(section, f"sinks[{i}]"))
            self.pipeline = Pipeline(self.bundle, self.engine, self.sinks, line.batch)
            for i, camera in enumerate(line.cameras):
                self._open_camera(camera, f"cameras[{i}]")
            if line.http and metrics:
                self.http = HealthServer(line.http, self.health, metrics)
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
        threads = [
            threading.Thread(target=self._feed, args=(source, boxes), name=f"source-{camera.id}", daemon=True)
            for camera, source, boxes in self.sources
        ]
        self.pipeline.start()
        if self._build is not None:
            self._build.start(self._adopt)
        for thread in threads:
            thread.start()
        self._running.set()
        try:
            while any(thread.is_alive() for thread in threads):
                if self.pipeline.broken.is_set():
                    self.stop()
                for thread in threads:
                    thread.join(0.05)
            self.stop()  # where the sources have ended by themselves
            self.pipeline.close(self._line.drain_timeout_s)
        finally:
            self._close_all()
        if self._failed:
            raise AlganError(f"a source broke: {self._failed[0]}") from self._failed[0]
        return self.accounts()

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

    def deliveries(self) -> dict[str, DeliveryCounts]:
        """What became of the verdicts that wait for somebody else, by sink."""
        return {sink.name: sink.counts() for sink in self.sinks if isinstance(sink, Outlet)}

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

    def wait_for_stop(self, timeout_s: float) -> bool:
        """Waits until it is `stopping`; returns whether it is."""
        return self._stop.wait(timeout_s)

    def _doormen(self) -> list[Doorman]:
        parts = (*(source for _, source, _ in self.sources), *self.sinks)
        return [doorman for part in parts if (doorman := getattr(part, "doorman", None)) is not None]

    def _open_camera(self, camera: CameraConfig, path: str) -> None:
        box_module, box_config = plugins.load("boxes", camera.boxes, f"{path}.boxes")
        module, config = plugins.load("sources", camera.source, f"{path}.source")

        def open_lane(name: str, queue_size: int) -> None:
            if name != camera.id and name in {other.id for other in self._line.cameras}:
                raise InputError(f"camera {name} is another source's in this line")
            self.pipeline.open_camera(name, queue_size, camera.backpressure or default)

        context = SourceContext(
            camera.id,
            camera.deadline_ms,
            camera.queue_size,
            self.pipeline.ledger,
            open_lane,
            self.bundle.manifest.spec,
        )
        with plugins.placed(f"{path}.source"):
            source: Source = module.create(config, context)
        default: Backpressure = "drop_oldest" if source.live else "block"
        open_lane(camera.id, camera.queue_size)
        self.sources.append((camera, source, box_module.create(box_config)))
        taken = "vector" if isinstance(self.bundle.manifest.spec, VectorSpec) else "image"
        if taken not in source.payloads:
            raise ConfigError(
                f"{path}.source: kind {config.kind} gives {' or '.join(source.payloads)}s, but "
                f"{self._line.bundle} takes {taken}s; choose another source or bundle"
            )

    def _feed(self, source: Source, boxes: BoxFinder) -> None:
        try:
            for frame in source.frames(self._stop):
                frame.boxes = boxes.find(frame)
                self.pipeline.receive(frame)
        except BaseException as error:
            log.exception("a source broke")
            self._failed.append(error)
            if isinstance(error, LedgerError):  # accounts that do not add up are worth nothing any more
                self.stop()

    def _adopt(self, engine: Engine) -> None:
        """The background build's engine takes over; the stand-in is closed once it has nothing to do."""
        assert self._build is not None
        old, retired = self.engine, self.pipeline.swap(engine)
        self.engine = engine
        while not (retired.wait(0.1) or self._build.stopping.is_set()):
            pass
        old.close()

    def _close_all(self) -> None:
        if self._build is not None:
            self._build.stop()
        parts: list[Source | Sink | Engine | HealthServer] = [source for _, source, _ in self.sources]
        parts += [self.http] if self.http else []
        for sink in self.sinks:
            if isinstance(sink, Outlet):
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
