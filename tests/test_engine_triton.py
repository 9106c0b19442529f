"""The engine `triton` on real servers, NVIDIA Triton and MLServer, which `make test-triton` installs."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
from PIL import Image

from algan_stream import plugins
from algan_stream.bundle import Bundle
from algan_stream.config import LineConfig
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.errors import EngineError
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.types import Outcome, VerdictKind
from bundles import make_bundle
from engine_contract import CONTRACT, same  # noqa: F401  `same` is a fixture of the contract
from engine_contract import MAX_BATCH as _MAX_BATCH
from engine_contract import inputs as _inputs
from fakes import ListSink
from inference_servers import MODEL, MlServer, Server, Triton, missing
from test_engines import test_it_says_what_it_is  # noqa: F401

if missing():
    pytest.skip(missing(), allow_module_level=True)
globals().update(CONTRACT)  # run on these servers


@pytest.fixture
def bound() -> float:
    """ONNX Runtime and OpenVINO on a CPU compute alike at every size of batch."""
    return 0.0


#: Server, protocol, and what the engine's section says besides.
_WAYS: dict[str, tuple[type[Server], str, dict[str, Any]]] = {
    "triton-http": (Triton, "http", {}),
    "triton-grpc": (Triton, "grpc", {"streams": 4}),
    "mlserver-http": (MlServer, "http", {"binary": False}),
    "mlserver-grpc": (MlServer, "grpc", {"streams": 1}),
}
Start = Callable[[type[Server], Bundle], Server]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Start]:
    """Servers that many tests use; nobody may harm them."""
    servers: dict[type[Server], Server] = {}

    def start(kind: type[Server], _: Bundle) -> Server:
        if kind not in servers:
            servers[kind] = kind(tmp_path_factory.mktemp("server"), bundle)
            servers[kind].start()
        return servers[kind]

    yield start
    for server in servers.values():
        server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Start]:
    """Servers that the test may kill."""
    servers: list[Server] = []

    def start(kind: type[Server], bundle: Bundle) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(kind(folder, bundle))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def _section(server: Server, way: str, **more: Any) -> dict[str, Any]:
    _, protocol, settings = _WAYS[way]
    url = server.url(protocol)
    return {"kind": "triton", "url": url, "model": MODEL, "max_batch": _MAX_BATCH, **settings, **more}


def _open(server: Server, way: str, bundle: Bundle, **more: Any) -> Engine:
    module, config = plugins.load("engines", _section(server, way, **more), "engine")
    engine: Engine = module.create(bundle, config)
    return engine


@pytest.fixture(params=_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(way: str, request: pytest.FixtureRequest, shared: Start, bundle: Bundle) -> Iterator[Engine]:
    """For the contract."""
    if "mlserver" in way and "nan" in request.node.name:
        pytest.skip("MLServer answers a NaN with an error: nothing is scored then")
    made = _open(shared(_WAYS[way][0], bundle), way, bundle)
    yield made
    made.close()


def test_logits_are_the_models(engine: Engine, bundle: Bundle) -> None:
    inputs = _inputs(engine, 7)
    reference = onnx.reference.ReferenceEvaluator(str(bundle.model_path)).run(None, {"input": inputs})[0]
    assert engine.infer(inputs) == pytest.approx(reference, abs=1e-4)


def test_it_passes_the_golden_gate_and_names_the_server(way: str, shared: Start, bundle: Bundle) -> None:
    server = shared(_WAYS[way][0], bundle)
    engine = open_engine(bundle, _section(server, way))
    name = "triton" if isinstance(server, Triton) else "mlserver"
    address = server.url(_WAYS[way][1]).partition("//")[2]
    assert str(engine.identity).startswith(f"triton {name}/")
    assert str(engine.identity).endswith(f" {MODEL}@{address} fp32")
    engine.close()


def test_a_model_of_another_shape(way: str, shared: Start, bundle: Bundle, tmp_path: Path) -> None:
    wide = make_bundle(tmp_path / "wide", size_px=64)
    with pytest.raises(EngineError, match="the served model does not fit the manifest: expected one input"):
        _open(shared(_WAYS[way][0], bundle), way, wide)


def test_another_bundles_model(way: str, shared: Start, bundle: Bundle, tmp_path: Path) -> None:
    """Triton hands out the hash that the export wrote; with MLServer the golden images notice."""
    other = make_bundle(tmp_path / "other", seed=7)
    message = "algan_model_sha256 is" if "triton" in way else "differs from the bundle's golden logits"
    with pytest.raises(EngineError, match=message):
        open_engine(other, _section(shared(_WAYS[way][0], bundle), way))


def test_a_model_or_version_that_is_not_there(way: str, shared: Start, bundle: Bundle) -> None:
    server = shared(_WAYS[way][0], bundle)
    for wrong in ({"model": "no-such-model"}, {"version": "99"}):
        with pytest.raises(EngineError, match=r"(?i)not found|unknown model"):
            _open(server, way, bundle, **wrong)


def test_more_images_than_the_server_takes(shared: Start, bundle: Bundle) -> None:
    server = shared(Triton, bundle)
    with pytest.raises(EngineError, match=r"takes 8 images at a time, engine\.max_batch is 9; lower that"):
        _open(server, "triton-http", bundle, max_batch=9)


def test_binary_tensors_and_a_server_that_reads_json_alone(shared: Start, bundle: Bundle) -> None:
    engine = _open(shared(MlServer, bundle), "mlserver-http", bundle, binary=True)
    with pytest.raises(EngineError, match="needs `binary: false`, or gRPC"):
        engine.infer(_inputs(engine, 1))
    engine.close()


def test_a_connection_that_idles_is_made_again(shared: Start, bundle: Bundle) -> None:
    """MLServer hangs up after five seconds; no batch may suffer from that."""
    engine = _open(shared(MlServer, bundle), "mlserver-http", bundle)
    inputs = _inputs(engine, 1)
    expected = engine.infer(inputs)
    time.sleep(6.0)
    assert np.array_equal(engine.infer(inputs), expected)
    engine.close()


@pytest.mark.parametrize("way", ["triton-http", "triton-grpc", "mlserver-grpc"], indirect=True)
def test_a_server_that_hangs_costs_no_slot(way: str, own: Start, bundle: Bundle) -> None:
    server = own(_WAYS[way][0], bundle)
    engine = _open(server, way, bundle, timeout_ms=700, streams=1)
    inputs = _inputs(engine, 2)
    expected = engine.infer(inputs)
    server.signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(2 * len(engine.slots)):
        with pytest.raises(EngineError, match=r"no answer within 0\.7 s|no answer in time"):
            engine.infer(inputs)
    assert time.monotonic() - started < 2 * len(engine.slots) * 2.0
    if way == "triton-grpc":  # this version may die of requests that a gRPC client has given up
        server.stop()
        server.start()
    else:
        server.signal(signal.SIGCONT)
    assert np.array_equal(_soon(engine, inputs), expected)
    held = [engine.acquire(1.0) for _ in engine.slots]
    assert None not in held
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("way", ["triton-http", "triton-grpc", "mlserver-grpc"], indirect=True)
def test_another_model_under_the_same_name_is_never_scored_with(
    way: str, own: Start, bundle: Bundle, tmp_path: Path
) -> None:
    """The server comes back with a model that takes the same inputs; scores of it would pass for ours."""
    server = own(_WAYS[way][0], bundle)
    engine = open_engine(bundle, _section(server, way))
    inputs = _inputs(engine, 2)
    expected = engine.infer(inputs)
    server.stop()
    server.serve(make_bundle(tmp_path / "other", seed=7))
    server.start()
    message = "algan_model_sha256 is" if "triton" in way else "differs from the bundle's golden logits"
    for _ in range(3):
        with pytest.raises(EngineError, match=message):
            engine.infer(inputs)
    server.stop()
    server.serve(bundle)
    server.start()
    assert np.array_equal(_soon(engine, inputs), expected)
    engine.close()


@pytest.mark.parametrize("way", ["triton-http", "triton-grpc", "mlserver-grpc"], indirect=True)
def test_a_server_killed_mid_stream_and_started_again(
    way: str, own: Start, bundle: Bundle, tmp_path: Path
) -> None:
    """Every frame is answered; those without a server as unknown; and scoring goes on when it is back."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(8):
        Image.fromarray(np.full((8, 8), 30 * i, np.uint8)).save(images / f"{i}.png")
    server = own(_WAYS[way][0], bundle)
    source = {"kind": "folder", "path": str(images), "fps": 50, "loop": True}
    line = convert(
        {
            "bundle": str(bundle.path),
            "engine": _section(server, way, timeout_ms=2000),
            "cameras": [{"id": "cam", "source": source}],
        },
        LineConfig,
        "",
    )
    sink = ListSink()
    service = Service(line, [sink])
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(service.run()), daemon=True)
    thread.start()
    _wait_for(sink, Outcome.SCORED, 20)
    server.signal(signal.SIGKILL)
    _wait_for(sink, Outcome.FAILED, 20)
    server.stop()
    server.start()
    at_return = len(sink.verdicts)
    _wait_for(sink, Outcome.SCORED, 20, since=at_return)
    service.stop()
    thread.join(30)
    frames = ended[0]["cam"].frames
    assert frames.in_flight == frames.dropped == frames.expired == 0
    assert frames.received == frames.scored + frames.failed == len(sink.verdicts)
    assert len({v.frame_id for v in sink.verdicts}) == frames.received
    for verdict in sink.verdicts:
        if verdict.outcome is Outcome.FAILED:
            assert (verdict.verdict, verdict.reason) == (VerdictKind.UNKNOWN, "engine_error")
    # the same picture has the same score before and after
    scores = {(v.part_id, round(v.boxes[0].score, 4)) for v in sink.verdicts if v.boxes[0].score is not None}
    assert len(scores) == 8


def _wait_for(sink: ListSink, outcome: Outcome, count: int, since: int = 0) -> None:
    give_up = time.monotonic() + 30
    while sum(v.outcome is outcome for v in sink.verdicts[since:]) < count:
        assert time.monotonic() < give_up, Counter(v.outcome for v in sink.verdicts[since:])
        time.sleep(0.02)


def _soon(engine: Engine, inputs: Any) -> Any:
    """What the engine says once it says something."""
    give_up = time.monotonic() + 15
    while True:
        try:
            return engine.infer(inputs)
        except EngineError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
