"""Triton, OpenVINO Model Server and others: a model served by another process, by the KServe v2 protocol.

The server is trusted as little as any engine. Each connection checks, when it is made, that the server has
the bundle's model; the golden gate runs at start-up; and a connection that replaces a broken one reproduces
the golden logits before it scores anything, since who answers now may not be who answered before.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import MODEL, QUANTIZED, Bundle
from algan_stream.endpoints import is_loopback
from algan_stream.engines import kserve
from algan_stream.engines.base import Engine, EngineConfig, EngineIdentity, Slot
from algan_stream.engines.gate import check_logits
from algan_stream.engines.kserve import Address, BrokenError, Connection, Floats, RefusedError, Served
from algan_stream.errors import AlganError, EngineError

log = logging.getLogger(__name__)

#: Parameters of a served model that say which one it is; `algan-stream export` writes them.
PARAMETER_SHA256 = "algan_model_sha256"
PARAMETER_BUNDLE = "algan_bundle"
PARAMETER_PRECISION = "algan_precision"

#: After a failed attempt to connect, batches fail at once for so long, rather than each after a time-out.
_PAUSE_S = 0.5
#: How much longer than an answer may take its arrival is waited for.
_GRACE_S = 5.0
#: Requests in flight with `streams: 0`: one is computed while the next is on its way.
_STREAMS = 2


class Config(EngineConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `engine` with `kind: triton`; `streams` are requests in flight, `threads` has no meaning here.

    Attributes:
        url: `http://HOST:PORT`, `https://…`, `grpc://…` or `grpcs://…`: the scheme is the protocol.
        model: Name of the model on the server.
        version: Its version; "" = whichever the server chooses.
        precision: What the server computes in; decides on the tolerance of the golden gate.
        timeout_ms: Longest wait for an answer, from the moment that a batch is handed over.
        binary: Over HTTP, send tensors as bytes; `false` for servers that only read JSON (slow).
        ca_file: Certificates to trust instead of the system's.
        insecure: Allow a server on another host without encryption: whoever is on the way can read images
            and make up scores.
    """

    kind: Literal["triton"] = "triton"
    url: str
    model: str
    version: str = ""
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    timeout_ms: int = 5000
    binary: bool = True
    ca_file: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        scheme, _, host = kserve.split_url(self.url)
        if scheme in ("http", "grpc") and not is_loopback(host) and not self.insecure:
            raise ValueError(
                f"url: {self.url} leads to another host without encryption; use {scheme}s://, or write "
                "`insecure: true` to accept that scores can be read and forged on the way"
            )
        if not self.model:
            raise ValueError("model: expected the name of a model on the server, got an empty one")
        if not 1 <= self.timeout_ms <= 600_000:
            raise ValueError(f"timeout_ms: expected 1 to 600000, got {self.timeout_ms}")


@dataclass(eq=False)
class _Job:
    """A batch on its way; its sender reads `inputs` until `done`. One without images only connects."""

    inputs: Floats
    deadline_s: float
    done: threading.Event = field(default_factory=threading.Event)
    logits: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    error: Exception | None = None

    def left_s(self) -> float:
        """Time left; raises `TimeoutError` if there is none."""
        if (left := self.deadline_s - time.monotonic()) <= 0:
            raise TimeoutError("no answer in time")
        return left


