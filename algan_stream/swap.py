"""One model takes over from another in a running line: load and gate beside, go over, try, roll back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from algan_stream.bundle import read_bundle
from algan_stream.config import SwapConfig
from algan_stream.errors import AlganError, BusyError
from algan_stream.model import Model, check_successor
from algan_stream.outcomes import Outcomes, Rates
from algan_stream.standin import Opener

if TYPE_CHECKING:
    from algan_stream.service import Service

log = logging.getLogger(__name__)

_GLANCE_S = 0.05


class SwapStatus(msgspec.Struct, kw_only=True):
    """Where a swap stands.

    Attributes:
        job: Counts the swaps, from 1; 0 before the first.
        state: `loading` beside the old model; `in trial`; the old model is `kept`; or nothing of it: `idle`.
        outcome: What became of the latest: `""` while it is loading or before the first.
        told: The same in words.
        exit_code: Of the error that it was refused for; 0 for none.
        kept: The model that a rollback goes back to; "" if there is none.
        before: Outcomes of the model before, when it was replaced.
        now: Outcomes of the model that serves.
        left_s: Until the end of the trial, or of the keeping.
    """

    job: int = 0
    state: Literal["idle", "loading", "in trial", "kept"] = "idle"
    outcome: Literal["", "serving", "refused", "rolled_back"] = ""
    told: str = ""
    exit_code: int = 0
    kept: str = ""
    before: Rates = Rates()
    now: Rates = Rates()
    left_s: float = 0.0


class Swapper:
    """Brings one model after the other into service, each on trial. Engines that it opened, it closes.

    Args:
        service: Whose pipeline goes over.
        config: The trial.
        outcomes: Sees every verdict of the pipeline.
        open_engine: Opens a gated engine.
    """

    def __init__(self, service: Service, config: SwapConfig, outcomes: Outcomes, open_engine: Opener) -> None:
        self._service, self._config, self._outcomes = service, config, outcomes
        self._open_engine = open_engine
        self._lock = threading.Lock()
        self._status = SwapStatus()
        self._kept: Model | None = None
        self._until = 0.0
        self._back = ""  # why to roll back, once somebody asked for it
        self._leave, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def swap(self, bundle: str) -> int:
        """Begins to load a bundle; returns the number of the swap, which `status` then tells of.

        Raises:
            BusyError: Another swap is at work.
        """
        return self._begin(lambda: self._load(bundle))

    def adopt(self, model: Model) -> int:
        """The same with a model that is ready: another calibration with the engine that serves.

        Raises:
            BusyError: Another swap is at work.
        """
        return self._begin(lambda: model)

    def rollback(self) -> None:
        """Goes back to the model before; `status` says when it is done.

        Raises:
            BusyError: There is none, or one that is just loading.
        """
        with self._lock:
            if self._status.state not in ("in trial", "kept"):
                raise BusyError(
                    "there is no model to go back to: expected one in its trial, or kept after it"
                )
            self._back = "asked for"

    def status(self) -> SwapStatus:
        """A copy of where it stands."""
        with self._lock:
            now = self._outcomes.rates(self._service.pipeline.model)
            left_s = max(0.0, self._until - time.monotonic()) if self._status.state != "idle" else 0.0
            kept = "" if self._kept is None else str(self._kept)
            return msgspec.structs.replace(self._status, now=now, left_s=round(left_s, 1), kept=kept)

    def close(self) -> None:
        """Ends what is at work, after the pipeline's end; closes every engine but the one that serves."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._keep(None)

    def check_free(self) -> None:
        """Raises BusyError where a swap could not begin now."""
        if self._service.building:
            raise BusyError("the line's own engine is being built; wait until it has taken over")
        if self._closing.is_set() or self._status.state in ("loading", "in trial"):
            raise BusyError(
                f"swap {self._status.job} is {self._status.state}: wait for its end, or `rollback` its trial"
            )

    def _begin(self, load: Callable[[], Model]) -> int:
        with self._lock:
            self.check_free()
            self._leave.set()  # the thread that only keeps the model before
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._leave.clear()
            self._back = ""
            self._status = SwapStatus(job=self._status.job + 1, state="loading")
            self._thread = threading.Thread(target=self._run, args=(load,), name="swap", daemon=True)
            self._thread.start()
            return self._status.job

    # ---- the thread of one swap --------------------------------------------------------------------------

    def _run(self, load: Callable[[], Model]) -> None:
        try:
            new = load()
        except Exception as error:  # noqa: BLE001  the old model serves on, whatever it was
            log.error("the model that serves goes on, the new one is refused: %s", error)
            code = error.exit_code if isinstance(error, AlganError) else 1
            kept = self._kept  # from the swap before this one; its time goes on
            self._tell("idle" if kept is None else "kept", "refused", str(error), code)
            if kept is not None:
                self._watch(self._service.pipeline.model, kept)
            return
        old = self._service.pipeline.model
        before = self._outcomes.rates(old)
        self._outcomes.forget(new)
        if not self._go_over(new):
            for model in (old, new):
                self._close(model)
            return
        self._keep(old)
        with self._lock:
            self._status.before = before
            self._until = time.monotonic() + self._config.trial_s
        self._tell("in trial", "serving", f"{new} serves")
        self._watch(new, old)

    def _watch(self, new: Model, old: Model) -> None:
        """The trial, and then the keeping, until somebody else has use for this thread."""
        while not (self._leave.is_set() or self._closing.wait(_GLANCE_S)):
            trial = self._status.state == "in trial"
            why = self._back or (self._drift(new) if trial else "")
            if why:
                self._roll_back(new, old, why)
                return
            if time.monotonic() < self._until:
                continue
            if not trial:
                self._keep(None)
                self._tell("idle", "serving", f"{new} serves, and the model before is gone")
                return
            with self._lock:
                self._until = time.monotonic() + self._config.keep_s
            judged, least = self._outcomes.rates(new).frames, self._config.least_frames
            stood = (
                "has stood its trial" if judged >= least else f"had no trial, with {judged} frames of {least}"
            )
            self._tell("kept", "serving", f"{new} {stood}")

    def _roll_back(self, new: Model, old: Model, why: str) -> None:
        log.error("%s is rolled back: %s", new, why)
        self._outcomes.forget(old)
        gone_over = self._go_over(old)
        self._close(new)
        if gone_over:
            self._kept = None
            self._tell("idle", "rolled_back", f"rolled back to {old}: {why}")

    def _go_over(self, model: Model) -> bool:
        """Returns whether it serves; not, if the service ends before."""
        retired = self._service.pipeline.swap(model)
        while not retired.wait(_GLANCE_S):
            if self._closing.is_set() or self._service.pipeline.broken.is_set():
                return False
        self._service.tell_sinks(model.bundle)
        return True

    def _drift(self, new: Model) -> str:
        """Why the trial is lost; "" as long as it is not."""
        before, now, limits = self._status.before, self._outcomes.rates(new), self._config
        if now.engine_faults > limits.engine_faults:
            return f"the engine failed on {now.engine_faults} frames, {limits.engine_faults} are allowed"
        if now.frames < limits.least_frames:
            return ""
        if now.unknown - before.unknown > limits.unknown_rise:
            return f"{now.unknown:.1%} of {now.frames} frames are unknown, {before.unknown:.1%} were before"
        if before.frames < limits.least_frames or before.reject is None or now.reject is None:
            return ""
        if abs(now.reject - before.reject) > limits.reject_change:
            return f"{now.reject:.1%} of {now.frames} frames are rejects, {before.reject:.1%} were before"
        return ""

    def _load(self, path: str) -> Model:
        served = self._service.pipeline.model
        bundle = read_bundle(path)
        check_successor(served.bundle, bundle)
        return Model(bundle, self._open_engine(bundle, self._service.line.engine))

    def _keep(self, model: Model | None) -> None:
        with self._lock:
            gone, self._kept = self._kept, model
        if gone is not None and (model is None or gone.engine is not model.engine):
            self._close(gone)

    def _close(self, model: Model) -> None:
        """Closes a model's engine, unless it is the one that serves: the calibration alone may be another."""
        if model.engine is not self._service.pipeline.model.engine:
            model.engine.close()

    def _tell(
        self,
        state: Literal["idle", "in trial", "kept"],
        outcome: Literal["serving", "refused", "rolled_back"],
        told: str,
        exit_code: int = 0,
    ) -> None:
        log.info("swap %d: %s: %s", self._status.job, outcome, told)
        with self._lock:
            self._status.state, self._status.outcome = state, outcome
            self._status.told, self._status.exit_code = told, exit_code
