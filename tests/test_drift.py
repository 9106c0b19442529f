"""The drift test: its false alarms are those that the theory allows, and drift is found."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algan_stream import service as service_module
from algan_stream.bundle import Bundle
from algan_stream.calibration import Calibration, calibrate, with_raw_threshold
from algan_stream.config import LineConfig
from algan_stream.drift import (
    BETTORS,
    CELLS,
    CameraDrift,
    Detector,
    DriftConfig,
    DriftMonitor,
    PValues,
    betting_table,
)
from algan_stream.errors import ConfigError
from algan_stream.plugins import convert
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind
from fakes import FakeEngine
from lines import get, line_of, running, state, wait_for
from test_metrics import scrape


def _verdict(*scores: float, camera: str = "cam", model: str = "m", threshold: float = 1e9) -> FrameVerdict:
    boxes = tuple(
        BoxVerdict(score=s, verdict=VerdictKind.REJECT if s > threshold else VerdictKind.PASS) for s in scores
    )
    return FrameVerdict(
        camera=camera,
        frame_id=0,
        verdict=VerdictKind.PASS,
        boxes=boxes,
        outcome=Outcome.SCORED,
        captured_ns=0,
        model=model,
    )


def _monitor(good: Any, threshold: float = math.inf, **config: Any) -> DriftMonitor:
    monitor = DriftMonitor(DriftConfig(**config), {})
    monitor.use("m", Calibration(good_scores=tuple(sorted(good)), threshold=threshold))
    return monitor


# ---- the theory ------------------------------------------------------------------------------------------


def test_every_bettor_is_paid_back_what_it_stakes_on_average() -> None:
    table = np.array(betting_table())
    assert table.shape == (CELLS, len(BETTORS))
    assert table.mean(axis=0) == pytest.approx(1, abs=1e-12)
    assert (table > 0).all()


_DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda r, n: r.normal(size=n),
    "heavy tails": lambda r, n: r.standard_cauchy(n),
    "many ties": lambda r, n: r.integers(0, 4, n),
    "all the same": lambda r, n: np.zeros(n),
}


@pytest.mark.parametrize("name", _DISTRIBUTIONS)
def test_p_values_of_an_exchangeable_stream_are_uniform_and_independent(name: str) -> None:
    """However few calibration scores, and with ties: exactly, so 20,000 of them may show it."""
    draw, ps = np.random.default_rng(1), []
    for run in range(100):
        scores = _DISTRIBUTIONS[name](draw, 25 + 200).astype(float).tolist()
        p_values = PValues(array("d", scores[:25]), random.Random(run))
        ps.append([p_values.next(score) for score in scores[25:]])
    values = np.array(ps)
    flat = np.sort(values.reshape(-1))
    # Kolmogorov-Smirnov: 1.95 / √n comes once in 1,000 times. Correlation of neighbours: 3.3 deviations.
    ranks = (np.arange(flat.size) + 0.5) / flat.size
    assert np.abs(flat - ranks).max() < 1.95 / math.sqrt(flat.size)
    centred = values - 0.5
    assert abs((centred[:, 1:] * centred[:, :-1]).mean() * 12) < 3.3 / math.sqrt(values.size)


@pytest.mark.parametrize("test", ["all", "passes"])
def test_false_alarms_keep_their_bound(test: Any) -> None:
    """P(alarm within N) ≤ N / every: 300 streams of 500 with 1 / 2,000 have at most 75 alarms expected.

    More than 101 of 300, where each has a probability of 0.25 at most, come once in 4,000 times. And it is no
    test that never alarms: drift is found below with the same numbers.
    """
    draw, alarmed = np.random.default_rng(0), 0
    for run in range(300):
        calibration = calibrate(draw.normal(size=60), 0.1)
        good = [s for s in calibration.good_scores if test == "all" or s < calibration.threshold]
        camera = CameraDrift(DriftConfig(false_alarm_every=2_000, window=100_000), array("d", good), run)
        stream, tested = draw.normal(size=1_000).tolist(), 0
        for score in stream:
            if test == "passes" and score >= calibration.threshold:
                continue
            tested += 1
            if tested > 500:
                break
            if camera.take(score):
                alarmed += 1
                break
    assert 0 < alarmed <= 101


@pytest.mark.parametrize(
    ("name", "change", "most"),
    [
        ("higher", lambda s: s + 1.0, 120),
        ("lower", lambda s: s - 1.0, 120),
        ("wider", lambda s: s * 2.5, 200),
        ("narrower", lambda s: s * 0.3, 250),
    ],
)
def test_drift_is_found(name: str, change: Callable[[float], float], most: int) -> None:
    delays = []
    for run in range(20):
        draw = np.random.default_rng(run)
        camera = CameraDrift(DriftConfig(), array("d", draw.normal(size=200)), run)
        assert not any(camera.take(score) for score in draw.normal(size=1_000).tolist())
        delays.append(
            next((i for i, s in enumerate(draw.normal(size=2_000).tolist()) if camera.take(change(s))), 9_999)
        )
    assert np.median(delays) <= most


def test_a_long_quiet_time_does_not_make_it_slow() -> None:
    """Unlike a martingale, which may have lost nearly all its capital by then."""
    detector, draw = Detector(1e6), random.Random(0)
    for _ in range(20_000):
        assert not detector.bet(draw.random())
    assert sum(1 for _ in iter(lambda: detector.bet(draw.random() * 0.2), True)) < 40


# ---- one camera ------------------------------------------------------------------------------------------


def test_an_alarm_restarts_the_test_and_drift_is_over_after_a_quiet_time() -> None:
    draw = np.random.default_rng(0)
    config = DriftConfig(clear_after=300)
    camera = CameraDrift(config, array("d", draw.normal(size=200)), 0)
    alarms = [i for i, s in enumerate(draw.normal(2, 1, 600).tolist()) if camera.take(s)]
    assert len(alarms) >= 2  # it goes on, and is told again
    assert camera.state.drifting
    assert camera.state.alarms == len(alarms)
    assert not any(camera.take(s) for s in draw.normal(size=299).tolist())
    camera.take(0.0)
    assert not camera.state.drifting
    assert camera.state.tested == 900


def test_what_changes_slowly_is_compared_with_the_calibration_again() -> None:
    draw = np.random.default_rng(3)
    camera = CameraDrift(DriftConfig(window=1_000), array("d", draw.normal(size=400)), 0)
    slow = draw.normal(size=12_000) + np.linspace(0, 1.5, 12_000)
    assert any(camera.take(score) for score in slow.tolist())


def test_one_in_so_many_is_tested() -> None:
    camera = CameraDrift(DriftConfig(every=10), array("d", range(30)), 0)
    for i in range(95):
        camera.take(float(i % 30))
    assert camera.state.tested == 9


def test_the_same_stream_is_judged_the_same_again() -> None:
    scores = np.random.default_rng(0).integers(0, 5, 300).astype(float).tolist()
    runs = []
    for _ in range(2):
        camera = CameraDrift(DriftConfig(), array("d", [0, 1, 2, 3, 4] * 10), 5)
        for score in scores:
            camera.take(score)
        runs.append(camera.state)
    assert runs[0] == runs[1]


# ---- all cameras -----------------------------------------------------------------------------------------


def test_a_burst_of_true_defects_is_drift_for_all_but_not_for_passes() -> None:
    good = np.random.default_rng(0).normal(size=300)
    draw = np.random.default_rng(1)
    stream = draw.normal(size=2_000)
    stream[1_000:1_200:2] = 50.0  # every second part is bad for a while
    alarms = {}
    for test in ("all", "passes"):
        monitor = _monitor(good, threshold=3.0, test=test)
        for score in stream.tolist():
            monitor.write(_verdict(score, threshold=3.0))
        alarms[test] = monitor.states()["cam"].alarms
    assert alarms["all"] >= 1
    assert alarms["passes"] == 0


def test_scores_that_do_not_count_are_left_out() -> None:
    monitor = _monitor(range(30))
    late = BoxVerdict(score=99.0, verdict=VerdictKind.UNKNOWN, reason="late")
    unscored = BoxVerdict(verdict=VerdictKind.UNKNOWN, reason="camera_fault:black")
    said = _verdict(1.0)
    monitor.write(
        FrameVerdict(**{n: getattr(said, n) for n in said.__struct_fields__} | {"boxes": (late, unscored)})
    )
    monitor.write(_verdict(1.0, 2.0))
    monitor.write(_verdict(1.0, model="another"))
    assert monitor.states()["cam"].tested == 2


def test_without_calibration_or_with_too_little_of_it_nothing_is_tested() -> None:
    for good in ((), range(19)):
        monitor = _monitor(good)
        monitor.write(_verdict(1.0))
        assert monitor.states() == {}
    monitor.use("m", None)
    monitor.write(_verdict(1.0))
    assert monitor.states() == {}


def test_another_model_begins_anew() -> None:
    monitor = _monitor(range(30))
    monitor.write(_verdict(1.0))
    monitor.use("n", with_raw_threshold(range(100, 140), 200.0))
    monitor.write(_verdict(1.0))  # the old one's, still on its way
    assert monitor.states() == {}
    monitor.write(_verdict(110.0, model="n"))
    assert monitor.states()["cam"].tested == 1


def test_cameras_have_sections_of_their_own() -> None:
    monitor = DriftMonitor(DriftConfig(), {"a": DriftConfig(test="none"), "b": DriftConfig(every=2)})
    monitor.use("m", Calibration(good_scores=tuple(range(30)), threshold=99.0))
    for camera in "abc":
        for _ in range(4):
            monitor.write(_verdict(1.0, camera=camera))
    assert {name: state.tested for name, state in monitor.states().items()} == {"b": 2, "c": 4}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"test": "some"}, r"drift.test: expected one of passes, all, none"),
        ({"false_alarm_every": 10}, "false_alarm_every: expected 100 to 1e\\+12, got 10"),
        ({"window": 5}, "window: expected 100 to 1000000, got 5"),
        ({"everyy": 5}, "drift.everyy: unknown key"),
    ],
)
def test_wrong_sections_are_refused(section: dict[str, Any], message: str) -> None:
    camera = {"id": "c", "source": {"kind": "folder", "path": "x"}}
    for line in ({"drift": section, "cameras": [camera]}, {"cameras": [{**camera, "drift": section}]}):
        with pytest.raises(ConfigError, match=message):
            convert({"bundle": "demo", **line}, LineConfig, "")


# ---- in a line -------------------------------------------------------------------------------------------


def test_drift_is_told_by_metrics_and_health_and_leaves_the_line_ready(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from PIL import Image

    monkeypatch.setattr(
        service_module, "open_engine", lambda *_: FakeEngine(spec=bundle.manifest.input_spec, max_batch=8)
    )
    for i in range(4):  # scored far below anything in the calibration, and passed
        Image.fromarray(np.full((16, 16), i, np.uint8)).save(tmp_path / f"{i}.png")
    folder = {"kind": "folder", "path": str(tmp_path), "loop": True}
    calibration = bundle.manifest.calibration
    assert calibration
    with running(
        line_of(bundle, folder, folder, drift={"test": "all", "clear_after": 10_000_000})
    ) as service:
        service.drift.use(
            bundle.model_sha256[:12], with_raw_threshold(np.linspace(-0.5, 0.5, 99), calibration.threshold)
        )
        wait_for(lambda: len(service.drift.warnings()) == 2)
        seen = scrape(service)
        status, reasons = state(service, "/readyz")
        warned = get(service, "/readyz")[2]
    assert (status, reasons) == (200, [])
    assert "camera cam0: scores drift since the calibration" in warned
    assert seen("algan_drifting", camera="cam0") == 1
    assert seen("algan_drift_alarms_total", camera="cam0") >= 1
    assert seen("algan_drift_tested_total", camera="cam1") > 10
    assert "camera cam0: its scores drift" in caplog.text
