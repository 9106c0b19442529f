"""What was archived is scored again: the same scores, or exactly what differs and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from algan_stream import archive
from algan_stream.bundle import Bundle, read_bundle, replace_calibration
from algan_stream.calibration import calibrate
from algan_stream.cli import app
from algan_stream.client import Client
from algan_stream.decision import Decider
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.preprocess import preprocess
from algan_stream.replay import Judge, Status, Summary, replay
from algan_stream.sinks.archive import ArchiveSink
from algan_stream.sinks.outlet import open_sink
from algan_stream.types import Frame, FrameVerdict, Outcome, VerdictKind
from bundles import make_bundle
from processes import Service, algan_stream
from test_archive import _SHAPES
from test_explain import with_explanation
from vector_bundles import make_vector_bundle

runner = CliRunner()
_ENGINE = {"kind": "openvino", "threads": 1, "max_batch": 4}


def _image(seed: int, shape: tuple[int, ...] = (48, 64, 3)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return cv2.blur(noise, (1 + seed % 7, 1 + seed % 7))


def _summary(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    done = runner.invoke(app, ["replay", str(folder), "--json", *arguments])
    assert done.exit_code in (0, 1), done.output
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert last["proven"] is (done.exit_code == 0)
    return done.exit_code, last["summary"], lines


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real service kept of 60 frames: whole ones, boxes, a bad box, a late one, none to score."""
    folder = tmp_path_factory.mktemp("line")
    bundle = make_bundle(folder / "bundle")
    # A threshold in the middle of these very pictures, so that some pass and some do not.
    spec = bundle.manifest.image_spec
    engine = open_engine(bundle, _ENGINE)
    scores = -engine.infer(np.concatenate([preprocess(_image(i), spec) for i in range(40)]))
    engine.close()
    bundle = replace_calibration(bundle, calibrate(scores, 0.5))
    sinks = [
        {"kind": "archive", "path": "keep", "passes": 1.0, "min_free_gb": 0.0},
        {"kind": "jsonl", "path": "verdicts.jsonl"},
    ]
    with Service(folder, bundle.path, sinks=sinks) as service:
        with Client(service.endpoint, "cam") as client:
            for i in range(60):
                boxes = None
                if i % 3 == 1:
                    boxes = np.array([[0.25, 1, 30.5, 40], [-5, -5, 20, 20], [10, 10, 64, 48]], np.float32)
                if i % 20 == 7:
                    boxes = np.array([[100, 100, 120, 120], [0, 0, 10, 10]], np.float32)
                if i == 50:
                    boxes = np.zeros((0, 4), np.float32)
                client.send(_image(i), boxes=boxes, part_id=f"P{i}", deadline_ms=-1 if i == 33 else None)
            assert len(list(client.drain(30))) == 60
        assert service.stop() == 0
        assert len(service.verdicts()) == 60
    return folder / "keep"


def test_the_same_scores_by_the_same_model(archived: Path) -> None:
    code, summary, lines = _summary(archived)
    assert code == 0
    assert summary["entries"] == 60 == len(lines)
    assert summary["unscored"] == 2  # the late one and the one without boxes
    assert summary["compared"] == 58
    assert summary["changed"] == summary["damaged"] == summary["beyond"] == summary["lossy"] == 0
    assert summary["max_difference"] < 1e-5
    assert {line["was"][0] for line in lines} == {"pass", "reject", "unknown"}
    assert all(line["was"] == line["now"] for line in lines if line["status"] == "same")
    assert {line["part_id"] for line in lines} == {f"P{i}" for i in range(60)}


def test_as_a_process(archived: Path) -> None:
    done = algan_stream("replay", archived)
    assert done.returncode == 0, done.stderr
    assert "60 entries: 58 compared" in done.stdout
    assert "no verdict changed" in done.stdout