class TritonEngine(Engine):
    """Sender threads, each with a connection of its own and one request in flight."""

    def __init__(self, bundle: Bundle, config: Config) -> None:
        scheme, netloc, _ = kserve.split_url(config.url)
        self.address = Address(
            scheme, netloc, config.model, config.version, config.ca_file, binary=config.binary
        )
        #: Longest wait for an answer.
        self.timeout_s = config.timeout_ms / 1000
        #: Some connection has failed: from now on a new one reproduces the golden logits first.
        self.suspect = False
        self._bundle, self._config, self._golden = bundle, config, bundle.golden()
        #: Name and version of the server, and the version of the model that it ran first.
        self._server = self._version = ""
        self._closed = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._running: dict[int, _Job] = {}
        self._senders = [_Sender(self._jobs, self) for _ in range(config.streams or _STREAMS)]
        for sender in self._senders:
            sender.start()
        try:
            for sender in self._senders:
                self._result(sender.hello, self.timeout_s + _GRACE_S)
        except (AlganError, RefusedError, BrokenError, TimeoutError) as error:
            self.close()
            raise EngineError(f"{config.model} at {config.url}: {error}{_advice(error)}") from error
        version = f"/{config.version}" if config.version else ""
        super().__init__(
            EngineIdentity(
                "triton",
                self._server,
                f"{config.model}{version}@{netloc}",
                config.precision,
                threads=len(self._senders),
            ),
            bundle.manifest.spec,
            config.max_batch,
            slot_count=2 * len(self._senders) + 1,
            streams=len(self._senders),
        )
        # Every job ends by its deadline, so no slot is ever lost to a server that says nothing.
        self.patience_s = self.timeout_s + _GRACE_S

    def close(self) -> None:
        """Waits for the requests in flight, no longer than they may take, and closes the connections."""
        if self._closed:
            return
        self._closed = True
        for _ in self._senders:
            self._jobs.put(None)
        for sender in self._senders:
            sender.join(self.timeout_s + _GRACE_S)

    def greet(self, connection: Connection, job: _Job, *, suspect: bool) -> None:
        """Checks who answers on a new connection.

        Args:
            connection: Nothing has been scored on it.
            job: What it is made for.
            suspect: A connection has failed before: the golden logits must come out as well.

        Raises:
            EngineError: It is not the server, or not the model, that this engine began with.
            GateError: It does not reproduce the golden logits.
        """
        served = connection.describe(job.left_s())
        self._check_served(served)
        if self._server and served.server != self._server:
            raise EngineError(
                f"the server was {self._server} and is {served.server} now; verdicts name the engine, so "
                "restart the line to go on with the new one"
            )
        if not self._server and PARAMETER_SHA256 not in served.parameters:
            log.warning(
                "%s does not say which model it serves: the golden images alone vouch for it", served.server
            )
        self._server = served.server
        if suspect:
            inputs, size = self._golden.inputs, self._config.max_batch
            parts = [
                self.score_on(connection, inputs[i : i + size], job) for i in range(0, len(inputs), size)
            ]
            check_logits(self._bundle, self.identity, self._golden, np.concatenate(parts))
            log.warning("%s: connected again, and it reproduces the golden logits", self.identity)

    def score_on(self, connection: Connection, inputs: Floats, job: _Job) -> Floats:
        """Has inputs scored on a connection and checks the form of the answer.

        Raises:
            RefusedError: The answer is none, or another version of the model gave it.
        """
        answer = connection.infer(inputs, job.left_s())
        logits, count = answer.logits, len(inputs)
        if logits is None or logits.dtype != np.float32 or logits.shape not in ((count,), (count, 1)):
            got = "none" if logits is None else f"{logits.dtype} {logits.shape}"
            raise RefusedError(f"expected {count} logits in float32, got {got}")
        self._version = self._version or answer.version
        if answer.version != self._version:
            raise RefusedError(
                f"version {answer.version} of the model answered, it was {self._version} before"
            )
        return np.array(logits, np.float32).reshape(count)  # a copy: theirs is read-only

    def _check_served(self, served: Served) -> None:
        shape = (-1, *self._bundle.manifest.spec.shape)
        inputs = [t for t in served.tensors if t[0] == "inputs"]
        outputs = [t for t in served.tensors if t[:3] == ("outputs", kserve.OUTPUT, "FP32")]
        if inputs != [("inputs", kserve.INPUT, "FP32", shape)] or [t[3] for t in outputs] not in (
            [(-1,)],
            [(-1, 1)],
        ):
            raise EngineError(
                f"the served model does not fit the manifest: expected one input "
                f"`{kserve.INPUT}` FP32 {shape} and an output `{kserve.OUTPUT}` FP32 (-1,) or (-1, 1), got "
                f"{served.tensors}"
            )
        precision = self._config.precision
        name = QUANTIZED if precision == "int8" and QUANTIZED in self._bundle.manifest.files else MODEL
        expected = {
            PARAMETER_SHA256: self._bundle.manifest.files[name].sha256,
            PARAMETER_PRECISION: precision,
        }
        for key, value in expected.items():
            if (found := served.parameters.get(key, value)) != value:
                raise EngineError(
                    f"the server has another model: {key} is {found}, the bundle {self._bundle.path} needs "
                    f"{value}; export this bundle there, or name the bundle that is served"
                )
        if served.max_batch is not None and served.max_batch < self._config.max_batch:
            raise EngineError(
                f"the server takes {served.max_batch} images at a time, engine.max_batch is "
                f"{self._config.max_batch}; lower that, or export with a larger --max-batch"
            )

    def _start(self, slot: Slot, count: int) -> None:
        if self._closed:
            raise EngineError("is closed")
        job = _Job(slot.inputs_nchw[:count], time.monotonic() + self.timeout_s)
        self._running[slot.index] = job
        self._jobs.put(job)

    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        try:
            return self._result(self._running[slot.index], timeout_s)
        except RefusedError as error:
            raise EngineError(f"{error}{_advice(error)}") from error

    def _result(self, job: _Job, timeout_s: float) -> Floats:
        if not job.done.wait(timeout_s):
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        if isinstance(job.error, TimeoutError):  # the slot is not read any more: not what `collect` fears
            raise EngineError(f"no answer within {self.timeout_s:g} s (engine.timeout_ms)")
        if job.error is not None:
            raise job.error
        return job.logits


