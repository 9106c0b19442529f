"""Score drift: whether the scores of a camera still come like those of the calibration images.

Each score is ranked among the calibration scores and all scores since then. As long as they are exchangeable,
these smoothed conformal p-values are exactly uniform and independent, whatever the scores' distribution,
however few calibration images there are, and with ties, which a seeded generator breaks. (Ranked among the
calibration scores alone they are not independent: by chance these lie a little high or low, and any test
would find that out in time.) A p-value is then a fair coin to bet on. Several bettors bet on different kinds
of drift; the Shiryaev–Roberts sum of their capital, which begins anew at every score, says when to believe
them:

    R ← (1 + R) · f(p),    alarm at R ≥ false_alarm_every

Without drift the expectation of R after N scores is N, hence (Doob) P(alarm within N scores) ≤ N /
false_alarm_every. Nothing is assumed but exchangeability; docs/guard.md tells where that ends.
"""

from __future__ import annotations

import logging
import math
import random
import zlib
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from algan_stream.calibration import Calibration
from algan_stream.ranges import check_ranges
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, VerdictKind

if TYPE_CHECKING:
    from algan_stream.model import Model

log = logging.getLogger(__name__)

#: Cells of a betting table; each bettor's density is constant in a cell, so that it adds up to exactly 1.
CELLS = 1024
#: The bettors: densities Beta(a, b). Low p-values (worse parts), strongly and weakly; high ones; both ends (a
#: wider distribution) and the middle (a narrower one).
BETTORS = ((0.5, 1.0), (0.8, 1.0), (1.0, 0.5), (1.0, 0.8), (0.6, 0.6), (2.0, 2.0))
#: With fewer calibration scores than this, a shift is hardly told from chance: no test is made.
LEAST_GOOD = 20


class DriftConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `drift` of a line or a camera.

    Attributes:
        test: Which scores: of `passes` alone, so that true defects are no drift; `all` of them; or `none`.
        false_alarm_every: Without drift, an alarm comes within N tested scores with a probability of at most
            N / this, 1e2 to 1e12.
        window: After so many tested scores, the test begins anew from the calibration scores, so that what
            changes slowly is not taken for usual, 100 to 1000000.
        every: One score in so many is tested, where neighbouring frames show the same part, 1 to 10000.
        clear_after: After so many tested scores without another alarm, drift counts as over.
        seed: Of the generator that breaks ties.
    """

    test: Literal["passes", "all", "none"] = "passes"
    false_alarm_every: float = 1e7
    window: int = 20_000
    every: int = 1
    clear_after: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            ("false_alarm_every", self.false_alarm_every, 100, 1e12),
            ("window", self.window, 100, 1_000_000),
            ("every", self.every, 1, 10_000),
            ("clear_after", self.clear_after, 1, 10_000_000),
        )


class PValues:
    """Smoothed conformal p-values of scores that arrive one by one.

    Args:
        good: Scores that the stream's are exchangeable with, in any order.
        draw: Gives numbers from 0 to 1, for ties.
    """

    def __init__(self, good: array[float], draw: random.Random) -> None:
        self._good = array("d", sorted(good))
        self._bag, self._draw = array("d", self._good), draw

    def __len__(self) -> int:
        return len(self._bag) - len(self._good)

    def next(self, score: float) -> float:
        """The p-value of the next score; small for one that is higher than most."""
        bag = self._bag
        above = len(bag) - bisect_right(bag, score)
        alike = len(bag) - above - bisect_left(bag, score) + 1  # itself among them
        insort(bag, score)
        return (above + self._draw.random() * alike) / len(bag)

    def restart(self) -> None:
        """Forgets the stream."""
        self._bag = array("d", self._good)


class Detector:
    """Sums the bettors' capital over p-values that are uniform as long as nothing drifts."""

    def __init__(self, false_alarm_every: float) -> None:
        self._limit, self._bets = false_alarm_every * len(BETTORS), betting_table()
        self._capital = [0.0] * len(BETTORS)

    @property
    def evidence(self) -> float:
        """R over its limit: 1 is an alarm."""
        return sum(self._capital) / self._limit

    def bet(self, p_value: float) -> bool:
        """Takes one p-value in [0, 1]; returns whether to raise the alarm."""
        bets = self._bets[min(int(p_value * CELLS), CELLS - 1)]
        self._capital = [(1.0 + capital) * bet for capital, bet in zip(self._capital, bets, strict=True)]
        return sum(self._capital) >= self._limit

    def restart(self) -> None:
        """Begins with nothing."""
        self._capital = [0.0] * len(BETTORS)