def test_the_provenance_is_whole(archived: Path) -> None:
    """Frame, camera's time, box, model, engine, threshold and stage times, for every scored box."""
    for path in archive.entries(archived):
        entry = archive.read_entry(path)
        verdict = entry.verdict
        assert verdict.captured_ns > 1.7e18
        assert verdict.threshold is not None
        assert len(verdict.model) == 12
        assert entry.bundle.startswith(verdict.model)
        assert verdict.engine.startswith("openvino ")
        if verdict.outcome is Outcome.SCORED:
            assert verdict.stages.infer_ms > 0
            assert verdict.stages.total_ms >= verdict.stages.queue_ms


def test_by_another_engine(archived: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, summary, _ = _summary(archived, "--engine", "onnxruntime")
    assert (code, summary["changed"], summary["beyond"]) == (0, 0, 0)
    assert 0 < summary["max_difference"] < 1e-3
    code, summary, _ = _summary(archived, "--engine", "onnxruntime", "--tolerance", "0")
    assert code == 1
    assert summary["beyond"] == summary["compared"] - summary["identical"] > 0


def test_another_bundle(archived: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    code, summary, lines = _summary(archived, "--bundle", str(other.path))
    assert code == 1
    assert summary["other_model"] == summary["compared"] == 58
    assert summary["max_difference"] is None
    assert summary["max_difference_others"] > 0
    changed = [line for line in lines if line["status"] == "changed"]
    assert len(changed) == summary["changed"] > 0
    assert all(line["was"][0] != line["now"][0] for line in changed)
    table = runner.invoke(app, ["replay", str(archived), "--bundle", str(other.path), "--show", "3"])
    assert table.exit_code == 1
    assert f"{len(changed)} changed verdicts, 0 damaged entries; the first 3" in table.stdout
    assert f"{len(changed)} verdicts changed" in table.stdout
    assert "58 recorded by another model" in table.stdout


def test_another_threshold_alone(archived: Path, tmp_path: Path) -> None:
    """The scores are proven; the verdicts differ, and it is said why."""
    [own] = (archived / archive.BUNDLES).iterdir()
    shutil.copytree(own, tmp_path / "b")
    calibration = calibrate(np.linspace(-100.0, -99.0, 99), 0.1)
    replace_calibration(read_bundle(tmp_path / "b"), calibration)
    code, summary, _ = _summary(archived, "--bundle", str(tmp_path / "b"))
    assert code == 1
    assert summary["other_threshold"] == 58
    assert (summary["other_model"], summary["beyond"]) == (0, 0)
    assert summary["changed"] > 0
    assert summary["max_difference"] < 1e-5


def test_a_score_that_was_altered(archived: Path, tmp_path: Path) -> None:
    """The proof must be able to fail: a verdict, a score, the pixels, the bundle, one after the other."""
    shutil.copytree(archived, tmp_path / "keep")
    paths = list(archive.entries(tmp_path / "keep"))

    def alter(path: Path, **verdict: Any) -> None:
        entry = archive.read_entry(path)
        changed = msgspec.structs.replace(entry.verdict, **verdict)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(entry, verdict=changed)))

    first = archive.read_entry(paths[0]).verdict
    kind = VerdictKind.PASS if first.verdict is VerdictKind.REJECT else VerdictKind.REJECT
    alter(paths[0], verdict=kind)
    code, summary, lines = _summary(tmp_path / "keep")
    assert (code, summary["changed"]) == (1, 1)
    assert lines[0]["status"] == "changed"
    box = first.boxes[0]
    assert box.score is not None
    alter(paths[0], verdict=first.verdict, boxes=(msgspec.structs.replace(box, score=box.score + 0.5),))
    code, summary, _ = _summary(tmp_path / "keep")
    assert (code, summary["changed"], summary["beyond"]) == (1, 0, 1)
    assert summary["max_difference"] == pytest.approx(0.5, abs=1e-3)
    alter(paths[0], boxes=first.boxes)
    pixels = archive.read_entry(paths[2]).pixels
    assert pixels is not None
    cv2.imwrite(str(paths[2].with_name(pixels.file)), np.zeros((48, 64, 3), np.uint8))
    code, summary, lines = _summary(tmp_path / "keep")
    assert (code, summary["damaged"], summary["compared"]) == (1, 1, 57)
    assert "other pixels than those that were scored" in lines[2]["problem"]
    shutil.rmtree(tmp_path / "keep" / archive.BUNDLES)
    code, summary, _ = _summary(tmp_path / "keep")
    assert (code, summary["damaged"], summary["compared"]) == (1, 58, 0)


