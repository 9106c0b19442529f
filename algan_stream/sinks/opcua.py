"""Tells a PLC by OPC UA, with handshake, heartbeat and a bit that says whether a verdict is valid.

The PLC is the server and we are its client, as by Modbus TCP: its program owns the variables, most PLCs have
a server built in while fewer can be clients, and this process opens no port. Its variables, by name:

| variable | written by | holds |
|---|---|---|
| Heartbeat | us | goes up every `heartbeat_s`, to 30000, then 0; standing still, nobody is at work |
| Ready, Busy, Valid | us | inspecting; a verdict waits for its acknowledgement; that verdict may be read |
| Sequence | us | of the verdict, 1 to 30000, then 1 again |
| Verdict | us | 0 unknown, 1 pass, 2 reject |
| Score | us | NaN: none |
| FrameId | us | lowest 31 bits |
| Camera, PartId, Reason | us | texts |
| Acknowledged | PLC | the sequence that it has taken |

How and when they are written is `handshake.py`'s business.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from algan_stream.endpoints import is_loopback
from algan_stream.errors import ConfigError
from algan_stream.ranges import check_ranges
from algan_stream.sinks.base import Sink
from algan_stream.sinks.handshake import CODES, PlcSink, score_of, short_part_id
from algan_stream.sinks.opcua_security import as_found, password_of, uri_of
from algan_stream.types import FrameVerdict

T = TypeVar("T")

STATUS = ("Ready", "Busy", "Valid")
DETAILS = ("Sequence", "Verdict", "Score", "FrameId", "Camera", "PartId", "Reason")
VARIABLES = ("Heartbeat", *STATUS, *DETAILS, "Acknowledged")
_PART_ID_BYTES = 254  # what a string of a Siemens PLC holds
#: Longest wait for the end of a connection that may be broken.
_GOODBYE_S = 0.5


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: opcua`.

    Attributes:
        url: `opc.tcp://HOST[:PORT][/PATH]` of the PLC's server.
        node: Id of each variable's node, `{}` for its name: `ns=2;s=Algan.{}`; a Siemens PLC has
            `ns=3;s="Algan"."{}"`.
        nodes: Ids of single variables that are called otherwise, by our name.
        camera: Only this camera's verdicts; None: all.
        max_age_ms: A verdict that is older, counted from the frame's capture, is not written.
        acknowledge_ms: Longest wait for the PLC's acknowledgement; then the verdict is written again.
        heartbeat_s: Between two beats.
        timeout_s: Longest wait for the connection and for an answer.
        security: `sign_and_encrypt`, `sign`, or `none`. The first two need the three files.
        policy: Which algorithms, where there is security.
        certificate_file: Our certificate (PEM or DER), with a URI and `clientAuth`; the PLC must trust it.
        key_file: Its private key, PEM.
        server_certificate_file: The PLC's certificate: no other server is talked to.
        user: User name, if the PLC asks for one.
        password_file: File that holds the password in its first line; or
        password_env: the environment variable that holds it. The configuration holds none.
        insecure: Allow a PLC on another host without `sign_and_encrypt`.
    """

    kind: Literal["opcua"]
    url: str
    node: str = "ns=2;s=Algan.{}"
    nodes: dict[str, str] = {}
    camera: str | None = None
    max_age_ms: float = 1000.0
    acknowledge_ms: float = 200.0
    heartbeat_s: float = 0.5
    timeout_s: float = 2.0
    security: Literal["sign_and_encrypt", "sign", "none"] = "none"
    policy: Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "Basic256Sha256"
    certificate_file: str | None = None
    key_file: str | None = None
    server_certificate_file: str | None = None
    user: str | None = None
    password_file: str | None = None
    password_env: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        check_ranges(
            ("max_age_ms", self.max_age_ms, 1, 3_600_000),
            ("acknowledge_ms", self.acknowledge_ms, 1, 60_000),
            ("heartbeat_s", self.heartbeat_s, 0.01, 60),
            ("timeout_s", self.timeout_s, 0.01, 60),
        )
        if "{}" not in self.node:
            raise ValueError(f"node: expected an id with {{}} for the variable's name, got {self.node!r}")
        if strange := sorted(set(self.nodes) - set(VARIABLES)):
            raise ValueError(f"nodes: expected names among {', '.join(VARIABLES)}, got {strange[0]!r}")
        files = (self.certificate_file, self.key_file, self.server_certificate_file)
        if self.security != "none" and None in files:
            raise ValueError(
                "security: needs certificate_file, key_file and server_certificate_file, or must be none"
            )
        if self.security == "none" and files != (None, None, None):
            raise ValueError("security: is none, but there are certificates; write sign_and_encrypt")
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("password_env: expected either password_file or password_env, got both")
        if (self.password_file or self.password_env) and self.user is None:
            raise ValueError("user: is required with a password")


