"""Connections to inference servers of the KServe v2 protocol: what `tritonclient` offers, over HTTP and gRPC.

A connection belongs to one thread: gevent, which the HTTP client rests on, has an event loop in each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Scheme: TypeAlias = Literal["http", "https", "grpc", "grpcs"]
INPUT, OUTPUT = "input", "logit"

#: What servers answer that do not know the model configuration extension.
_UNKNOWN_CALL = {"400", "404", "405", "501", "StatusCode.UNIMPLEMENTED", "StatusCode.NOT_FOUND"}
_LARGEST_MESSAGE = 2**31 - 1


class BrokenError(Exception):
    """There is no connection any more, or was none."""


class RefusedError(Exception):
    """The server answered, but not with what was asked for.

    Attributes:
        status: Of HTTP or gRPC; "" where the answer came and is wrong.
    """

    def __init__(self, message: str, status: str | None = "") -> None:
        super().__init__(message)
        self.status = status or ""


@dataclass(frozen=True)
class Address:
    """Where a model is served.

    Attributes:
        scheme: Protocol, and whether it is encrypted.
        netloc: Host and port, and over HTTP a path.
        model: Name of the model.
        version: Its version; "" = whichever the server chooses.
        ca_file: Certificates to trust instead of the system's; "" = the system's.
        binary: Over HTTP, tensors travel as bytes rather than as JSON.
    """

    scheme: Scheme
    netloc: str
    model: str
    version: str = ""
    ca_file: str = ""
    binary: bool = True


@dataclass(frozen=True)
class Served:
    """What a server says about itself and its model.

    Attributes:
        server: Name and version of the server.
        tensors: (kind, name, type, shape) of each, `-1` for what varies.
        parameters: The model configuration's; empty where the server keeps them to itself.
        max_batch: Most images in one request; None where the server does not say.
    """

    server: str
    tensors: tuple[tuple[str, str, str, tuple[int, ...]], ...]
    parameters: dict[str, str] = field(default_factory=dict)
    max_batch: int | None = None


@dataclass(frozen=True)
class Answer:
    """Logits as they came, and the version of the model that the server says it ran."""

    logits: npt.NDArray[Any] | None
    version: str


class Connection(ABC):
    """One connection, one request at a time; calls raise `BrokenError`, `RefusedError` or `TimeoutError`.

    Attributes:
        lost: It has been down since it was made, even if it is up again.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.lost = False

    def describe(self, timeout_s: float) -> Served:
        """Asks for server, model metadata and model configuration."""
        server, metadata = self._metadata(timeout_s)
        try:
            config = self._config(timeout_s)
        except RefusedError as error:
            if error.status not in _UNKNOWN_CALL:
                raise
            config = {}
        stated = config.get("parameters") or metadata.get("parameters") or {}
        return Served(
            f"{server.get('name', 'unnamed')}/{server.get('version', 'unknown')}",
            tuple(
                (kind, t.get("name", ""), t.get("datatype", ""), tuple(int(n) for n in t.get("shape", ())))
                for kind in ("inputs", "outputs")
                for t in metadata.get(kind, ())
            ),
            {k: str(v.get("string_value", "") if isinstance(v, dict) else v) for k, v in stated.items()},
            # 0: the model's first axis is not Triton's to batch, and it takes what the model takes
            int(config.get("max_batch_size", 0)) or None,
        )

    @abstractmethod
    def infer(self, inputs: Floats, timeout_s: float) -> Answer:
        """Has inputs scored, (N, …) float32."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    @abstractmethod
    def _metadata(self, timeout_s: float) -> tuple[dict[str, Any], dict[str, Any]]: ...

    @abstractmethod
    def _config(self, timeout_s: float) -> dict[str, Any]: ...


class HttpConnection(Connection):
    """KServe v2 over HTTP."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        import gevent.ssl
        import tritonclient.http

        super().__init__(address)
        encrypted = address.scheme == "https"
        trusted = gevent.ssl.create_default_context(cafile=address.ca_file or None) if encrypted else None
        self._client: Any = tritonclient.http.InferenceServerClient(
            address.netloc,
            connection_timeout=timeout_s,
            network_timeout=timeout_s,
            ssl=encrypted,
            ssl_context_factory=(lambda: trusted) if encrypted else None,
        )
        self._connects = 0
        # The client connects again without a word; who answers then may be another.
        self._client._client_stub._connection_pool.after_connect = self._count

    def infer(self, inputs: Floats, timeout_s: float) -> Answer:
        """See `Connection`."""
        from tritonclient.http import InferInput, InferRequestedOutput

        tensor = InferInput(INPUT, list(inputs.shape), "FP32")
        tensor.set_data_from_numpy(inputs, binary_data=self.address.binary)
        wanted = InferRequestedOutput(OUTPUT, binary_data=self.address.binary)
        result = self._call(
            timeout_s,
            "infer",
            self.address.model,
            [tensor],
            self.address.version,
            [wanted],
            timeout=int(timeout_s * 1e6),
        )
        return Answer(result.as_numpy(OUTPUT), str(result.get_response().get("model_version") or ""))

    def close(self) -> None:
        """See `Connection`."""
        self._client.close()

    def _count(self, _: Any) -> None:
        self._connects += 1
        if self._connects > 1:
            self.lost = True

    def _metadata(self, timeout_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
        model = (self.address.model, self.address.version)
        server = self._call(timeout_s, "get_server_metadata")
        if self._connects == 0:
            raise BrokenError("this version of geventhttpclient hides when it connects again; use gRPC")
        return server, self._call(timeout_s, "get_model_metadata", *model)

    def _config(self, timeout_s: float) -> dict[str, Any]:
        found: dict[str, Any] = self._call(
            timeout_s, "get_model_config", self.address.model, self.address.version
        )
        return found

    def _call(self, timeout_s: float, method: str, *arguments: Any, **named: Any) -> Any:
        import gevent
        from tritonclient.utils import InferenceServerException

        try:
            # The client's own limits hold for each read: a server that sends a byte now and then passes them.
            with gevent.Timeout(timeout_s, TimeoutError("no answer in time")):
                return getattr(self._client, method)(*arguments, **named)
        except InferenceServerException as error:
            raise RefusedError(error.message(), error.status()) from error
        except TimeoutError:
            raise
        except Exception as error:
            raise BrokenError(str(error) or type(error).__name__) from error


class GrpcConnection(Connection):
    """KServe v2 over gRPC."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        import tritonclient.grpc

        del timeout_s  # each call has its own
        super().__init__(address)
        encrypted = address.scheme == "grpcs"
        self._client: Any = tritonclient.grpc.InferenceServerClient(
            address.netloc,
            ssl=encrypted,
            root_certificates=address.ca_file or None,
            channel_args=[
                ("grpc.max_send_message_length", _LARGEST_MESSAGE),
                ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
                # Of its own: a new connection must not inherit the pauses that an old one has earned.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
            ],
        )

    def infer(self, inputs: Floats, timeout_s: float) -> Answer:
        """See `Connection`."""
        from tritonclient.grpc import InferInput, InferRequestedOutput

        if not self._is_up():
            # A channel that is down stays so until the next call, which then connects again without a word;
            # who answers after that may be another.
            self.lost = True
            raise BrokenError("the server has closed the connection")
        tensor = InferInput(INPUT, list(inputs.shape), "FP32")
        tensor.set_data_from_numpy(inputs)
        result = self._call(
            timeout_s,
            "infer",
            self.address.model,
            [tensor],
            self.address.version,
            [InferRequestedOutput(OUTPUT)],
            timeout=int(timeout_s * 1e6),
        )
        return Answer(_as_numpy(result), str(result.get_response().model_version))

    def close(self) -> None:
        """See `Connection`."""
        self._client.close()

    def _metadata(self, timeout_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
        model = (self.address.model, self.address.version)
        server = self._call(timeout_s, "get_server_metadata", as_json=True)
        if not self._is_up():
            raise BrokenError("this version of grpcio hides whether a connection stands; use HTTP")
        return server, self._call(timeout_s, "get_model_metadata", *model, as_json=True)

    def _is_up(self) -> bool:
        """Whether the channel stands at this moment; gRPC's own way to watch it needs a thread and 0.2 s."""
        from grpc import ChannelConnectivity

        state = self._client._channel._channel.check_connectivity_state(False)
        return bool(state == ChannelConnectivity.READY.value[0])

    def _config(self, timeout_s: float) -> dict[str, Any]:
        model = (self.address.model, self.address.version)
        found: dict[str, Any] = self._call(timeout_s, "get_model_config", *model, as_json=True)["config"]
        return found

    def _call(self, timeout_s: float, method: str, *arguments: Any, **named: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return getattr(self._client, method)(*arguments, client_timeout=timeout_s, **named)
        except InferenceServerException as error:
            status = error.status()
            if status == "StatusCode.DEADLINE_EXCEEDED":
                raise TimeoutError("no answer in time") from error
            if status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", None):
                raise BrokenError(error.message()) from error
            raise RefusedError(error.message(), status) from error


def _as_numpy(result: Any) -> npt.NDArray[Any] | None:
    """As tritonclient's, and also where the server has put the numbers into the message itself."""
    output = result.get_output(OUTPUT)
    if output is not None and output.datatype == "FP32" and len(output.contents.fp32_contents):
        return np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)
    found: npt.NDArray[Any] | None = result.as_numpy(OUTPUT)
    return found


def connect(address: Address, timeout_s: float) -> Connection:
    """Makes a connection for the calling thread; whether the server is there shows at the first call."""
    kind = HttpConnection if address.scheme in ("http", "https") else GrpcConnection
    try:
        if address.ca_file:
            Path(address.ca_file).read_bytes()
        return kind(address, timeout_s)
    except OSError as error:  # SSL errors are such, too
        raise BrokenError(f"ca_file: {address.ca_file}: {error.strerror or error}") from error


def split_url(url: str) -> tuple[Scheme, str, str]:
    """Takes `SCHEME://HOST:PORT[/PATH]` apart: scheme, host:port/path, host.

    Raises:
        ValueError: It has another form.
    """
    parts = urlsplit(url)
    schemes: dict[str, Scheme] = {"http": "http", "https": "https", "grpc": "grpc", "grpcs": "grpcs"}
    path = parts.path.rstrip("/")
    try:
        well_formed = bool(parts.hostname and parts.port)
    except ValueError:
        well_formed = False
    if not well_formed or parts.scheme not in schemes or parts.username is not None or parts.query:
        raise ValueError(f"url: expected http://HOST:PORT, https://…, grpc://… or grpcs://…, got {url!r}")
    if path and parts.scheme.startswith("grpc"):
        raise ValueError(f"url: gRPC knows no path, got {url!r}; leave {path} out")
    return schemes[parts.scheme], parts.netloc + path, parts.hostname or ""
