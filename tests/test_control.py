"""A running line under `algan-stream ctl`: real processes, real engines, every frame accounted for."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import yaml
import zmq
from typer.testing import CliRunner

from algan_stream import control_wire as wire
from algan_stream.bundle import MODEL, Bundle, read_bundle, replace_calibration
from algan_stream.calibration import with_raw_threshold
from algan_stream.cli import app
from algan_stream.client import Client
from algan_stream.control_client import FailedError, Line
from algan_stream.errors import AlganError, ProtocolError
from algan_stream.manifest import file_entry, read_manifest, write_manifest
from algan_stream.types import FrameVerdict
from bundles import make_bundle
from processes import Service, algan_stream
from vector_bundles import make_vector_bundle

_IMAGES = np.random.default_rng(3).integers(0, 256, (16, 48, 64, 3), np.uint8)
_TRIAL = {"trial_s": 0.5, "keep_s": 600}


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.01)


class Load:
    """A client that keeps a line as busy as its credits allow, until it is told to end."""

    def __init__(self, endpoint: str, camera: str = "cam") -> None:
        self.verdicts: list[FrameVerdict] = []
        self.account: Any = None
        self._endpoint, self._camera = endpoint, camera
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        with Client(self._endpoint, self._camera) as client:
            sent = 0
            while not self._enough.is_set():
                client.send(_IMAGES[sent % len(_IMAGES)])
                self.verdicts += client.poll()
                sent += 1
            self.verdicts += client.drain(30)
            self.account = client.account()

    def __enter__(self) -> Load:
        self._thread.start()
        wait_for(lambda: len(self.verdicts) > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def more(self, frames: int = 40) -> None:
        """Waits for that many more verdicts."""
        seen = len(self.verdicts)
        wait_for(lambda: len(self.verdicts) >= seen + frames)

    def nothing_lost(self) -> None:
        """Every frame has one verdict, in order of sending."""
        assert [v.frame_id for v in self.verdicts] == list(range(self.account.sent))
        assert self.account.answered == self.account.sent


@pytest.fixture
def line(bundle: Bundle, tmp_path: Path) -> Iterator[tuple[Service, Line]]:
    with controlled(tmp_path, bundle) as running:
        yield running, Line(control_of(tmp_path), 30)


def controlled(folder: Path, bundle: Bundle, **more: Any) -> Service:
    """A service with a control socket; the file of the model is the test's own."""
    return Service(folder, bundle.path, **{"control": {"bind": control_of(folder)}, "swap": _TRIAL, **more})


def control_of(folder: Path) -> str:
    return f"ipc://{folder / 'ctl'}"


def other_bundle(path: Path, **more: Any) -> Bundle:
    """Another model, of another input size, with a threshold under which all pass that the first passes."""
    made = make_bundle(path, **{"seed": 7, "size_px": 64, **more})
    return replace_calibration(made, with_raw_threshold((-9.0, 9.0), 50.0))


class Said(NamedTuple):
    """What a command printed, how it ended, and the error that it would have shown."""

    code: int
    out: str
    error: str = ""


def ctl(folder: Path, *arguments: str | Path) -> Said:
    """The command, in this process: starting Python for each would take most of the time."""
    line = ["ctl", str(folder / "line.yaml"), *map(str, arguments)]
    result = CliRunner().invoke(app, line)
    if isinstance(result.exception, AlganError):
        return Said(result.exception.exit_code, result.output, str(result.exception))
    assert result.exit_code == 0, (line, result.output, result.exception)
    return Said(0, result.output)


def swap_over(line: Line) -> wire.SwapStatus:
    """Waits until a swap serves or was refused."""
    wait_for(lambda: line.status().swap.state != "loading")
    return line.status().swap


def ledger_adds_up(service: Service, camera: str = "cam") -> dict[str, int]:
    tally = service.frames(camera)
    assert tally["in_flight"] == 0
    assert tally["received"] == sum(tally[end] for end in ("scored", "dropped", "expired", "failed"))
    return tally


# ---- swap --------------------------------------------------------------------------------------------------


