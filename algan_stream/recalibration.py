"""A new threshold from the running line: parts that the operator declares good, and nobody else's scores."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from algan_stream.bundle import Bundle, write_bundle
from algan_stream.calibration import Calibration, calibrate, images_needed
from algan_stream.errors import BundleError, BusyError, CalibrationError
from algan_stream.model import Model
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, Outcome, VerdictKind

#: Most scores that one recalibration keeps.
MAX_IMAGES = 1_000_000


class Collected(msgspec.Struct, kw_only=True):
    """What a recalibration has so far.

    Attributes:
        camera: Whose frames are declared good; "" when none is at work.
        wanted: Scores to collect.
        scores: Scores collected; each box of a frame gives one.
        rejects: How many of them the threshold that serves rejects.
        unscored: Frames left out, because they have no score in time.
        other_model: Frames left out, because another model or threshold had taken over.
        false_reject_rate: What the threshold will be set for.
    """

    camera: str = ""
    wanted: int = 0
    scores: int = 0
    rejects: int = 0
    unscored: int = 0
    other_model: int = 0
    false_reject_rate: float = 0.0


class Recalibration(Sink):
    """Collects scores of one camera while parts go by that are all good."""

    def __init__(self) -> None:
        self.only = "frames"  # a part's scores are those of its frames
        self._lock = threading.Lock()
        self._state = Collected()
        self._model: Model | None = None
        self._scores: list[float] = []

    def start(self, model: Model, camera: str, images: int, false_reject_rate: float | None) -> Collected:
        """Begins to collect; from now on every frame of the camera counts as one of a good part.

        Args:
            model: What serves.
            camera: Whose frames.
            images: How many scores to collect.
            false_reject_rate: What the threshold shall be set for; None: as before.

        Raises:
            BusyError: Another one is at work.
            CalibrationError: There is no rate, or so few images cannot support it.
        """
        served = model.bundle.manifest.calibration
        rate = false_reject_rate or (served.false_reject_rate if served else None)
        if rate is None:
            raise CalibrationError(
                "the threshold that serves was not set from a rate; say which one by --false-reject-rate"
            )
        if not 0.0 < rate < 1.0:
            raise CalibrationError(f"false-reject rate: expected above 0 and below 1, got {rate}")
        if not images_needed(rate) <= images <= MAX_IMAGES:
            raise CalibrationError(
                f"images: a false-reject rate of {rate:g} needs at least {images_needed(rate)} good ones, "
                f"and {MAX_IMAGES} are the most that are kept; got {images}"
            )
        with self._lock:
            if self._state.camera:
                raise BusyError(
                    f"camera {self._state.camera} is being recalibrated; `finish` or `cancel` that"
                )
            self._model, self._scores = model, []
            self._state = Collected(camera=camera, wanted=images, false_reject_rate=rate)
            return self._copy()

    def write(self, verdict: FrameVerdict) -> None:
        """Keeps the scores of a frame that belongs to it."""
        if verdict.camera != self._state.camera or not verdict.camera:
            return
        with self._lock:
            state, model = self._state, self._model
            if model is None or verdict.camera != state.camera or state.scores >= state.wanted:
                return
            names = (verdict.model, verdict.threshold, verdict.engine)
            if verdict.outcome is not Outcome.SCORED:
                state.unscored += 1
            elif names != (model.name, model.threshold, model.engine_name):
                state.other_model += 1
            else:
                for box in verdict.boxes[: state.wanted - state.scores]:
                    if box.score is not None:
                        self._scores.append(box.score)
                        state.rejects += box.verdict is VerdictKind.REJECT
                state.scores = len(self._scores)

    def status(self) -> Collected:
        """A copy of where it stands."""
        with self._lock:
            return self._copy()

    def cancel(self) -> None:
        """Forgets what was collected."""
        with self._lock:
            self._state, self._model, self._scores = Collected(), None, []

    def result(self) -> tuple[Model, Calibration, Collected]:
        """The model, its new calibration, and what that was made of; nothing is forgotten yet.

        Raises:
            BusyError: None is at work.
            CalibrationError: There are fewer scores than were asked for.
        """
        with self._lock:
            state, model = self._copy(), self._model
            scores = list(self._scores)
        if model is None:
            raise BusyError("no camera is being recalibrated; begin with `recalibrate start`")
        if state.scores < state.wanted:
            raise CalibrationError(
                f"camera {state.camera}: {state.scores} of {state.wanted} scores so far "
                f"({state.unscored} frames had none, {state.other_model} came from another model); "
                "wait for more good parts, or `cancel`"
            )
        return model, calibrate(scores, state.false_reject_rate), state

    def _copy(self) -> Collected:
        return msgspec.structs.replace(self._state)


def place_beside(bundle: Bundle) -> Path:
    """Where a recalibrated copy of a bundle stands by default."""
    return bundle.path.with_name(f"{bundle.path.name}-recalibrated-{time.strftime('%Y%m%dT%H%M%S')}")


def write_recalibrated(bundle: Bundle, calibration: Calibration, camera: str, out: Path) -> Bundle:
    """Writes a copy of a bundle with another calibration; the model in it is the same.

    Args:
        bundle: Stays as it is.
        calibration: Of the copy.
        camera: Where its scores come from; goes into the provenance.
        out: Where the copy shall stand; must not exist.

    Raises:
        BundleError: It exists, or cannot be written.
    """
    if out.exists():
        raise BundleError(f"{out}: exists; name another place for the recalibrated bundle")
    before = bundle.manifest.calibration
    history = {
        "from": bundle.path.name,
        "camera": camera,
        "images": len(calibration.good_scores),
        "threshold_before": before.threshold if before else None,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    provenance = {**bundle.manifest.provenance, "recalibrated": history}
    manifest = msgspec.structs.replace(bundle.manifest, calibration=calibration, provenance=provenance)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            staged = Path(scratch) / out.name
            for name in bundle.manifest.files:
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path / name, staged / name)
            return write_bundle(out, staged, manifest)
    except OSError as error:
        raise BundleError(f"{out}: cannot be written: {error.strerror}") from error
