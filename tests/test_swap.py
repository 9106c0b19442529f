"""Swaps, trials and shadows with engines whose answers and failures a test controls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from algan_stream import service as service_module
from algan_stream.bundle import Bundle, replace_calibration
from algan_stream.calibration import with_raw_threshold
from algan_stream.config import LineConfig, SwapConfig
from algan_stream.errors import BusyError, ConfigError
from algan_stream.intake import Intake
from algan_stream.model import Model, check_successor
from algan_stream.outcomes import Outcomes
from algan_stream.pipeline import Pipeline
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.shadow import CAPACITY, Shadow
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VectorSpec, VerdictKind
from bundles import make_bundle
from fakes import SPEC, FakeEngine, ListSink, fake_bundle, grey_frame

_TRIAL = {"trial_s": 600, "least_frames": 20, "window": 60}


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.005)


class Rig:
    """A service in this process whose engines are fakes, one for each bundle; `engines` has them by name."""

    def __init__(self, folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch, **trial: Any) -> None:
        self.folder, self.sink = folder, ListSink()
        self.engines: dict[str, FakeEngine] = {}
        self.make: dict[str, Callable[[], FakeEngine]] = {}
        monkeypatch.setattr(service_module, "open_engine", self._open)
        self.old = self.bundle("old")
        source = {"kind": "folder", "path": str(images), "loop": True, "fps": 400}
        line: LineConfig = convert(
            {
                "bundle": str(self.old.path),
                "cameras": [{"id": "cam", "source": source}],
                "control": {"bind": f"ipc://{folder / 'ctl'}"},
                "swap": {**_TRIAL, **trial},
            },
            LineConfig,
            "",
        )
        self.service = Service(line, [self.sink])
        self.swapper = self.service.control.swapper  # type: ignore[union-attr]
        self.ended: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.ended.append(self.service.run()))

    def bundle(self, name: str, threshold: float = 9.0, **engine: Any) -> Bundle:
        """A real bundle whose engine is a fake with these properties."""
        made = make_bundle(self.folder / name)
        self.make[str(made.path)] = lambda: FakeEngine(spec=made.manifest.image_spec, **engine)
        return replace_calibration(made, with_raw_threshold((0.0,), threshold))

    def _open(self, bundle: Bundle, _: object = None) -> FakeEngine:
        self.engines[bundle.path.name] = self.make[str(bundle.path)]()
        return self.engines[bundle.path.name]

    def over(self) -> str:
        """Waits for the latest swap's end; what became of it."""
        wait_for(lambda: self.swapper.status().state != "loading")
        return self.swapper.status().outcome

    def stop(self) -> list[FrameVerdict]:
        """The verdicts, once every frame is accounted for and every engine closed."""
        self.service.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        frames = self.ended[0]["cam"].frames
        assert frames.in_flight == 0
        assert frames.received == len(self.sink.verdicts)
        assert [v.frame_id for v in self.sink.verdicts] == list(range(frames.received))
        assert {name: engine.closed > 0 for name, engine in self.engines.items()} == dict.fromkeys(
            self.engines, True
        )
        return self.sink.verdicts