class _Sender(threading.Thread):
    """Sends one batch after the other over its own connection, and makes a new one when that is broken."""

    def __init__(self, jobs: queue.SimpleQueue[_Job | None], engine: TritonEngine) -> None:
        super().__init__(name="triton-sender", daemon=True)
        #: Is done when the first connection stands.
        self.hello = _Job(np.empty(0, np.float32), time.monotonic() + engine.timeout_s)
        self._jobs, self._engine = jobs, engine
        self._connection: Connection | None = None
        self._paused_until, self._paused_by = 0.0, ""

    def run(self) -> None:
        """Works until it takes None."""
        job: _Job | None = self.hello
        while job is not None:
            try:
                job.logits = self._score(job)
            except Exception as error:  # noqa: BLE001  whatever it is, whoever waits must hear of it
                job.error = error
            job.done.set()
            job = self._jobs.get()
        self._disconnect()

    def _score(self, job: _Job) -> Floats:
        while True:
            fresh = self._connection is None
            connection = self._connected(job)
            try:
                logits = self._engine.score_on(connection, job.inputs, job) if len(job.inputs) else job.inputs
                if connection.lost:
                    raise BrokenError("the connection was lost meanwhile, and another made")
                return logits
            except Exception as error:
                self._disconnect(suspect=True)
                # Servers close connections that idle: the first request after a pause deserves a second try.
                if fresh or not isinstance(error, BrokenError):
                    raise

    def _connected(self, job: _Job) -> Connection:
        """The connection, or a new one that has been checked."""
        if self._connection is not None and self._connection.lost:
            self._disconnect(suspect=True)
        if self._connection is not None:
            return self._connection
        if time.monotonic() < self._paused_until:
            raise BrokenError(self._paused_by)
        try:
            self._connection = kserve.connect(self._engine.address, self._engine.timeout_s)
            self._engine.greet(self._connection, job, suspect=self._engine.suspect)
        except Exception as error:
            self._disconnect(suspect=True)
            self._paused_until, self._paused_by = time.monotonic() + _PAUSE_S, str(error)
            raise
        return self._connection

    def _disconnect(self, *, suspect: bool = False) -> None:
        self._engine.suspect = self._engine.suspect or suspect
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def create(bundle: Bundle, config: Config) -> TritonEngine:
    """Connects to the server and checks that it has the bundle's model.

    Raises:
        EngineError: The server does not answer, or has another model.
    """
    return TritonEngine(bundle, config)


def devices() -> list[str]:
    """Nothing is found by itself: a server has to be named, as in `--engine "{kind: triton, url: …}"`."""
    return []


def _advice(error: Exception) -> str:
    """What helps against the one refusal that is a matter of configuration."""
    binary = isinstance(error, RefusedError) and error.status in ("400", "422")
    return "; a server that cannot read binary tensors needs `binary: false`, or gRPC" if binary else ""
