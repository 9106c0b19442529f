"""The engine `triton` against a server that does what real ones cannot be made to do: answer wrongly."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from algan_stream import plugins
from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from algan_stream.errors import ConfigError, EngineError, PluginError

_HEADER = "Inference-Header-Content-Length"


class StandIn(ThreadingHTTPServer):
    """The calls of the KServe v2 protocol that the engine makes, over HTTP, with a switch for each fault."""

    daemon_threads = True

    def __init__(self, bundle: Bundle, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(bundle.model_path), options)
        self.server_json: dict[str, Any] = {"name": "stand-in", "version": "1"}
        shape = [-1, *bundle.manifest.spec.shape]
        self.model: dict[str, Any] = {
            "inputs": [{"name": "input", "datatype": "FP32", "shape": shape}],
            "outputs": [{"name": "logit", "datatype": "FP32", "shape": [-1, 1]}],
        }
        self.config: dict[str, Any] | None = {
            "max_batch_size": 8,
            "parameters": {"algan_model_sha256": {"string_value": bundle.model_sha256}},
        }
        self.config_status = 400
        #: Changes an answer: logits (N, 1) and the version → the same; may raise or sleep.
        self.spoil: Callable[[Any, str], tuple[Any, str]] = lambda logits, version: (logits, version)
        #: Seconds between the bytes of an answer.
        self.drip_s = 0.0
        self.scored = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_GET(self) -> None:
        if self.path == "/v2":
            self._send(self.server.server_json)
        elif self.path.endswith("/config"):
            config = self.server.config
            self._send(config or {"error": "no such call"}, 200 if config else self.server.config_status)
        else:
            self._send(self.server.model)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        size = int(self.headers[_HEADER])
        (tensor,) = json.loads(body[:size])["inputs"]
        inputs = np.frombuffer(body[size:], np.float32).reshape(tensor["shape"])
        self.server.scored += len(inputs)
        (logits,) = self.server.session.run(["logit"], {"input": inputs})
        try:
            logits, version = self.server.spoil(logits[:, None], "1")
        except RuntimeError as error:
            return self._send({"error": str(error)}, 500)
        datatype = {"float32": "FP32", "float64": "FP64"}[logits.dtype.name]
        output = {
            "name": "logit",
            "datatype": datatype,
            "shape": logits.shape,
            "parameters": {"binary_data_size": logits.nbytes},
        }
        return self._send({"model_version": version, "outputs": [output]}, 200, logits.tobytes())

    def _send(self, answer: dict[str, Any], status: int = 200, tail: bytes = b"") -> None:
        head = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(head) + len(tail)))
        if tail:
            self.send_header(_HEADER, str(len(head)))
        self.end_headers()
        step = 1 if self.server.drip_s and tail else 1 << 20
        for i in range(0, len(head + tail), step):
            self.wfile.write((head + tail)[i : i + step])
            time.sleep(self.server.drip_s if tail else 0.0)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server(bundle: Bundle) -> Iterator[StandIn]:
    made = StandIn(bundle)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


def _section(server: StandIn, **more: Any) -> dict[str, Any]:
    return {"kind": "triton", "url": server.url, "model": "m", "max_batch": 4, "streams": 1, **more}


def _open(server: StandIn, bundle: Bundle, **more: Any) -> Engine:
    module, config = plugins.load("engines", _section(server, **more), "engine")
    engine: Engine = module.create(bundle, config)
    return engine


def _inputs(bundle: Bundle, count: int = 2) -> Any:
    return np.random.default_rng(0).normal(size=(count, *bundle.manifest.spec.shape)).astype(np.float32)


def test_an_honest_server_passes_the_gate(server: StandIn, bundle: Bundle) -> None:
    engine = open_engine(bundle, _section(server))
    assert (engine.identity.kind, engine.identity.version) == ("triton", "stand-in/1")
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.infer(_inputs(bundle))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [-1, 3, 32, 32]}, "does not fit the manifest"),
        ({"shape": [1, 5, 32, 32]}, "does not fit the manifest"),
        ({"datatype": "FP16"}, "does not fit the manifest"),
        ({"name": "x"}, "does not fit the manifest"),
    ],
)
def test_inputs_that_are_not_the_bundles(
    server: StandIn, bundle: Bundle, change: dict[str, Any], message: str
) -> None:
    server.model["inputs"][0].update(change)
    with pytest.raises(EngineError, match=message):
        _open(server, bundle)


@pytest.mark.parametrize("outputs", [[], [{"name": "logit", "datatype": "FP32", "shape": [-1, 2]}]])
def test_outputs_that_are_not_the_bundles(server: StandIn, bundle: Bundle, outputs: list[Any]) -> None:
    server.model["outputs"] = outputs
    with pytest.raises(EngineError, match="does not fit the manifest"):
        _open(server, bundle)


def test_another_hash_or_precision(server: StandIn, bundle: Bundle) -> None:
    assert server.config is not None
    server.config["parameters"]["algan_precision"] = {"string_value": "int8"}
    with pytest.raises(
        EngineError, match=r"another model: algan_precision is int8, the bundle .* needs fp32"
    ):
        _open(server, bundle)
    server.config["parameters"] = {"algan_model_sha256": {"string_value": "0" * 64}}
    with pytest.raises(EngineError, match=r"another model: algan_model_sha256 is 0000"):
        _open(server, bundle)


@pytest.mark.parametrize("status", [400, 404, 501])
def test_a_server_without_model_configuration_is_said_so(
    server: StandIn, bundle: Bundle, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.config, server.config_status = None, status
    engine = open_engine(bundle, _section(server))
    engine.close()
    assert "stand-in/1 does not say which model it serves" in caplog.text


def test_a_configuration_that_cannot_be_had_is_not_taken_for_none(server: StandIn, bundle: Bundle) -> None:
    server.config, server.config_status = None, 503
    with pytest.raises(EngineError, match="no such call"):
        _open(server, bundle)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda logits, v: (logits[:-1], v), r"expected \d logits in float32, got float32 \((1|3), 1\)"),
        (lambda logits, v: (np.tile(logits, 2), v), r"expected \d logits in float32, got float32 \(\d, 2\)"),
        (lambda logits, v: (logits.astype(np.float64), v), r"expected \d logits in float32, got float64"),
        (lambda logits, _: (logits, "2"), "version 2 of the model answered, it was 1 before"),
    ],
)
def test_answers_that_are_none(server: StandIn, bundle: Bundle, spoil: Any, message: str) -> None:
    engine = open_engine(bundle, _section(server))
    inputs = _inputs(bundle)
    expected = engine.infer(inputs)
    honest, server.spoil = server.spoil, spoil
    for _ in range(2 * len(engine.slots)):
        with pytest.raises(EngineError, match=message):
            engine.infer(inputs)
    server.spoil = honest
    _wait_until_it_answers(engine, inputs)
    assert np.array_equal(engine.infer(inputs), expected)
    engine.close()


def test_an_error_of_the_server_is_passed_on(server: StandIn, bundle: Bundle) -> None:
    engine = _open(server, bundle)

    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory on GPU 0")

    server.spoil = fails
    with pytest.raises(EngineError, match="inference failed: out of memory on GPU 0"):
        engine.infer(_inputs(bundle))
    engine.close()


def test_after_a_failure_a_server_must_reproduce_the_golden_logits(server: StandIn, bundle: Bundle) -> None:
    """One that has silently become worse is not scored with, although it connects and says all is well."""
    engine = open_engine(bundle, _section(server))
    inputs = _inputs(bundle)

    def fails(*_: Any) -> Any:
        raise RuntimeError("restarting")

    server.spoil = fails
    with pytest.raises(EngineError, match="restarting"):
        engine.infer(inputs)
    server.spoil = lambda logits, version: (logits + np.float32(1.0), version)
    for _ in range(3):
        time.sleep(0.6)
        with pytest.raises(EngineError, match="differs from the bundle's golden logits by 1"):
            engine.infer(inputs)
    engine.close()


def test_another_server_at_the_address_is_not_served_under_the_old_name(
    server: StandIn, bundle: Bundle
) -> None:
    engine = open_engine(bundle, _section(server))
    server.server_json["version"] = "2"

    def fails(*_: Any) -> Any:
        raise RuntimeError("restarting")

    honest, server.spoil = server.spoil, fails
    with pytest.raises(EngineError, match="restarting"):
        engine.infer(_inputs(bundle))
    server.spoil = honest
    with pytest.raises(EngineError, match="the server was stand-in/1 and is stand-in/2 now"):
        engine.infer(_inputs(bundle))
    engine.close()


def test_an_answer_byte_by_byte_is_bounded_as_a_whole(server: StandIn, bundle: Bundle) -> None:
    engine = _open(server, bundle, timeout_ms=400)
    server.drip_s = 0.05  # each read is quick, the whole would take ten seconds
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"no answer within 0\.4 s"):
        engine.infer(_inputs(bundle))
    assert time.monotonic() - started < 3
    engine.close()


def test_after_a_time_out_batches_fail_at_once_for_a_moment(server: StandIn, bundle: Bundle) -> None:
    """A server that hangs must not make every camera wait the whole time-out for every batch."""
    engine = _open(server, bundle, timeout_ms=300)
    server.drip_s = 0.05
    for _ in range(2):  # the first loses the connection, the second fails to check the new one
        with pytest.raises(EngineError):
            engine.infer(_inputs(bundle))
    started = time.monotonic()
    with pytest.raises(EngineError, match="no answer in time"):
        engine.infer(_inputs(bundle))
    assert time.monotonic() - started < 0.2
    engine.close()


def test_requests_in_flight_are_bounded_by_streams(server: StandIn, bundle: Bundle) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def slow(logits: Any, version: str) -> tuple[Any, str]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with lock:
            at_once -= 1
        return logits, version

    server.spoil = slow
    engine = _open(server, bundle, streams=3)
    assert len(engine.slots) == 7
    slots = []
    for _ in engine.slots:
        slot = engine.acquire(1.0)
        assert slot is not None
        slot.inputs_nchw[:1] = 0.0
        engine.submit(slot, 1)
        slots.append(slot)
    for slot in slots:
        engine.collect(slot)
    assert most == 3
    engine.close()


def test_no_server_at_all(bundle: Bundle) -> None:
    gone = StandIn(bundle)
    gone.server_close()
    before = threading.active_count()
    with pytest.raises(EngineError, match=r"m at http://127\.0\.0\.1:\d+: .*refused"):
        _open(gone, bundle, streams=3)
    assert threading.active_count() == before  # no sender is left behind


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl, for a certificate")
def test_encrypted_and_only_with_a_certificate_that_is_trusted(bundle: Bundle, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=stand-in"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    server = StandIn(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    section = _section(server, url=server.url.replace("http://", "https://"))
    try:
        engine = open_engine(bundle, {**section, "ca_file": str(certificate)})
        engine.close()
        with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED"):
            open_engine(bundle, section)
        for scheme in ("https", "grpcs"):
            other = {**section, "url": server.url.replace("http", scheme, 1)}
            with pytest.raises(EngineError, match=r"ca_file: .*missing: No such file"):
                open_engine(bundle, {**other, "ca_file": str(tmp_path / "missing")})
        (tmp_path / "junk").write_text("no certificate")
        with pytest.raises(EngineError, match=r"ca_file: .*junk: "):
            open_engine(bundle, {**section, "ca_file": str(tmp_path / "junk")})
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://10.0.0.7:8000"}, r"leads to another host without encryption; use https://"),
        (
            {"url": "grpc://triton.example:8001"},
            r"without encryption; use grpcs://, or write `insecure: true`",
        ),
        ({"url": "127.0.0.1:8000"}, r"expected http://HOST:PORT"),
        ({"url": "http://127.0.0.1"}, r"expected http://HOST:PORT"),
        ({"url": "http://127.0.0.1:99999"}, r"expected http://HOST:PORT"),
        ({"url": "http://user:word@127.0.0.1:8000"}, r"expected http://HOST:PORT"),
        ({"url": "grpc://127.0.0.1:8001/v2"}, r"gRPC knows no path"),
        ({"model": ""}, r"expected the name of a model"),
        ({"timeout_ms": 0}, r"timeout_ms: expected 1 to 600000"),
        ({"precision": "fp8"}, r"engine\.precision: expected one of fp32, bf16, fp16, int8"),
        ({"max_batch": 0}, r"max_batch: expected 1 to 1024"),
        ({"urls": "x"}, r"engine\.urls: unknown key"),
    ],
)
def test_sections_that_are_refused(change: dict[str, Any], message: str) -> None:
    section = {"kind": "triton", "url": "http://localhost:8000", "model": "m", **change}
    with pytest.raises(ConfigError, match=message):
        plugins.load("engines", section, "engine")


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://[::1]:8000/base/path"},
        {"url": "https://triton.example:8000"},
        {"url": "grpcs://10.0.0.7:8001"},
        {"url": "http://10.0.0.7:8000", "insecure": True},
    ],
)
def test_sections_that_are_taken(change: dict[str, Any]) -> None:
    section = {"kind": "triton", "url": "http://localhost:8000", "model": "m", **change}
    assert plugins.load("engines", section, "engine")[1].url == change["url"]


def test_helpers_are_no_engines() -> None:
    assert "triton" in plugins.kinds("engines")
    with pytest.raises(PluginError):
        plugins.load("engines", {"kind": "kserve"}, "engine")


def _wait_until_it_answers(engine: Engine, inputs: Any) -> None:
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        try:
            engine.infer(inputs)
            return
        except EngineError:
            time.sleep(0.1)


def test_no_server_is_found_by_itself() -> None:
    from algan_stream.engines import triton

    assert triton.devices() == []
