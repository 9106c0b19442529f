"""A slower engine serves while the line's own is built; then the line goes over, and no frame notices."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from algan_stream import plugins
from algan_stream.batcher import BatchConfig
from algan_stream.bundle import Bundle
from algan_stream.config import LineConfig
from algan_stream.errors import MissingEngineError
from algan_stream.model import Model
from algan_stream.pipeline import Pipeline
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.types import FrameVerdict, Outcome
from fakes import FakeEngine, ListSink, fake_bundle, grey_frame


def engine(name: str, **more: Any) -> FakeEngine:
    made = FakeEngine(**more)
    made.identity = replace(made.identity, kind=name)
    return made


def until(condition: Callable[[], Any], patience_s: float = 30.0) -> None:
    give_up = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


# ---- the swap ----------------------------------------------------------------------------------------------


def test_engines_are_swapped_under_load_and_no_frame_is_lost() -> None:
    """Three cameras send without a pause; four engines of different sizes take over from each other."""
    engines = [engine(f"e{i}", max_batch=2 + i, streams=1 + i % 2, delay_s=0.001) for i in range(4)]
    sink = ListSink()
    pipeline = Pipeline(fake_bundle(), engines[0], [sink], BatchConfig(max_wait_ms=1))
    cameras = [f"cam{i}" for i in range(3)]
    for camera in cameras:
        pipeline.open_camera(camera, 8, "block")
    pipeline.start()
    enough = threading.Event()
    sent: Counter[str] = Counter()

    def send(camera: str) -> None:
        while not enough.is_set():
            pipeline.receive(grey_frame(sent[camera], sent[camera] % 256, camera))
            sent[camera] += 1

    senders = [threading.Thread(target=send, args=(camera,)) for camera in cameras]
    for sender in senders:
        sender.start()
    for old, new in pairwise(engines):
        until(lambda old=old: len(old.batch_sizes) > 20)
        assert pipeline.swap(Model(fake_bundle(), new)).wait(30)
        scored = sum(old.batch_sizes)
        assert not old._running  # everything of the old one was collected before it counts as retired
        assert old._free.qsize() == len(old.slots)
        time.sleep(0.02)
        assert sum(old.batch_sizes) == scored
    until(lambda: len(engines[-1].batch_sizes) > 20)
    enough.set()
    for sender in senders:
        sender.join()
    pipeline.close()
    accounts = pipeline.ledger.snapshot()
    for camera in cameras:
        tally = accounts[camera].frames
        assert tally.received == tally.scored == sent[camera]
        assert tally.in_flight == 0
        mine = [verdict for verdict in sink.verdicts if verdict.camera == camera]
        assert [verdict.frame_id for verdict in mine] == list(range(sent[camera]))
        names = [verdict.engine.split()[0] for verdict in mine]
        assert names == sorted(names)  # once it has gone over, it does not come back
    said = Counter(verdict.engine.split()[0] for verdict in sink.verdicts)
    assert said == {e.identity.kind: sum(e.batch_sizes) for e in engines}  # who scored it is who it names


def test_what_is_in_flight_and_what_is_open_end_on_the_old_engine() -> None:
    old, new, sink = engine("old", max_batch=4), engine("new", max_batch=4), ListSink()
    old.release.clear()
    pipeline = Pipeline(fake_bundle(), old, [sink], BatchConfig(max_wait_ms=60_000))
    pipeline.open_camera("cam", 64, "block")
    pipeline.start()
    for i in range(7):  # one or more batches hang in the engine, the rest is open
        pipeline.receive(grey_frame(i))
    until(lambda: pipeline._intake.empty() and sum(old.batch_sizes) >= 4)
    retired = pipeline.swap(Model(fake_bundle(), new))
    pipeline.receive(grey_frame(7))
    until(lambda: new.batch_sizes or pipeline._batcher._engine is new)
    assert not retired.is_set()
    assert sum(old.batch_sizes) == 7
    old.release.set()
    assert retired.wait(10)
    pipeline.close()
    assert [verdict.engine.split()[0] for verdict in sink.verdicts] == ["old"] * 7 + ["new"]
    assert all(verdict.outcome is Outcome.SCORED for verdict in sink.verdicts)


def test_a_swap_that_the_end_overtakes() -> None:
    old, new = engine("old"), engine("new")
    pipeline = Pipeline(fake_bundle(), old, [], None)
    pipeline.open_camera("cam", 4, "block")
    pipeline.start()
    pipeline.close()
    assert not pipeline.swap(Model(fake_bundle(), new)).is_set()


def test_an_engine_that_hangs_does_not_hold_the_next_one_up() -> None:
    old, new, sink = engine("old", patience_s=0.1), engine("new"), ListSink()
    old.release.clear()
    pipeline = Pipeline(fake_bundle(), old, [sink], None)
    pipeline.open_camera("cam", 8, "block")
    pipeline.start()
    pipeline.receive(grey_frame(0))
    retired = pipeline.swap(Model(fake_bundle(), new))
    pipeline.receive(grey_frame(1))
    assert retired.wait(10)
    pipeline.close()
    told = {verdict.frame_id: (verdict.reason, verdict.engine.split()[0]) for verdict in sink.verdicts}
    assert told[1][1] == "new"
    assert told[0] in {("engine_error", "old"), ("", "new")}  # it may have been taken after the swap
    tally = pipeline.ledger.snapshot()["cam"].frames
    assert tally.received == 2
    assert tally.in_flight == 0


# ---- the whole path ----------------------------------------------------------------------------------------

_PLUGIN = '''
"""An engine that has to be built: OpenVINO's, once a file says so."""
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from algan_stream.engines import openvino
from algan_stream.errors import MissingEngineError