def test_a_swap_under_load_loses_nothing_and_every_verdict_is_one_models(
    line: tuple[Service, Line], bundle: Bundle, tmp_path: Path
) -> None:
    service, control = line
    new = other_bundle(tmp_path / "new")
    with Load(service.endpoint) as load:
        said = ctl(tmp_path, "swap", tmp_path / "new", "--json")
        assert said.code == 0, said.error
        found = json.loads(said.out)
        assert (found["job"], found["outcome"]) == (1, "serving")
        load.more()
        status = control.status()
        assert status.model == new.model_sha256[:12]
        assert status.problems == []
        assert status.swap.kept.startswith(str(bundle.path))
        assert ctl(tmp_path, "rollback").code == 0
        load.more()
        assert control.status().model == bundle.model_sha256[:12]
    assert service.stop() == 0
    load.nothing_lost()
    tally = ledger_adds_up(service)
    assert tally["received"] == tally["scored"] == load.account.sent
    assert bundle.manifest.calibration
    models = {
        bundle.model_sha256[:12]: (bundle.manifest.calibration.threshold, 32),
        new.model_sha256[:12]: (50.0, 64),
    }
    order = [v.model for v in load.verdicts]
    changes = [m for i, m in enumerate(order) if i == 0 or order[i - 1] != m]
    assert changes == [bundle.model_sha256[:12], new.model_sha256[:12], bundle.model_sha256[:12]]
    scores: dict[tuple[str, int], set[float]] = {}
    for verdict in load.verdicts:
        assert verdict.threshold == models[verdict.model][0]
        (box,) = verdict.boxes
        assert box.score is not None
        assert (box.score > models[verdict.model][0]) == (verdict.verdict.value == "reject")
        scores.setdefault((verdict.model, verdict.frame_id % len(_IMAGES)), set()).add(round(box.score, 3))
    assert all(len(found) == 1 for found in scores.values())  # a model says the same of an image at any time


def test_broken_bundles_are_refused_and_the_old_one_serves_on(
    line: tuple[Service, Line], bundle: Bundle, tmp_path: Path
) -> None:
    service, control = line
    with Load(service.endpoint) as load:
        for broken, (code, message) in {
            "truncated": (6, "cannot compile"),
            "altered": (4, "has been altered"),
            "golden": (6, "golden logits"),
            "uncalibrated": (2, "is not calibrated"),
            "missing": (4, "is not a model bundle"),
            "vectors": (2, "sources give images, but this bundle takes vectors"),
        }.items():
            _spoilt(tmp_path / broken)
            said = ctl(tmp_path, "swap", tmp_path / broken)
            assert (said.code, message in said.error) == (code, True), said
            load.more()
            assert control.status().swap.state == "idle"
    assert service.stop() == 0
    load.nothing_lost()
    assert {v.model for v in load.verdicts} == {bundle.model_sha256[:12]}
    tally = ledger_adds_up(service)
    assert tally["received"] == tally["scored"]


def _spoilt(path: Path) -> None:
    """A bundle with the fault that its name tells."""
    model = path / MODEL
    if path.name == "vectors":
        make_vector_bundle(path)
    elif path.name != "missing":
        make_bundle(path, seed=7, calibrated=path.name != "uncalibrated")
    if path.name == "truncated":
        model.write_bytes(model.read_bytes()[:900])
        _list_again(path)
    elif path.name == "altered":
        model.write_bytes(model.read_bytes()[:-1] + b"\0")
    elif path.name == "golden":
        shutil.copy(make_bundle(path.with_name("other"), seed=8).model_path, model)
        _list_again(path)


def _list_again(path: Path) -> None:
    """The manifest is right about a file that is not."""
    manifest = read_manifest(path)
    entry = file_entry(path / MODEL)
    write_manifest(path, msgspec.structs.replace(manifest, files={**manifest.files, MODEL: entry}))


def test_drift_of_outcomes_rolls_back_by_itself(bundle: Bundle, tmp_path: Path) -> None:
    replace_calibration(make_bundle(tmp_path / "new", seed=7), with_raw_threshold((-9.0, 9.0), -1e6))
    mild = other_bundle(tmp_path / "old")
    trial = {"trial_s": 600, "least_frames": 30, "window": 60}
    with controlled(tmp_path, mild, swap=trial) as service, Load(service.endpoint) as load:
        control = Line(control_of(tmp_path), 30)
        load.more(60)
        control.ask(wire.Swap(bundle=str(tmp_path / "new")), wire.Begun)
        wait_for(lambda: control.status().swap.outcome == "rolled_back")
        status = control.status()
        assert "100.0% of" in status.swap.told
        assert "rejects, 0.0% were before" in status.swap.told
        assert status.model == mild.model_sha256[:12]
        assert (status.swap.state, status.problems) == ("idle", [])
        with pytest.raises(FailedError, match="no model to go back to"):
            control.ask(wire.Rollback(), wire.Begun)
        load.more()
    load.nothing_lost()
    assert load.verdicts[-1].model == mild.model_sha256[:12]


