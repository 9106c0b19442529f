"""The control socket of a running line: what operators ask for by `algan-stream ctl`."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from algan_stream import control_wire as wire
from algan_stream import endpoints, plugins
from algan_stream.bundle import read_bundle
from algan_stream.config import ControlConfig, SwapConfig
from algan_stream.errors import AlganError, BusyError, ConfigError
from algan_stream.model import Model, check_successor
from algan_stream.outcomes import Outcomes
from algan_stream.recalibration import Recalibration, place_beside, write_recalibrated
from algan_stream.reload import reload
from algan_stream.shadow import Shadow, ShadowReport
from algan_stream.standin import Opener
from algan_stream.swap import Swapper

if TYPE_CHECKING:
    from algan_stream.service import Service

log = logging.getLogger(__name__)

_GLANCE_MS = 100


class Control:
    """Answers requests, one at a time, in a thread of its own; what takes long goes on in others.

    Args:
        service: The line; its pipeline exists.
        config: Where the socket is bound.
        swap: The trial of a new model.
        open_engine: Opens a gated engine.

    Raises:
        ConfigError: The endpoint cannot be bound.
    """

    def __init__(
        self, service: Service, config: ControlConfig, swap: SwapConfig, open_engine: Opener
    ) -> None:
        self._service, self._open_engine = service, open_engine
        outcomes = Outcomes(swap.window)
        self.swapper = Swapper(service, swap, outcomes, open_engine)
        self.recalibration = Recalibration()
        #: See every verdict of the pipeline.
        self.observers = (outcomes, self.recalibration)
        self._shadow: Shadow | None = None
        self._shadow_report = ShadowReport()  # while there is no shadow
        self._shadow_loads: threading.Thread | None = None
        self._closing = threading.Event()
        self._zmq = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._zmq.socket(zmq.REP)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_REQUEST_BYTES)
        self._socket.setsockopt(zmq.LINGER, 500)
        try:
            with plugins.placed("control"):
                self.endpoint = endpoints.bind(self._socket, config.bind, insecure=False)
        except ConfigError:
            self._zmq.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def close(self) -> None:
        """Ends the socket, the shadow and what is being swapped; the engine that serves stays open."""
        if self._socket.closed:
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        self._zmq.term()
        if self._shadow_loads is not None:
            self._shadow_loads.join()
        if self._shadow is not None:
            self._shadow.close()
        self.swapper.close()

    # ---- the socket --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closing.is_set():
            if self._socket.poll(_GLANCE_MS):
                parts = self._socket.recv_multipart()
                self._socket.send(wire.encode(self._answered(parts)))

    def _answered(self, parts: list[bytes]) -> wire.Answer:
        try:
            request = wire.decode_request(parts[0] if len(parts) == 1 else b"")
            if not isinstance(request, (wire.GetStatus, wire.GetShadow)):
                log.info("control: %s", request)
            return self._answer(request)
        except AlganError as error:
            return wire.Refused(message=str(error), exit_code=error.exit_code)
        except Exception as error:
            log.exception("control: a request cannot be answered")
            return wire.Refused(message=f"{type(error).__name__}: {error}")

    def _answer(self, request: wire.Request) -> wire.Answer:  # noqa: PLR0911  one for each kind
        if isinstance(request, wire.GetStatus):
            return self._status()
        if isinstance(request, wire.Swap):
            return wire.Begun(job=self.swapper.swap(request.bundle))
        if isinstance(request, wire.Rollback):
            self.swapper.rollback()
            return wire.Begun(job=self.swapper.status().job)
        if isinstance(request, wire.Reload):
            return wire.Reloaded(changes=reload(self._service, self.swapper))
        if isinstance(request, wire.Pause):
            return wire.Done(told=self._pause(request.camera, paused=request.paused))
        if isinstance(request, wire.Stop):
            self._service.stop()
            return wire.Done(told="stopping; frames already received will still be scored")
        if isinstance(request, (wire.StartShadow, wire.GetShadow, wire.PromoteShadow, wire.StopShadow)):
            return self._answer_on_shadow(request)
        return self._answer_on_recalibration(request)

    def _status(self) -> wire.LineStatus:
        service, model = self._service, self._service.pipeline.model
        accounts, depths = service.accounts(), service.pipeline.queue_depths()
        return wire.LineStatus(
            phase=service.phase,
            problems=service.health.not_ready(),
            bundle=str(model.bundle.path),
            model=model.name,
            threshold=model.threshold,
            engine=model.engine_name,
            cameras={
                name: wire.CameraStatus(
                    paused=name in service.pipeline.paused,
                    waiting=depths.get(name, 0),
                    account=accounts.get(name),
                )
                for name in sorted({*accounts, *depths})
            },
            sinks={name: counts.waiting for name, counts in service.deliveries().items()},
            swap=self.swapper.status(),
            shadow=self._report(),
            recalibration=self.recalibration.status(),
        )

    def _pause(self, camera: str, *, paused: bool) -> str:
        pipeline = self._service.pipeline
        if camera not in pipeline.queue_depths():
            known = ", ".join(sorted(pipeline.queue_depths()))
            raise ConfigError(f"camera: expected one of {known}, got {camera!r}")
        pipeline.paused = pipeline.paused | {camera} if paused else pipeline.paused - {camera}
        if paused:
            return f"camera {camera} is paused: its frames are answered with unknown(paused)"
        return f"camera {camera}: its frames are scored"

    # ---- shadow ------------------------------------------------------------------------------------------

    def _answer_on_shadow(
        self, request: wire.StartShadow | wire.GetShadow | wire.PromoteShadow | wire.StopShadow
    ) -> wire.Answer:
        if isinstance(request, wire.StartShadow):
            self._start_shadow(request)
            return wire.ShadowAnswer(report=self._report())
        if isinstance(request, wire.GetShadow):
            return wire.ShadowAnswer(report=self._report())
        if self._shadow is None:
            raise BusyError("no shadow is running; begin with `shadow BUNDLE`")
        report = self._shadow.report()
        if isinstance(request, wire.PromoteShadow):
            job = self.swapper.swap(report.bundle)  # first: it may be refused, and the shadow then goes on
            self._stop_shadow()
            return wire.Begun(job=job)
        self._stop_shadow()
        return wire.ShadowAnswer(report=msgspec.structs.replace(report, state="off"))

    def _report(self) -> ShadowReport:
        return self._shadow.report() if self._shadow is not None else self._shadow_report

    def _start_shadow(self, request: wire.StartShadow) -> None:
        if self._shadow is not None or self._shadow_report.state == "loading":
            raise BusyError("a shadow is at work; `shadow stop` or `shadow promote` it first")
        if not 0.0 < request.share <= 1.0:
            raise ConfigError(f"share: expected above 0 and up to 1, got {request.share}")
        self._shadow_report = ShadowReport(state="loading", bundle=request.bundle, share=request.share)
        self._shadow_loads = threading.Thread(
            target=self._load_shadow, args=(request,), name="shadow-load", daemon=True
        )
        self._shadow_loads.start()

    def _load_shadow(self, request: wire.StartShadow) -> None:
        """Opens an engine that leaves processors to the one that serves, and lets it watch."""
        try:
            section = dict(self._service.line.engine)
            fields = plugins.find("engines", section.get("kind"), "engine").Config.__struct_fields__
            section |= {name: 1 for name in ("threads", "streams") if name in fields}
            bundle = read_bundle(request.bundle)
            check_successor(self._service.bundle, bundle)
            model = Model(bundle, self._open_engine(bundle, section))
            if self._closing.is_set():
                model.engine.close()
                return
            self._shadow = Shadow(self._service.pipeline, model, request.share)
        except Exception as error:  # noqa: BLE001  the line goes on without a shadow, whatever it was
            log.error("the shadow is refused: %s", error)
            code = error.exit_code if isinstance(error, AlganError) else 1
            self._shadow_report = msgspec.structs.replace(
                self._shadow_report, state="refused", told=str(error), exit_code=code
            )

    def _stop_shadow(self) -> None:
        shadow, self._shadow, self._shadow_report = self._shadow, None, ShadowReport()
        if shadow is not None:
            shadow.close()

    # ---- recalibration -----------------------------------------------------------------------------------

    def _answer_on_recalibration(
        self, request: wire.StartRecalibration | wire.FinishRecalibration | wire.CancelRecalibration
    ) -> wire.Answer:
        if isinstance(request, wire.CancelRecalibration):
            self.recalibration.cancel()
            return wire.Done(told="what was collected is forgotten; the threshold stays")
        if isinstance(request, wire.FinishRecalibration):
            return self._finish_recalibration(request)
        if request.camera not in (depths := self._service.pipeline.queue_depths()):
            raise ConfigError(f"camera: expected one of {', '.join(sorted(depths))}, got {request.camera!r}")
        started = self.recalibration.start(
            self._service.pipeline.model, request.camera, request.images, request.false_reject_rate
        )
        return wire.CollectedAnswer(collected=started)

    def _finish_recalibration(self, request: wire.FinishRecalibration) -> wire.Recalibrated:
        model, calibration, collected = self.recalibration.result()
        if model is not self._service.pipeline.model:
            raise BusyError("another model has taken over since the start; `cancel`, and start again with it")
        if request.apply:
            self.swapper.check_free()
        rate, interval = calibration.false_reject_rate, calibration.false_reject_rate_ci95
        assert rate is not None  # it was set from one
        assert interval is not None
        saved, job = "", 0
        if request.out or request.apply:
            out = Path(request.out) if request.out else place_beside(model.bundle)
            saved = str(write_recalibrated(model.bundle, calibration, collected.camera, out).path)
        if request.apply:
            job = self.swapper.swap(saved)
        if saved:  # else somebody only looks, and may want it yet
            self.recalibration.cancel()
        return wire.Recalibrated(
            threshold=calibration.threshold,
            threshold_before=model.threshold,
            false_reject_rate=rate,
            false_reject_rate_ci95=interval,
            collected=collected,
            bundle=saved,
            job=job,
        )