def test_nothing_is_no_proof(tmp_path: Path) -> None:
    open_sink({"kind": "archive", "path": str(tmp_path / "keep")}, "sinks[0]").close()
    done = runner.invoke(app, ["replay", str(tmp_path / "keep")])
    assert done.exit_code == 1
    assert "nothing to compare" in done.output
    for wrong, message in (
        ([str(tmp_path)], "expected an archive"),
        (["x", "--tolerance", "-1"], "0 or more"),
    ):
        failed = runner.invoke(app, ["replay", *wrong])
        assert message in str(failed.exception)


def _kept(folder: Path, bundle: Bundle, **section: Any) -> ArchiveSink:
    sink = open_sink(
        {"kind": "archive", "path": str(folder), "passes": 1.0, "min_free_gb": 0.0, **section}, "sinks[0]"
    )
    assert isinstance(sink, ArchiveSink)
    sink.use_bundle(bundle)
    return sink


def _verdict(bundle: Bundle, frame_id: int, logits: np.ndarray) -> FrameVerdict:
    decider = Decider(bundle.manifest.calibration)
    boxes = decider.decide(logits, [None])
    return FrameVerdict(
        camera="cam",
        frame_id=frame_id,
        verdict=boxes[0].verdict,
        reason=boxes[0].reason,
        boxes=tuple(boxes),
        outcome=Outcome.SCORED,
        captured_ns=0,
        threshold=decider.threshold,
        model=bundle.model_sha256[:12],
        engine="openvino 0 CPU fp32",
    )


def _replayed(folder: Path, bundle: Bundle, engine: Engine, tolerance: float = 0.0) -> Summary:
    judge, summary = Judge(bundle, engine), Summary()
    for one in replay(folder, lambda _: judge):
        assert one.status is not Status.DAMAGED, one.problem
        summary.add(one, tolerance)
    return summary


@pytest.mark.parametrize("encoding", ["png", "npy"])
def test_every_format_gives_the_same_score(bundle: Bundle, encoding: str, tmp_path: Path) -> None:
    """Bayer patterns, YUV and 16-bit grey are kept as the camera gave them."""
    engine = open_engine(bundle, _ENGINE)
    sink = _kept(tmp_path, bundle, encoding=encoding)
    for i, (pixel_format, shape) in enumerate(_SHAPES.items()):
        image = _image(i, tuple(size * 6 if k < 2 else size for k, size in enumerate(shape)))
        if pixel_format == "grey16":
            image = image.astype(np.uint16) * 257
        logits = engine.infer(preprocess(image, bundle.manifest.image_spec, pixel_format=pixel_format))  # type: ignore[arg-type]
        frame = Frame("cam", i, image, pixel_format, captured_ns=0)  # type: ignore[arg-type]
        sink.write_frame(frame, _verdict(bundle, i, logits))
    sink.close()
    summary = _replayed(tmp_path, bundle, engine)
    assert summary.compared == summary.identical == len(_SHAPES)
    assert summary.proven
    engine.close()


def test_lossy_pictures_prove_nothing(bundle: Bundle, tmp_path: Path) -> None:
    engine = open_engine(bundle, _ENGINE)
    sink = _kept(tmp_path, bundle, encoding="jpeg", jpeg_quality=30)
    for i in range(5):
        logits = engine.infer(preprocess(_image(i), bundle.manifest.image_spec))
        sink.write_frame(Frame("cam", i, _image(i), "bgr8", captured_ns=0), _verdict(bundle, i, logits))
    sink.close()
    summary = _replayed(tmp_path, bundle, engine)
    assert (summary.lossy, summary.identical, summary.beyond) == (5, 0, 0)
    assert summary.max_difference is None
    assert summary.max_difference_others is not None
    engine.close()