class Config(openvino.Config, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kind: Literal["slow_engine"] = "slow_engine"
    built: str
    command: tuple[str, ...] = ()


def create(bundle, config):
    if not Path(config.built).is_file():
        raise MissingEngineError("no engine yet; build it by: algan-stream build", config.command)
    engine = openvino.OpenVinoEngine(bundle, config)
    engine.identity = replace(engine.identity, kind="slow_engine")
    if Path(config.built).read_text() == "wrong":
        engine._finish = lambda slot, timeout_s, real=engine._finish: real(slot, timeout_s) + 9
    return engine
'''


class _Entry:
    name = value = "slow_engine"


@pytest.fixture
def line(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LineConfig]]:
    """Makes lines with an engine that some Python code builds."""
    (tmp_path / "slow_engine.py").write_text(_PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def offered(group: str, name: str = "") -> list[type[_Entry]]:
        return [_Entry] if group == "algan_stream.engines" and name in ("", _Entry.name) else []

    monkeypatch.setattr(plugins, "entry_points", offered)
    images = tmp_path / "images"
    images.mkdir()
    for i in range(10):
        Image.fromarray(np.full((40, 40), 20 * i, np.uint8)).save(images / f"{i}.png")

    def make(build: str) -> LineConfig:
        built = str(tmp_path / "built")
        command = [sys.executable, "-c", f"built = {built!r}\n{build}"]
        raw = {
            "bundle": str(bundle.path),
            "engine": {
                "kind": "slow_engine",
                "threads": 1,
                "max_batch": 3,
                "built": built,
                "command": command,
            },
            "cameras": [
                {"id": "cam", "source": {"kind": "folder", "path": str(images), "loop": True, "fps": 200}}
            ],
        }
        made: LineConfig = convert(raw, LineConfig, "")
        return made

    yield make
    sys.modules.pop("slow_engine", None)


def serve(
    line: LineConfig, enough: Callable[[Service, ListSink], bool]
) -> tuple[Service, list[FrameVerdict]]:
    """Runs a line until it is enough, and checks its accounts."""
    sink = ListSink()
    service = Service(line, [sink], build_if_missing=True)
    runner = threading.Thread(target=service.run)
    runner.start()
    try:
        until(lambda: enough(service, sink))
    finally:
        service.stop()
        runner.join(30)
    tally = service.accounts()["cam"].frames
    assert tally.received == tally.scored == len(sink.verdicts)
    assert [verdict.frame_id for verdict in sink.verdicts] == list(range(len(sink.verdicts)))
    return service, sink.verdicts


def kinds(verdicts: list[FrameVerdict]) -> list[str]:
    """Which engines said it, in order, each once."""
    names = [verdict.engine.split()[0] for verdict in verdicts]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_a_missing_engine_is_built_while_another_serves(
    line: Callable[..., LineConfig], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    late = 0

    def enough(service: Service, sink: ListSink) -> bool:
        nonlocal late
        late += service.engine.identity.kind == "slow_engine"
        return late > 20 and kinds(sink.verdicts) == ["openvino", "slow_engine"]

    made = line("import time; time.sleep(1); open(built, 'w').write('right')")
    service, verdicts = serve(made, enough)
    assert "(stands in for slow_engine)" in verdicts[0].engine
    assert "stands in" not in verdicts[-1].engine
    assert service.engine.identity.kind == "slow_engine"
    assert sum("openvino" in verdict.engine for verdict in verdicts) > 20  # it served during the build
    assert "serves meanwhile" in caplog.text
    assert "building the missing engine" in caplog.text


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("raise SystemExit('out of memory')", "build of the missing engine failed.*out of memory"),
        ("open(built, 'w').write('wrong')", "cannot serve after its build.*golden logits"),
        ("pass", "cannot serve after its build.*no engine yet"),
    ],
    ids=["the build fails", "the gate refuses", "nothing was built"],
)
def test_a_build_that_comes_to_nothing_leaves_the_stand_in(
    line: Callable[..., LineConfig], caplog: pytest.LogCaptureFixture, build: str, message: str
) -> None:
    seen = 0

    def enough(_: Service, sink: ListSink) -> bool:
        nonlocal seen
        seen = seen or (len(sink.verdicts) if "the stand-in goes on" in caplog.text else 0)
        return seen > 0 and len(sink.verdicts) > seen + 20

    service, verdicts = serve(line(build), enough)
    assert kinds(verdicts) == ["openvino"]
    assert service.engine.identity.stand_in_for == "slow_engine"
    assert re.search(message, caplog.text)


def test_a_stop_during_the_build_ends_it(line: Callable[..., LineConfig], tmp_path: Path) -> None:
    began = time.monotonic()
    mark = "open(built + '.began', 'w').close(); import time; time.sleep(60)"
    service, verdicts = serve(
        line(mark), lambda _, sink: (tmp_path / "built.began").is_file() and len(sink.verdicts) > 0
    )
    assert time.monotonic() - began < 30
    assert kinds(verdicts) == ["openvino"]
    assert service._build is not None
    assert service._build._child is not None
    assert service._build._child.returncode is not None


def test_without_the_option_it_refuses_to_start(line: Callable[..., LineConfig]) -> None:
    with pytest.raises(MissingEngineError, match="build it by: algan-stream build"):
        Service(line("pass"))


def test_an_engine_that_is_there_needs_no_stand_in(line: Callable[..., LineConfig], tmp_path: Path) -> None:
    (tmp_path / "built").write_text("right")
    service, verdicts = serve(line("raise SystemExit(1)"), lambda _, sink: len(sink.verdicts) > 5)
    assert kinds(verdicts) == ["slow_engine"]
    assert service._build is None