def test_only_one_swap_at_a_time_and_the_trial_ends(line: tuple[Service, Line], tmp_path: Path) -> None:
    service, control = line
    new = str(other_bundle(tmp_path / "new").path)
    control.ask(wire.Swap(bundle=new), wire.Begun)  # no frame comes: it goes over all the same
    with pytest.raises(FailedError, match=r"swap 1 is (loading|in trial)"):
        control.ask(wire.Swap(bundle=new), wire.Begun)
    wait_for(lambda: control.status().swap.state == "kept")
    assert swap_over(control).outcome == "serving"
    control.ask(wire.Swap(bundle=str(tmp_path / "nothing")), wire.Begun)
    wait_for(lambda: control.status().swap.outcome == "refused")
    assert control.status().swap.state == "kept"  # a refusal takes no way back away
    control.ask(wire.Rollback(), wire.Begun)
    wait_for(lambda: control.status().swap.outcome == "rolled_back")
    assert service.stop() == 0


# ---- shadow ------------------------------------------------------------------------------------------------


def test_a_shadow_compares_and_changes_nothing(line: tuple[Service, Line], tmp_path: Path) -> None:
    service, control = line
    other_bundle(tmp_path / "new")
    with Load(service.endpoint) as load, Client(service.endpoint, "slow") as slow:
        said = ctl(tmp_path, "shadow", tmp_path / "new", "--share", "1.0", "--json")
        assert said.code == 0, said.error
        assert json.loads(said.out)["state"] == "running"
        with pytest.raises(FailedError, match="a shadow is at work"):
            control.ask(wire.StartShadow(bundle=str(tmp_path / "new"), share=0.5), wire.ShadowAnswer)
        load.more(200)  # under full load, samples give way
        wait_for(lambda: control.ask(wire.GetShadow(), wire.ShadowAnswer).report.dropped > 0)
        assert slow.account().sent == 0
    before = control.ask(wire.GetShadow(), wire.ShadowAnswer).report.frames
    with Client(service.endpoint, "slow") as client:
        for image in _IMAGES:
            client.send(image)
            list(client.drain(10))
            time.sleep(0.02)
    wait_for(lambda: control.ask(wire.GetShadow(), wire.ShadowAnswer).report.frames >= before + 12)
    report = json.loads(ctl(tmp_path, "shadow", "report", "--json").out)
    assert report["frames"] == report["boxes"] == sum(report["verdicts"].values())
    assert set(report["verdicts"]) <= {"pass → pass", "reject → pass"}  # its threshold lets everything pass
    assert report["box_flips"] == report["verdicts"].get("reject → pass", 0)
    assert report["score_difference_largest"] > 0
    assert (report["failed"], report["other_model"]) == (0, 0)
    assert "shadow: running" in ctl(tmp_path, "status").out
    said = ctl(tmp_path, "shadow", "promote", "--json")
    assert said.code == 0, said.error
    assert control.status().bundle == str(tmp_path / "new")
    assert control.status().shadow.state == "off"
    assert ctl(tmp_path, "shadow", "stop").code == 9
    assert service.stop() == 0
    load.nothing_lost()
    tally = ledger_adds_up(service)
    assert tally["received"] == tally["scored"]


def test_a_shadow_of_the_same_model_agrees_with_it(
    line: tuple[Service, Line], bundle: Bundle, tmp_path: Path
) -> None:
    service, control = line
    assert ctl(tmp_path, "shadow", bundle.path, "--share", "1").code == 0
    boxes = np.array([[0, 0, 20, 20], [5, 5, 40, 40], [10, 0, 64, 30]] * 3, np.float32)
    with Client(service.endpoint) as client:
        for image in _IMAGES[:8]:
            client.send(image, boxes=boxes)
            list(client.drain(10))
    wait_for(lambda: control.ask(wire.GetShadow(), wire.ShadowAnswer).report.frames == 8)
    report = control.ask(wire.StopShadow(), wire.ShadowAnswer).report
    assert (report.boxes, report.box_flips, report.dropped) == (72, 0, 0)
    assert report.score_difference_largest < 1e-4
    assert report.p_value_difference_mean == pytest.approx(0, abs=1e-3)
    assert service.stop() == 0