class OpcUaSink(PlcSink):
    """A client of the PLC's server; its connection lives in a thread with an event loop."""

    highest: ClassVar[int] = 30_000  # fits into any integer that a PLC may have chosen

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._settings = config
        self._password = password_of(config)
        self._application_uri = uri_of(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._nodes: dict[str, Any] = {}
        self._types: dict[str, Any] = {}

    def connect(self) -> None:
        """Connects, and looks up what kind of value each variable holds.

        Raises:
            ConnectionError: No server answers, it refuses us, or it lacks a variable.
        """
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name="opcua", daemon=True).start()
        try:
            self._wait(self._connect(), 4 * self._settings.timeout_s)
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Ends the connection."""
        loop, client, self._loop, self._client = self._loop, self._client, None, None
        if loop is None:
            return
        farewell = asyncio.run_coroutine_threadsafe(_leave(client), loop)
        with suppress(Exception):  # it is gone anyway
            farewell.result(3 * _GOODBYE_S)
        loop.call_soon_threadsafe(loop.stop)

    def put_status(self, *, ready: bool, busy: bool, valid: bool) -> None:
        """Writes the three bits, `Valid` after the others unless it is taken back."""
        bits = {"Ready": ready, "Busy": busy, "Valid": valid}
        self._put({name: bits[name] for name in (STATUS if valid else STATUS[::-1])})

    def put_verdict(self, sequence: int, verdict: FrameVerdict) -> None:
        """Writes what there is to say."""
        self._put(
            {
                "Verdict": CODES[verdict.verdict],
                "Score": score_of(verdict),
                "FrameId": verdict.frame_id & 0x7FFFFFFF,
                "Camera": verdict.camera,
                "PartId": short_part_id(verdict, _PART_ID_BYTES).decode(),
                "Reason": verdict.reason[:_PART_ID_BYTES],
                "Sequence": sequence,
            }
        )

    def put_heartbeat(self, beat: int) -> None:
        """Writes the beat."""
        self._put({"Heartbeat": beat})

    def acknowledged(self) -> int:
        """Reads the PLC's answer."""
        return int(self._wait(self._nodes["Acknowledged"].read_value(), self._settings.timeout_s))

    def _put(self, values: dict[str, object]) -> None:
        from asyncua import ua

        # Without timestamps: many PLCs refuse values that bring their own.
        data = [ua.DataValue(ua.Variant(value, self._types[name])) for name, value in values.items()]
        writing = self._client.write_values([self._nodes[name] for name in values], data)
        self._wait(writing, self._settings.timeout_s)

    async def _connect(self) -> None:
        from asyncua import ua
        from asyncua.client.client import Client
        from asyncua.ua.uaerrors import UaError

        config = self._settings
        client = Client(config.url, timeout=config.timeout_s)
        client.name = "algan-stream"
        if config.security != "none":
            from asyncua.crypto import security_policies

            client.application_uri = self._application_uri
            await client.set_security(
                getattr(security_policies, f"SecurityPolicy{config.policy}"),
                as_found(config.certificate_file),
                as_found(config.key_file),
                server_certificate=as_found(config.server_certificate_file),
                mode={"sign": ua.MessageSecurityMode.Sign}.get(
                    config.security, ua.MessageSecurityMode.SignAndEncrypt
                ),
            )
        if config.user is not None:
            client.set_user(config.user)
            client.set_password(self._password or "")
        try:
            await client.connect()
        except (OSError, asyncio.TimeoutError, UaError) as error:
            raise ConnectionError(f"{config.url}: {_said(error)}") from error
        self._client = client
        for name in VARIABLES:
            node_id = config.nodes.get(name, config.node.replace("{}", name))
            try:
                self._nodes[name] = client.get_node(node_id)
                self._types[name] = await self._nodes[name].read_data_type_as_variant_type()
            except (UaError, ValueError) as error:
                raise ConnectionError(
                    f"{config.url}: expected the variable {name} as node {node_id}: {_said(error)}; make it "
                    "in the PLC, or correct `node` or `nodes`"
                ) from error

    def _wait(self, coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
        if self._loop is None:
            coroutine.close()
            raise ConnectionError(f"{self._settings.url}: is not connected")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise TimeoutError(f"{self._settings.url}: no answer within {seconds:g} s") from error


def create(config: Config) -> Sink:
    """Makes the sink; it connects from its own thread, so that the PLC may start later.

    Raises:
        ConfigError: The URL is none, a file cannot be used, or the PLC is on another host, unencrypted, and
            the section does not accept that.
        ModuleNotFoundError: asyncua is not installed.
    """
    import asyncua  # noqa: F401  missing, it shall be said at the start

    # What it has to say comes as an error as well, and the outlet tells that once, not at each attempt.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    parts = urlsplit(config.url)
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise ConfigError(f"url: expected opc.tcp://HOST[:PORT], got {config.url!r}")
    if parts.password is not None or parts.username is not None:
        raise ConfigError("url: holds a user or password; use `user` and `password_file` or `password_env`")
    encrypted = config.security == "sign_and_encrypt"
    if not (encrypted or config.insecure or is_loopback(parts.hostname)):
        raise ConfigError(
            f"url: {parts.hostname} is another host, and security is {config.security}; use "
            "`security: sign_and_encrypt`, or write `insecure: true` to accept that anyone between may read "
            "and alter verdicts"
        )
    return OpcUaSink(config)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _leave(client: Any) -> None:
    """Says goodbye, then ends whatever the library still has running."""
    try:
        if client is not None:
            await asyncio.wait_for(client.disconnect(), _GOODBYE_S)
    except Exception:  # noqa: BLE001  it is gone anyway
        client.disconnect_socket()
    own = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() if task is not own]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
