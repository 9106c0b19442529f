"""Vectors from bundle to verdict: offline, through the pipeline, over ZeroMQ, and what does not fit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from algan_stream import wire
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.cli import app
from algan_stream.client import Client
from algan_stream.config import CameraConfig, LineConfig
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.errors import BundleError, ConfigError, InputError, ProtocolError
from algan_stream.inputs import misfit
from algan_stream.pipeline import Pipeline
from algan_stream.scoring import score_table
from algan_stream.service import Service
from algan_stream.tables import Table
from algan_stream.types import Frame, FrameVerdict, InputSpec, Outcome, VectorSpec, VerdictKind
from fakes import ListSink, grey_frame
from processes import Service as ServiceProcess
from processes import algan_stream
from vector_bundles import FEATURES, good_vectors, make_vector_bundle, score_of

SPEC = VectorSpec(features=FEATURES)
_NO_IMAGE = np.zeros((0, 0), np.uint8)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_vector_bundle(tmp_path_factory.mktemp("vectors") / "bundle")


@pytest.fixture(scope="module")
def engine(vectors: Bundle) -> Iterator[Engine]:
    made = open_engine(vectors, {"kind": "openvino", "threads": 1, "max_batch": 4})
    yield made
    made.close()


def frame(vector: np.ndarray, frame_id: int = 0, **more: Any) -> Frame:
    return Frame("cam", frame_id, _NO_IMAGE, "grey8", captured_ns=time.time_ns(), vector=vector, **more)


# ---- bundle ---------------------------------------------------------------------------------------------


def test_the_manifest_holds_one_spec_that_fits_its_kind(vectors: Bundle, bundle: Bundle) -> None:
    assert vectors.manifest.spec == SPEC
    assert bundle.manifest.spec == bundle.manifest.input_spec == bundle.manifest.image_spec
    with pytest.raises(BundleError, match="is for vectors, not for images"):
        _ = vectors.manifest.image_spec
    for changes in ({"model_kind": "algan-image"}, {"input_spec": InputSpec(height_px=4, width_px=4)}):
        with pytest.raises(ConfigError, match=r"algan-(image|vector) needs (input|vector)_spec"):
            msgspec.structs.replace(vectors.manifest, **changes)


def test_a_bundle_for_images_reads_and_writes_as_before(bundle: Bundle) -> None:
    written = json.loads((bundle.path / "manifest.json").read_text())
    assert "vector_spec" not in written  # older readers refuse keys that they do not know
    assert written["format_version"] == 1


@pytest.mark.parametrize("spoiled", [{"features": 0}, {"features": 2, "names": ["a"]}, {"feature": 2}])
def test_a_wrong_spec_is_refused(vectors: Bundle, tmp_path: Path, spoiled: dict[str, Any]) -> None:
    own = make_vector_bundle(tmp_path / "own")
    manifest = json.loads((own.path / "manifest.json").read_text())
    (own.path / "manifest.json").write_text(json.dumps({**manifest, "vector_spec": spoiled}))
    with pytest.raises(BundleError, match="vector_spec"):
        read_bundle(own.path)


def test_golden_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    own = make_vector_bundle(tmp_path / "own")
    spec = VectorSpec(features=FEATURES + 1)
    wrong = Bundle(own.path, msgspec.structs.replace(own.manifest, vector_spec=spec))
    with pytest.raises(BundleError, match=r"inputs: expected float32 of shape \(4, 6\)"):
        wrong.golden()


def test_bundle_show(vectors: Bundle) -> None:
    shown = CliRunner().invoke(app, ["bundle", "show", str(vectors.path)])
    assert "vectors of 5 features" in shown.stdout


# ---- offline --------------------------------------------------------------------------------------------


def test_rows_are_scored_and_missing_numbers_never_pass(vectors: Bundle, engine: Engine) -> None:
    values = good_vectors(11, seed=5)
    values[2] += 40
    values[4, 1], values[7, 0] = np.nan, -np.inf
    lines = list(score_table(vectors, engine, Table(Path("t.npy"), values)))
    assert [line.row for line in lines] == list(range(11))
    kinds = [line.verdict for line in lines]
    assert [i for i, kind in enumerate(kinds) if kind is VerdictKind.UNKNOWN] == [4, 7]
    assert kinds[2] is VerdictKind.REJECT
    assert lines[4].reason == "not_finite: number 1 is nan, expected finite numbers"
    assert lines[7].score is lines[7].p_value is None
    for line, score in zip(lines, score_of(values), strict=True):
        if line.score is not None:
            assert line.score == pytest.approx(score, abs=1e-3)


def test_numbers_that_overflow_in_the_graph_are_unknown(vectors: Bundle, engine: Engine) -> None:
    values = np.full((1, FEATURES), 3e38, np.float32)  # finite, but their sum is not
    (line,) = score_table(vectors, engine, Table(Path("t.npy"), values))
    assert (line.verdict, line.reason) == (VerdictKind.UNKNOWN, "score_not_finite")


def _call(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    error = str(result.exception) if isinstance(result.exception, Exception) else result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, lines, error


def test_score_command(vectors: Bundle, bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", good_vectors(6, seed=6))
    names = ",".join("abcde")
    rows = "\n".join(",".join(map(str, row)) for row in good_vectors(2, seed=7) + 30)
    (tmp_path / "b.csv").write_text(f"{names},id\n" + rows.replace("\n", ",p-0\n") + ",p-1\n")
    code, lines, _ = _call("score", vectors.path, tmp_path, "--jsonl")
    assert code == 10
    assert [(Path(line["path"]).name, line["row"]) for line in lines] == [
        *(("a.npy", i) for i in range(6)),
        ("b.csv", 0),
        ("b.csv", 1),
    ]
    assert lines[0].keys() == {"path", "row", "id", "score", "p_value", "verdict", "reason"}
    assert [line["id"] for line in lines[-2:]] == ["p-0", "p-1"]
    assert [line["verdict"] for line in lines[-2:]] == ["reject", "reject"]
    assert "takes images" in _call("score", bundle.path, tmp_path / "a.npy")[2]
    assert "expected a table" in _call("score", vectors.path, tmp_path / "x.png")[2]
    (tmp_path / "boxes.json").write_text("{}")
    assert (
        "which have no boxes" in _call("score", vectors.path, tmp_path, "--boxes", tmp_path / "boxes.json")[2]
    )


def test_a_table_with_other_columns_is_not_scored(tmp_path: Path) -> None:
    own = make_vector_bundle(tmp_path / "own", names=tuple("abcde"))
    (tmp_path / "t.csv").write_text("a,c,b,d,e\n1,2,3,4,5\n")
    assert (
        "feature 1: expected 'b' as in training, got 'c'" in _call("score", own.path, tmp_path / "t.csv")[2]
    )


def test_calibrate_command(tmp_path: Path) -> None:
    own = make_vector_bundle(tmp_path / "own")
    np.save(tmp_path / "good.npy", good_vectors(200, seed=8))
    code, _, error = _call("calibrate", own.path, tmp_path / "good.npy", "--false-reject-rate", 0.01)
    assert code == 0, error
    calibration = read_bundle(own.path).manifest.calibration
    assert calibration is not None
    assert np.allclose(
        sorted(calibration.good_scores), sorted(score_of(good_vectors(200, seed=8))), atol=1e-3
    )


# ---- pipeline -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (frame(good_vectors(1)[0]), ""),
        (frame(good_vectors(1)[0, :4]), "wrong_length: expected 5 numbers, got 4"),
        (frame(np.array([0, 1, np.inf, np.nan, 2], np.float32)), "not_finite: number 2 is inf"),
        (grey_frame(), "wrong_kind: expected a vector of 5 numbers, got an image"),
    ],
)
def test_what_does_not_fit_a_line_of_vectors(given: Frame, reason: str) -> None:
    assert misfit(given, SPEC).startswith(reason)
    assert bool(misfit(given, SPEC)) == bool(reason)


def test_what_does_not_fit_a_line_of_images() -> None:
    spec = InputSpec(height_px=4, width_px=4)
    assert misfit(grey_frame(), spec) == ""
    assert misfit(frame(good_vectors(1)[0]), spec) == "wrong_kind: expected an image, got 5 numbers"


def test_the_pipeline_answers_every_vector(vectors: Bundle, engine: Engine) -> None:
    sink = ListSink()
    pipeline = Pipeline(vectors, engine, [sink])
    pipeline.open_camera("cam", 16, "block")
    pipeline.start()
    values = good_vectors(30, seed=9)
    values[3, 3] = np.nan
    for i, vector in enumerate(values):
        pipeline.receive(frame(vector, i))
    pipeline.receive(frame(values[0, :2], 30))
    pipeline.receive(grey_frame(31))
    pipeline.receive(frame(values[0], 32, deadline_ns=time.monotonic_ns() - 1))
    pipeline.close()
    said = {v.frame_id: v for v in sink.verdicts}
    assert said.keys() == set(range(33))
    for i in (3, 30, 31, 32):
        assert said[i].verdict is VerdictKind.UNKNOWN
    scored = [i for i in range(30) if i != 3]
    assert [said[i].boxes[0].score for i in scored] == pytest.approx(score_of(values[scored]), abs=1e-3)
    account = pipeline.ledger.snapshot()["cam"]
    assert (account.frames.received, account.frames.scored, account.frames.failed) == (33, 29, 3)
    assert account.reasons == {"not_finite": 1, "wrong_length": 1, "wrong_kind": 1, "expired": 1}
    assert account.frames.in_flight == 0


# ---- wire -----------------------------------------------------------------------------------------------

_HEADER = wire.SendVector(frame_id=0, dtype="f32", length=FEATURES, captured_ns=1)


def test_a_vectors_header_round_trips() -> None:
    message = msgspec.structs.replace(_HEADER, part_id="π", deadline_ms=2.5)
    assert wire.decode_to_service(wire.encode(message)) == message


def test_a_vectors_payload_is_little_endian_float32() -> None:
    payload = np.arange(FEATURES, dtype="<f4").tobytes()
    assert wire.vector_of(_HEADER, memoryview(payload)).tolist() == [0, 1, 2, 3, 4]
    shifted = memoryview(b"x" + payload)[1:]  # also where it does not start at a multiple of 4
    assert wire.vector_of(_HEADER, shifted).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("length", "size"), [(0, 0), (-1, 4), (5, 19), (5, 21), (5, 40), (1 << 40, 20), ((1 << 20) + 1, 20)]
)
def test_a_length_that_lies_is_refused(length: int, size: int) -> None:
    with pytest.raises(ProtocolError, match=r"length|payload"):
        wire.vector_of(msgspec.structs.replace(_HEADER, length=length), memoryview(bytes(size)))


def test_another_number_format_is_refused() -> None:
    raw = wire.encode(_HEADER).replace(b"f32", b"f64")
    with pytest.raises(ProtocolError, match="dtype"):
        wire.decode_to_service(raw)


# ---- a line ---------------------------------------------------------------------------------------------


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Callable[..., tuple[Service, str]]]:
    """Starts lines with one `zmq` source, in threads."""
    running: list[tuple[Service, threading.Thread]] = []

    def start(bundle: Bundle, **source: Any) -> tuple[Service, str]:
        endpoint = f"ipc://{tmp_path / 's'}"
        camera = CameraConfig(id="cam", source={"kind": "zmq", "bind": endpoint, **source})
        engine = {"kind": "openvino", "threads": 1, "max_batch": 4}
        service = Service(LineConfig(bundle=str(bundle.path), cameras=(camera,), engine=engine))
        thread = threading.Thread(target=service.run)
        thread.start()
        running.append((service, thread))
        return service, endpoint

    yield start
    for service, thread in running:
        service.stop()
        thread.join(20)
        assert not thread.is_alive()


def _answers(client: Client) -> list[FrameVerdict]:
    return sorted(client.drain(10.0), key=lambda verdict: verdict.frame_id)


def test_vectors_over_zmq_and_what_does_not_fit(
    vectors: Bundle, lines: Callable[..., tuple[Service, str]]
) -> None:
    service, endpoint = lines(vectors)
    values = good_vectors(3, seed=10)
    with Client(endpoint) as client:
        client.send_vector(values[0], part_id="a")
        client.send_vector(values[1].astype(np.float64).tolist())
        client.send_vector(values[2] + np.array([0, 90, 0, 0, 0]))
        client.send_vector([1, 2, 3, 4, float("nan")])
        client.send_vector([1, 2, 3, 4, 1e300])
        client.send_vector([1, 2, 3])
        client.send(np.zeros((4, 4, 3), np.uint8))
        said = _answers(client)
        account = client.account()
    assert [v.verdict.value for v in said[:3]] == ["pass", "pass", "reject"]
    assert said[0].part_id == "a"
    assert [v.boxes[0].score for v in said[:2]] == pytest.approx(score_of(values[:2]), abs=1e-3)
    assert [v.reason.split(":")[0] for v in said[3:]] == [
        "not_finite",
        "not_finite",
        "wrong_length",
        "wrong_kind",
    ]
    assert {v.verdict for v in said[3:]} == {VerdictKind.UNKNOWN}
    assert {v.outcome for v in said[3:]} == {Outcome.FAILED}
    assert (account.sent, account.answered) == (7, 7)
    books = service.accounts()["cam"]
    assert (books.frames.received, books.frames.scored, books.frames.failed) == (7, 3, 4)
    assert books.reasons == {"not_finite": 2, "wrong_length": 1, "wrong_kind": 1}


def test_a_vector_on_a_line_of_images(bundle: Bundle, lines: Callable[..., tuple[Service, str]]) -> None:
    service, endpoint = lines(bundle)
    with Client(endpoint) as client:
        client.send_vector(np.zeros(8))
        client.send(np.zeros((4, 4, 3), np.uint8))
        refused, scored = _answers(client)
    assert (refused.verdict, refused.reason) == (
        VerdictKind.UNKNOWN,
        "wrong_kind: expected an image, got 8 numbers",
    )
    assert scored.outcome is Outcome.SCORED
    assert service.accounts()["cam"].reasons == {"wrong_kind": 1}


def test_a_lying_header_is_answered_and_harms_nobody(
    vectors: Bundle, lines: Callable[..., tuple[Service, str]]
) -> None:
    service, endpoint = lines(vectors)
    with Client(endpoint) as client:
        for length in (4, 1 << 40):
            header = wire.SendVector(frame_id=client._next_id, dtype="f32", length=length, captured_ns=0)
            client._dispatch(header, good_vectors(1)[0].data)
        client.send_vector(good_vectors(1)[0])
        said = _answers(client)
    assert [v.reason.split(":")[0] for v in said] == ["malformed_frame", "malformed_frame", ""]
    assert service.refusals()["malformed"] == 2
    assert service.accounts()["cam"].frames.failed == 2


def test_the_client_refuses_what_is_no_vector(
    vectors: Bundle, lines: Callable[..., tuple[Service, str]]
) -> None:
    _, endpoint = lines(vectors, max_frame_bytes=64)
    with Client(endpoint) as client:
        for wrong in (np.zeros((2, 2)), [], 3.0, ["a"], np.zeros(3, complex)):
            with pytest.raises(InputError, match="vector: expected 1 to"):
                client.send_vector(wrong)
        with pytest.raises(InputError, match="expected at most 64 bytes, got 68"):
            client.send_vector(np.zeros(17))
        assert client.account().sent == 0


def test_a_line_whose_source_gives_something_else_does_not_start(
    vectors: Bundle, bundle: Bundle, tmp_path: Path
) -> None:
    np.save(tmp_path / "t.npy", good_vectors(2))
    np.save(tmp_path / "wide.npy", np.zeros((2, FEATURES + 1)))
    for own, source, error, message in (
        (vectors, {"kind": "conveyor"}, ConfigError, r"cameras\[0\].source: kind conveyor gives images, but"),
        (bundle, {"kind": "table", "path": str(tmp_path / "t.npy")}, ConfigError, "kind table gives vectors"),
        (vectors, {"kind": "table", "path": str(tmp_path / "wide.npy")}, InputError, "expected 5 features"),
    ):
        camera = CameraConfig(id="cam", source=source)
        with pytest.raises(error, match=message):
            Service(LineConfig(bundle=str(own.path), cameras=(camera,)))


def test_a_table_as_a_camera_runs_to_its_end(vectors: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", values := good_vectors(20, seed=11))
    source = {"kind": "table", "path": str(tmp_path / "t.npy"), "shuffle": True}
    sink = ListSink()
    service = Service(
        LineConfig(bundle=str(vectors.path), cameras=(CameraConfig(id="cam", source=source),)), [sink]
    )
    assert service.run()["cam"].frames.scored == 20
    scores = {int(v.part_id): v.boxes[0].score for v in sink.verdicts}
    assert [scores[i] for i in range(20)] == pytest.approx(score_of(values), abs=1e-3)


def test_boxes_for_a_table_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", good_vectors(2))
    (tmp_path / "boxes.json").write_text("{}")
    error = _call("send", tmp_path / "t.npy", "--boxes", tmp_path / "boxes.json")[2]
    assert "is a table of vectors, which have no boxes" in error


# ---- processes ------------------------------------------------------------------------------------------


def test_sent_rows_score_as_the_offline_command_does(vectors: Bundle, tmp_path: Path) -> None:
    values = good_vectors(60, seed=12)
    values[::7] += 20
    values[5, 2] = np.nan
    np.save(tmp_path / "t.npy", values)
    (tmp_path / "run").mkdir()
    with ServiceProcess(tmp_path / "run", vectors.path) as service:
        sent = algan_stream("send", tmp_path / "t.npy", "--to", service.endpoint, "--fps", 0, "--json")
        assert sent.returncode == 0, sent.stderr
        assert service.stop() == 0, service.errors
    assert json.loads(sent.stdout)["answered"] == 60
    assert service.frames() == {**service.frames(), "received": 60, "scored": 59, "failed": 1, "in_flight": 0}
    offline = algan_stream("score", vectors.path, tmp_path / "t.npy", "--jsonl")
    assert offline.returncode == 11, offline.stderr
    expected = [json.loads(line) for line in offline.stdout.splitlines()]
    live = {int(v["part_id"]): v for v in service.verdicts()}
    assert live.keys() == set(range(60))
    for line in expected:
        verdict = live[line["row"]]
        assert (verdict["verdict"], verdict["reason"]) == (line["verdict"], line["reason"])
        if line["score"] is not None:
            assert verdict["boxes"][0]["score"] == pytest.approx(line["score"], abs=1e-5)
    assert {"pass", "reject", "unknown"} == {line["verdict"] for line in expected}