# ---- pause, recalibration, reload, stop ------------------------------------------------------------------


def test_a_paused_camera_answers_and_accounts_for_every_frame(
    line: tuple[Service, Line], tmp_path: Path
) -> None:
    service, control = line
    with Client(service.endpoint) as client:
        assert ctl(tmp_path, "pause", "cam").code == 0
        assert control.status().cameras["cam"].paused
        for image in _IMAGES[:5]:
            client.send(image, boxes=np.array([[0, 0, 9, 9]], np.float32))
        paused = list(client.drain(10))
        assert [(v.verdict.value, v.reason, v.outcome.value) for v in paused] == [
            ("unknown", "paused", "dropped")
        ] * 5
        assert all(box.score is None for v in paused for box in v.boxes)
        assert ctl(tmp_path, "resume", "cam").code == 0
        client.send(_IMAGES[0])
        (scored,) = client.drain(10)
        assert scored.outcome.value == "scored"
    assert ctl(tmp_path, "pause", "press").code == 2
    assert service.stop() == 0
    assert ledger_adds_up(service) == {**service.frames(), "received": 6, "scored": 1, "dropped": 5}
    assert service.stopped["cameras"]["cam"]["reasons"] == {"paused": 5}


def test_recalibration_from_parts_declared_good(
    line: tuple[Service, Line], bundle: Bundle, tmp_path: Path
) -> None:
    service, control = line
    said = ctl(tmp_path, "recalibrate", "start", "--camera", "cam", "--images", "10")
    assert said.code == 5
    assert "needs at least 19 good" in said.error
    start = ("recalibrate", "start", "--camera", "cam", "--images", "40")
    assert ctl(tmp_path, *start).code == 0
    assert ctl(tmp_path, *start).code == 9
    rng = np.random.default_rng(11)
    pictures = rng.integers(0, 256, (45, 48, 64, 3), np.uint8)
    with Client(service.endpoint) as client:
        scores: list[float] = []
        for i, picture in enumerate(pictures):
            if i == 5:
                assert ctl(tmp_path, "recalibrate", "finish").code == 5  # 5 of 40
            client.send(picture)
            scores += [v.boxes[0].score or np.nan for v in client.drain(10)]
    out = tmp_path / "again"
    said = ctl(tmp_path, "recalibrate", "finish", "--apply", "--out", out, "--json")
    assert said.code == 0, said.error
    answer = json.loads(said.out.splitlines()[0])
    assert answer["threshold"] == pytest.approx(sorted(scores[:40])[38])  # k = ceil(0.95 · 41) = 39
    low, high = answer["false_reject_rate_ci95"]
    assert 0 < low < 0.05 < high < 1
    assert answer["collected"]["scores"] == 40
    copied = read_bundle(out)
    assert copied.model_sha256 == bundle.model_sha256
    assert copied.manifest.calibration
    assert copied.manifest.calibration.threshold == answer["threshold"]
    assert copied.manifest.provenance["recalibrated"]["camera"] == "cam"
    status = control.status()
    assert (status.threshold, status.bundle) == (answer["threshold"], str(out))
    assert read_bundle(bundle.path).manifest.calibration == bundle.manifest.calibration  # stays as it was
    with Client(service.endpoint) as client:
        client.send(_IMAGES[0])
        assert next(iter(client.drain(10))).threshold == answer["threshold"]
    assert service.stop() == 0


def test_reload_follows_the_file_or_leaves_everything(own_bundle: Bundle, tmp_path: Path) -> None:
    with controlled(tmp_path, own_bundle) as service:
        control = Line(control_of(tmp_path), 30)
        with Load(service.endpoint) as load:
            _reloads(service, control, own_bundle, tmp_path, load)
        assert service.stop() == 0
    load.nothing_lost()
    ledger_adds_up(service)
    press = service.stopped["cameras"]["press"]["frames"]
    assert press["received"] == press["scored"] == 1
    more = (tmp_path / "more.jsonl").read_text().splitlines()
    assert 0 < len(more) < load.account.sent  # from the reload to the next one