class DriftState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a camera: scores tested, alarms, whether it drifts now, and R over its limit."""

    tested: int
    alarms: int
    drifting: bool
    evidence: float


class CameraDrift:
    """The test of one camera.

    Args:
        config: How.
        good: Calibration scores, of passes alone where these alone are tested.
        seed: Of the generator that breaks ties.
    """

    def __init__(self, config: DriftConfig, good: array[float], seed: int) -> None:
        self._config, self._detector = config, Detector(config.false_alarm_every)
        self._p_values = PValues(good, random.Random(seed))
        self._tested = self._alarms = self._since_alarm = self._skipped = 0
        self._drifting = False

    def take(self, score: float) -> bool:
        """Takes one score; returns whether drift is found with it."""
        self._skipped += 1
        if self._skipped < self._config.every:
            return False
        self._skipped = 0
        self._tested += 1
        self._since_alarm += 1
        if self._detector.bet(self._p_values.next(score)):
            self._alarms, self._since_alarm, self._drifting = self._alarms + 1, 0, True
            self._restart()
            return True
        if self._since_alarm >= self._config.clear_after:
            self._drifting = False
        if len(self._p_values) >= self._config.window:
            self._restart()
        return False

    @property
    def state(self) -> DriftState:
        """What is known at this moment."""
        return DriftState(
            tested=self._tested,
            alarms=self._alarms,
            drifting=self._drifting,
            evidence=self._detector.evidence,
        )

    def _restart(self) -> None:
        # Both: p-values after it are uniform, but no longer independent of those before it.
        self._p_values.restart()
        self._detector.restart()


class DriftMonitor(Sink):
    """Tests the scores of all cameras as their verdicts go out.

    Args:
        line: For cameras without a section of their own.
        cameras: By name, the sections of those that have one.
    """

    def __init__(self, line: DriftConfig, cameras: Mapping[str, DriftConfig] | None = None) -> None:
        self.only = "frames"  # a part's scores are those of its frames
        self._line, self._sections = line, dict(cameras or {})
        self._cameras: dict[str, CameraDrift | None] = {}
        self._model, self._calibration = "", Calibration(good_scores=(), threshold=math.inf)

    def follow(self, model: Model) -> None:
        """Tests against the calibration of the model that serves from now on."""
        self.use(model.name, model.bundle.manifest.calibration)

    def configure(self, camera: str, section: DriftConfig | None) -> None:
        """A camera joins the line, or comes back with another section; None: as the line."""
        if section is None:
            self._sections.pop(camera, None)
        else:
            self._sections[camera] = section
        self._cameras.pop(camera, None)

    def use(self, model: str, calibration: Calibration | None) -> None:
        """Tests against this calibration from now on; verdicts of other models are left out.

        Args:
            model: As in `FrameVerdict.model`.
            calibration: None: nothing is tested.
        """
        self._model = ""  # until all is ready: verdicts may come from another thread meanwhile
        self._calibration = calibration or Calibration(good_scores=(), threshold=math.inf)
        self._cameras = {}
        self._model = model

    def write(self, verdict: FrameVerdict) -> None:
        """Tests the scores of one verdict, box by box."""
        if verdict.model != self._model:
            return
        name, cameras = verdict.camera, self._cameras
        try:
            camera = cameras[name]
        except KeyError:  # no test of `in` before: another thread may take it out between
            camera = cameras[name] = self._open(name)
        if camera is None:
            return
        passes = self._section(name).test == "passes"
        for box in verdict.boxes:
            # The threshold itself is a calibration score and known; only what lies below it comes by chance.
            if box.score is None or box.verdict is VerdictKind.UNKNOWN:
                continue
            if passes and not box.score < self._calibration.threshold:
                continue
            if camera.take(box.score):
                log.warning(
                    "camera %s: its scores drift: they no longer come like those of the calibration images",
                    name,
                    extra={"camera": name, "frame": verdict.frame_id},
                )

    def states(self) -> dict[str, DriftState]:
        """By camera; those that are not tested are missing."""
        return {name: camera.state for name, camera in dict(self._cameras).items() if camera is not None}

    def warnings(self) -> list[str]:
        """What a person should look at: one line for each camera that drifts."""
        return [
            f"camera {name}: scores drift since the calibration"
            for name, state in self.states().items()
            if state.drifting
        ]

    def _section(self, name: str) -> DriftConfig:
        return self._sections.get(name, self._line)

    def _open(self, name: str) -> CameraDrift | None:
        section = self._section(name)
        below = self._calibration.threshold if section.test == "passes" else math.inf
        good = array("d", (score for score in self._calibration.good_scores if score < below))
        if section.test == "none" or len(good) < LEAST_GOOD:
            return None
        return CameraDrift(section, good, zlib.crc32(name.encode()) + section.seed)


@cache
def betting_table() -> tuple[tuple[float, ...], ...]:
    """(CELLS, bettors) what each bettor pays back where p falls into a cell; the mean of a column is 1."""
    edges = np.linspace(0, 1, 64 * CELLS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    columns = []
    for a, b in BETTORS:
        density = middles ** (a - 1) * (1 - middles) ** (b - 1)
        cells = density.reshape(CELLS, 64).mean(axis=1)
        columns.append(cells / cells.mean())
    return tuple(map(tuple, np.stack(columns, axis=1).tolist()))