def test_vectors(tmp_path: Path) -> None:
    bundle = make_vector_bundle(tmp_path / "bundle")
    engine = open_engine(bundle, _ENGINE)
    sink = _kept(tmp_path / "keep", bundle)
    rows = np.random.default_rng(0).normal(size=(8, bundle.manifest.spec.shape[0])).astype(np.float32)
    nothing = np.zeros((0, 0), np.uint8)
    for i, row in enumerate(rows):
        frame = Frame("cam", i, nothing, "grey8", captured_ns=0, vector=row)
        sink.write_frame(frame, _verdict(bundle, i, engine.infer(row[None])))
    sink.close()
    summary = _replayed(tmp_path / "keep", bundle, engine)
    assert summary.compared == summary.identical == 8
    engine.close()


def test_rejects_are_explained(tmp_path: Path) -> None:
    bundle = with_explanation(make_bundle(tmp_path / "plain"), tmp_path / "bundle")
    engine = open_engine(bundle, _ENGINE)
    sink = _kept(tmp_path / "keep", bundle, explain=True)
    for i, image in enumerate(bundle.golden().images_rgb):  # type: ignore[arg-type]
        logits = engine.infer(preprocess(image, bundle.manifest.image_spec, pixel_format="rgb8"))
        sink.write_frame(Frame("cam", i, image, "rgb8", captured_ns=0), _verdict(bundle, i, logits))
    sink.close()
    found = [(path, archive.read_entry(path)) for path in archive.entries(tmp_path / "keep")]
    assert {len(entry.explained) for _, entry in found} == {0, 1}
    for path, entry in found:
        assert bool(entry.explained) == (entry.verdict.verdict is VerdictKind.REJECT)
        for name in entry.explained:
            picture = cv2.imread(str(path.with_name(name)))
            assert picture is not None
            assert picture.shape[:2] == (32, 32)
    assert _replayed(tmp_path / "keep", bundle, engine).proven
    engine.close()


def test_an_explanation_that_the_bundle_does_not_have(bundle: Bundle, tmp_path: Path) -> None:
    sinks = [{"kind": "archive", "path": "keep", "explain": True}]
    line = {
        "bundle": str(bundle.path),
        "cameras": [{"id": "c", "source": {"kind": "zmq", "bind": f"ipc://{tmp_path}/in"}}],
    }
    (tmp_path / "line.yaml").write_text(json.dumps({**line, "sinks": sinks}))
    done = algan_stream("run", tmp_path / "line.yaml")
    assert done.returncode == 4
    assert "sinks[0]: " in done.stderr
    assert "holds no explain.onnx" in done.stderr


def test_a_late_score_is_compared_and_stays_unknown(bundle: Bundle, tmp_path: Path) -> None:
    engine = open_engine(bundle, _ENGINE)
    sink = _kept(tmp_path, bundle)
    said = _verdict(bundle, 0, engine.infer(preprocess(_image(0), bundle.manifest.image_spec)))
    box = msgspec.structs.replace(said.boxes[0], verdict=VerdictKind.UNKNOWN, reason="late")
    late = msgspec.structs.replace(
        said, verdict=VerdictKind.UNKNOWN, reason="late", boxes=(box,), outcome=Outcome.EXPIRED
    )
    sink.write_frame(Frame("cam", 0, _image(0), "bgr8", captured_ns=0), late)
    sink.close()
    judge = Judge(bundle, engine)
    [one] = replay(tmp_path, lambda _: judge)
    assert (one.status, one.max_difference, one.now) == (Status.SAME, 0.0, (VerdictKind.UNKNOWN, "late"))
    engine.close()