def _reloads(service: Service, control: Line, bundle: Bundle, folder: Path, load: Load) -> None:
    config = yaml.safe_load(service.file.read_text())
    press = {"id": "press", "source": {"kind": "zmq", "bind": f"ipc://{folder / 'press'}"}}

    def rewrite(**more: Any) -> None:
        service.file.write_text(yaml.safe_dump({**config, **more}), "utf-8")

    def changes() -> list[str]:
        return control.ask(wire.Reload(), wire.Reloaded).changes

    assert changes() == []
    rewrite(cameras=[*config["cameras"], press], engine={"kind": "openvino", "threads": 2})
    with pytest.raises(FailedError, match="nothing was changed: engine: needs a restart"):
        changes()
    sinks = [*config["sinks"], {"kind": "jsonl", "path": "more.jsonl"}]
    broken = {"kind": "zmq_pub", "bind": service.endpoint}
    rewrite(cameras=[*config["cameras"], press], sinks=[*sinks, broken])
    with pytest.raises(FailedError, match=r"sinks\[2\].*in use"):  # after the new jsonl could be opened
        changes()
    rewrite(cameras=[*config["cameras"], {**press, "sauce": 1}])
    with pytest.raises(FailedError, match=r"cameras\[1\].sauce"):
        changes()
    assert set(control.status().cameras) == {"cam"}
    late = {**config["cameras"][0], "deadline_ms": 5000.0}
    assert bundle.manifest.calibration
    rewrite(cameras=[late, press], sinks=sinks)
    replace_calibration(bundle, with_raw_threshold(bundle.manifest.calibration.good_scores, 40.0))
    assert changes() == [
        "camera cam: deadline_ms: None → 5000.0",
        "camera press: added",
        "sinks[1]: jsonl added",
        f"threshold: {bundle.manifest.calibration.threshold:.6g} → 40",
    ]
    with Client(f"ipc://{folder / 'press'}") as client:
        client.send(_IMAGES[0])
        assert next(iter(client.drain(10))).threshold == 40.0
    load.more()
    wait_for(lambda: control.status().swap.state == "kept")
    rewrite(cameras=[late])
    assert changes() == ["camera press: removed", "sink jsonl: removed"]
    with pytest.raises(ProtocolError):
        Client(f"ipc://{folder / 'press'}", timeout_s=0.3)
    load.more()


def test_status_stop_and_strangers(line: tuple[Service, Line], bundle: Bundle, tmp_path: Path) -> None:
    service, control = line
    assert (tmp_path / "ctl").stat().st_mode & 0o777 == 0o600
    status = json.loads(ctl(tmp_path, "status", "--json").out)
    assert status["bundle"] == str(bundle.path)
    assert status["cameras"]["cam"]["waiting"] == 0
    said = ctl(tmp_path, "status").out
    assert f"bundle {bundle.path}: model {bundle.model_sha256[:12]}" in said
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.REQ_RELAXED, 1)
        socket.connect(control_of(tmp_path))
        for parts in ([b""], [b"\xc1"], [b"\x81\xa4type\xa4boom"], [b"a", b"b"], [bytes(60_000)]):
            socket.send_multipart(parts)
            assert isinstance(wire.decode_answer(socket.recv()), wire.Refused)
        socket.send(bytes(wire.MAX_REQUEST_BYTES + 1))  # closes that connection, and harms nobody
    assert control.status().phase == "running"
    (tmp_path / "mute").mkdir()
    config = yaml.safe_load(service.file.read_text())
    del config["control"]
    (tmp_path / "mute" / "line.yaml").write_text(yaml.safe_dump(config))
    assert "has no control socket" in ctl(tmp_path / "mute", "status").error
    with pytest.raises(ProtocolError, match=r"no answer within 0.2 s"):
        Line(f"ipc://{tmp_path / 'nobody'}", 0.2).status()
    stopped = algan_stream("ctl", control_of(tmp_path), "stop")  # as an operator does
    assert (stopped.returncode, stopped.stdout.split(";")[0]) == (0, "stopping")
    assert service.process.wait(30) == 0


def test_an_uncalibrated_bundle_is_warned_of(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle", calibrated=False)
    with controlled(tmp_path, made) as service:
        assert service.stop() == 0
    assert "is not calibrated: every verdict will be unknown" in service.errors