@pytest.fixture
def images(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(np.full((40, 40), 20 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def rig(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path, images, monkeypatch)
    made.thread.start()
    wait_for(lambda: len(made.sink.verdicts) > 30)
    yield made
    made.service.stop()
    made.thread.join(30)


def fails_after(batches: int) -> Callable[[int, Any], Any]:
    def finish(number: int, logits: Any) -> Any:
        if number >= batches:
            raise RuntimeError("the device is gone")
        return logits

    return finish


def test_an_engine_that_fails_in_its_trial_is_rolled_back(rig: Rig) -> None:
    new = rig.bundle("new", on_finish=fails_after(3))
    rig.swapper.swap(str(new.path))
    wait_for(lambda: rig.swapper.status().outcome == "rolled_back")
    assert "the engine failed on" in rig.swapper.status().told
    assert rig.service.bundle.path == rig.old.path
    assert rig.engines["new"].closed
    assert not rig.engines["old"].closed
    seen = len(rig.sink.verdicts)
    wait_for(lambda: len(rig.sink.verdicts) > seen + 20)
    verdicts = rig.stop()
    failed = [v for v in verdicts if v.outcome is Outcome.FAILED]
    assert failed
    assert {(v.verdict, v.reason) for v in failed} == {(VerdictKind.UNKNOWN, "engine_error")}
    assert verdicts[-1].outcome is Outcome.SCORED


def test_more_unknowns_than_before_are_rolled_back(rig: Rig) -> None:
    new = rig.bundle("new", on_finish=lambda number, logits: logits * (np.nan if number % 3 == 0 else 1.0))
    rig.swapper._config = msgspec.structs.replace(rig.swapper._config, engine_faults=1_000_000)
    rig.swapper.swap(str(new.path))
    wait_for(lambda: rig.swapper.status().outcome == "rolled_back")
    assert "are unknown, 0.0% were before" in rig.swapper.status().told
    assert {v.reason for v in rig.stop()} == {"", "score_not_finite"}


def test_engines_are_closed_when_nobody_needs_them_any_more(rig: Rig) -> None:
    rig.swapper._config = SwapConfig(trial_s=0, keep_s=600)
    for name in ("b", "c"):
        rig.swapper.swap(str(rig.bundle(name).path))
        assert rig.over() == "serving"
        wait_for(lambda: rig.swapper.status().state == "kept")
    wait_for(lambda: rig.engines["old"].closed == 1)  # b is kept, c serves
    assert (rig.engines["b"].closed, rig.engines["c"].closed) == (0, 0)
    served = rig.service.pipeline.model
    again = Model(
        replace_calibration(served.bundle, with_raw_threshold((0.0,), 0.5)), served.engine
    )  # another threshold with the same engine
    rig.swapper.adopt(again)
    assert rig.over() == "serving"
    wait_for(lambda: rig.engines["b"].closed == 1)
    wait_for(lambda: rig.sink.verdicts[-1].threshold == 0.5)
    wait_for(lambda: rig.swapper.status().state == "kept")
    rig.swapper.rollback()
    wait_for(lambda: rig.swapper.status().outcome == "rolled_back")
    wait_for(lambda: rig.sink.verdicts[-1].threshold == 9.0)
    assert rig.engines["c"].closed == 0
    rig.stop()


def test_what_is_kept_goes_when_its_time_is_over(rig: Rig) -> None:
    rig.swapper._config = SwapConfig(trial_s=0, keep_s=0)
    rig.swapper.swap(str(rig.bundle("new").path))
    wait_for(lambda: rig.swapper.status().state == "idle")
    assert rig.engines["old"].closed == 1
    with pytest.raises(BusyError, match="no model to go back to"):
        rig.swapper.rollback()
    rig.stop()


def test_the_end_overtakes_a_swap_that_loads(rig: Rig) -> None:
    new, go_on = rig.bundle("new"), threading.Event()
    make = rig.make[str(new.path)]

    def slow() -> FakeEngine:
        go_on.wait(20)
        return make()

    rig.make[str(new.path)] = slow
    rig.swapper.swap(str(new.path))
    wait_for(lambda: rig.swapper.status().state == "loading")
    with pytest.raises(BusyError, match="swap 1 is loading"):
        rig.swapper.swap(str(new.path))
    rig.service.stop()
    time.sleep(0.1)
    go_on.set()
    verdicts = rig.stop()
    assert {v.outcome for v in verdicts} == {Outcome.SCORED}


def test_health_stays_well_and_metrics_name_the_new_model(rig: Rig) -> None:
    notes = []
    rig.swapper.swap(str(rig.bundle("new", threshold=8.0).path))
    while rig.swapper.status().state == "loading":
        notes += rig.service.health.not_ready()
    assert notes == rig.service.health.not_ready() == []
    assert rig.service.bundle.path.name == "new"
    assert rig.service.engine is rig.engines["new"]
    rig.stop()


# ---- what may take over ----------------------------------------------------------------------------------


def test_which_bundles_may_follow_each_other() -> None:
    def vectors(features: int, names: tuple[str, ...] = ()) -> Bundle:
        manifest = msgspec.structs.replace(
            fake_bundle().manifest,
            model_kind="algan-vector",
            input_spec=msgspec.UNSET,
            vector_spec=VectorSpec(features=features, names=names),
        )
        return Bundle(Path("vectors"), manifest)

    large = fake_bundle(spec=msgspec.structs.replace(SPEC, height_px=9))
    check_successor(fake_bundle(), large)  # slots are each engine's own
    check_successor(vectors(2, ("a", "b")), vectors(2))
    check_successor(fake_bundle(None), fake_bundle(None))
    deep = fake_bundle(spec=msgspec.structs.replace(SPEC, white_level=4095))
    for old, new, message in (
        (fake_bundle(), vectors(2), "sources give images, but this bundle takes vectors"),
        (vectors(2), vectors(3), "have 2 numbers, this bundle takes 3"),
        (vectors(2, ("a", "b")), vectors(2, ("b", "a")), "other names"),
        (fake_bundle(), deep, "white level 4095"),
        (fake_bundle(), fake_bundle(None), "is not calibrated"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_successor(old, new)


def _said(model: Model, kind: VerdictKind, reason: str = "", box: str = "") -> FrameVerdict:
    boxes = (BoxVerdict(verdict=VerdictKind.UNKNOWN, reason=box),) if box else ()
    return FrameVerdict(
        camera="cam",
        frame_id=0,
        verdict=kind,
        reason=reason,
        boxes=boxes,
        outcome=Outcome.FAILED if box else Outcome.SCORED,
        captured_ns=0,
        threshold=model.threshold,
        model=model.name,
        engine=model.engine_name,
    )


def test_outcomes_are_counted_by_model_over_the_latest_frames() -> None:
    outcomes = Outcomes(10)
    one, two = (Model(fake_bundle(threshold), FakeEngine()) for threshold in (0.0, 1.0))
    for _ in range(30):
        outcomes.write(_said(one, VerdictKind.PASS))
    for _ in range(4):
        outcomes.write(_said(one, VerdictKind.REJECT))
    outcomes.write(_said(one, VerdictKind.UNKNOWN, "late"))
    for reason in ("paused", "camera_fault", "malformed_frame: x", "shutdown"):
        outcomes.write(_said(one, VerdictKind.UNKNOWN, reason))  # nobody's fault
    outcomes.write(_said(one, VerdictKind.REJECT, box="engine_error"))  # a reject that hides a failure
    rates = outcomes.rates(one)
    assert (rates.frames, rates.unknown, rates.engine_faults) == (10, 0.2, 1)
    assert rates.reject == 0.5
    assert outcomes.rates(two).frames == 0
    outcomes.write(_said(two, VerdictKind.PASS))
    assert outcomes.rates(two) == outcomes.rates(Model(fake_bundle(1.0), FakeEngine()))
    outcomes.forget(one)
    assert outcomes.rates(one).frames == 0
    for i in range(9):
        outcomes.write(_said(Model(fake_bundle(float(i)), FakeEngine()), VerdictKind.PASS))
    assert len(outcomes._windows) <= 4


@pytest.mark.parametrize(
    ("key", "value"),
    [("trial_s", -1), ("window", 0), ("least_frames", 2000), ("unknown_rise", 1.1), ("reject_change", -0.1)],
)
def test_trials_that_make_no_sense(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"swap: {key}: expected"):
        convert({key: value}, SwapConfig, "swap")


def test_control_is_on_this_machine_alone() -> None:
    cameras = [{"id": "cam", "source": {"kind": "folder", "path": "x"}}]
    with pytest.raises(ConfigError, match=r"control.*expected ipc://PATH"):
        convert(
            {"bundle": "demo", "cameras": cameras, "control": {"bind": "tcp://0.0.0.0:1"}}, LineConfig, ""
        )


# ---- shadow ----------------------------------------------------------------------------------------------


class Watched:
    """A pipeline with a shadow."""

    def __init__(self, shadow: FakeEngine, share: float = 1.0, threshold: float = 0.5) -> None:
        self.sink, self.engine = ListSink(), FakeEngine()
        self.pipeline = Pipeline(fake_bundle(), self.engine, [self.sink])
        self.pipeline.open_camera("cam", 64, "block")
        self.pipeline.start()
        self.shadow = Shadow(self.pipeline, Model(fake_bundle(threshold), shadow), share)

    def send(self, brightness: int, number: int = 0, **more: Any) -> np.ndarray:
        frame = grey_frame(number, brightness, **more)
        seen = len(self.sink.verdicts)
        image = frame.image
        self.pipeline.receive(frame)
        wait_for(lambda: len(self.sink.verdicts) > seen)
        return image

    def close(self) -> None:
        self.shadow.close()
        self.pipeline.close()


def test_a_shadow_reads_its_own_copy_and_counts_flips() -> None:
    engine = FakeEngine()
    engine.release.clear()
    watched = Watched(engine)
    replies: list[FrameVerdict] = []
    for number, brightness in enumerate((10, 160, 250)):
        image = watched.send(brightness, number, reply=replies.append)
        image[:] = 77  # the source's again, now that the verdict is out
    engine.release.set()
    wait_for(lambda: watched.shadow.report().frames == 3)
    report = watched.shadow.report()
    assert report.verdicts == {"pass → pass": 1, "reject → pass": 1, "reject → reject": 1}
    assert (report.boxes, report.box_flips) == (3, 1)
    assert report.score_difference_largest < 1e-6
    assert [v.frame_id for v in replies] == [0, 1, 2]
    watched.close()
    assert engine.closed


def test_a_shadow_that_hangs_or_fails_harms_nobody() -> None:
    engine = FakeEngine(patience_s=0.2, on_finish=fails_after(2))
    engine.release.clear()
    watched = Watched(engine)
    for number in range(3 * CAPACITY):
        watched.send(10, number)
    assert all(verdict.outcome is Outcome.SCORED for verdict in watched.sink.verdicts)
    assert watched.shadow.report().dropped >= 2 * CAPACITY - 2
    engine.release.set()
    wait_for(lambda: watched.shadow.report().failed > 2)
    watched.close()


def test_what_has_no_score_of_the_model_is_not_compared() -> None:
    watched = Watched(FakeEngine())
    watched.send(10, 0, deadline_ns=1)
    watched.send(10, 1, fault="bad_image: torn")  # never comes so far
    other = Model(fake_bundle(0.25), FakeEngine())
    assert watched.pipeline.swap(other).wait(20)
    watched.send(10, 2)
    wait_for(lambda: watched.shadow.report().other_model == 1)
    report = watched.shadow.report()
    assert (report.unscored, report.frames, report.dropped) == (1, 0, 0)
    watched.close()


def test_a_share_is_a_share() -> None:
    engine = FakeEngine()
    watched = Watched(engine, share=0.25)
    for number in range(400):
        watched.pipeline.receive(grey_frame(number, 10))
    wait_for(lambda: len(watched.sink.verdicts) == 400)
    report = watched.shadow.report()
    wait_for(lambda: watched.shadow._held == 0)
    report = watched.shadow.report()
    assert 50 <= report.frames + report.dropped <= 150  # 100 ± 5.8 standard deviations
    watched.close()


# ---- parts -----------------------------------------------------------------------------------------------


def test_an_interrupt_ends_a_wait_without_an_end() -> None:
    intake, taken = Intake(), []
    intake.open_lane("cam", 4, "block")
    waiter = threading.Thread(target=lambda: taken.append(intake.take(None)))
    waiter.start()
    intake.wake()
    time.sleep(0.05)
    assert waiter.is_alive()
    intake.interrupt()
    waiter.join(10)
    assert taken == [None]
    intake.put(grey_frame())
    intake.close_lane("cam")
    assert intake.depths() == {"cam": 1}  # not while a frame waits
    intake.take(0)
    intake.close_lane("cam")
    assert intake.depths() == {}


def test_the_swapper_of_a_line_that_builds_its_engine_waits(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Rig(tmp_path, images, monkeypatch)
    monkeypatch.setattr(Service, "building", True)
    with pytest.raises(BusyError, match="own engine is being built"):
        made.swapper.swap(str(made.old.path))
    made.service.stop()
    made.service.run()
