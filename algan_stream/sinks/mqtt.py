"""Publishes verdicts to an MQTT broker: topic `PREFIX/CAMERA`, a JSON `FrameVerdict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from algan_stream.endpoints import is_loopback, require_plain_host
from algan_stream.errors import ConfigError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: mqtt`.

    Attributes:
        host: The broker's name or address.
        port: Its port; 8883 is usual with TLS.
        topic: First part of the topic; the camera's name follows.
        client_id: Name of this client; must be its own at the broker.
        qos: 1: the broker confirms each verdict, and it is sent again until it does; 2: once exactly.
        retain: The broker keeps the last verdict of each camera for those who subscribe later.
        tls: Encrypt; the broker's certificate must be one that this host, or `ca_file`, vouches for.
        ca_file: Certificates to trust instead of the host's.
        user: User name, if the broker asks for one.
        password_file: File that holds the password in its first line; the configuration holds none.
        timeout_s: Longest wait for the connection, and for a confirmation.
        insecure: Allow a broker on another host without TLS.
    """

    kind: Literal["mqtt"]
    host: str = "127.0.0.1"
    port: int = 1883
    topic: str = "algan"
    client_id: str = "algan-stream"
    qos: Literal[1, 2] = 1
    retain: bool = False
    tls: bool = False
    ca_file: str | None = None
    user: str | None = None
    password_file: str | None = None
    timeout_s: float = 5.0
    insecure: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise ValueError(f"port: expected 1 to 65535, got {self.port}")
        if not self.topic or any(c in self.topic for c in "#+\0"):
            raise ValueError(f"topic: expected a topic without '#' and '+', got {self.topic!r}")
        if not 0 < self.timeout_s <= 600:
            raise ValueError(f"timeout_s: expected above 0 and up to 600, got {self.timeout_s}")
        if self.password_file is not None and self.user is None:
            raise ValueError("user: is required with password_file")


class MqttSink(Sink):
    """A connection that waits for the broker's confirmation of each verdict."""

    waits: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client: Any = None
        self._password = _password(config)

    def write(self, verdict: FrameVerdict) -> None:
        """Publishes one verdict and waits until the broker has it."""
        if self._client is None:
            self._client = self._connected()
        topic = f"{self._config.topic}/{verdict.camera}"
        message = self._client.publish(
            topic, msgspec.json.encode(verdict), qos=self._config.qos, retain=self._config.retain
        )
        message.wait_for_publish(self._config.timeout_s)
        if not message.is_published():
            raise TimeoutError(f"the broker confirmed nothing within {self._config.timeout_s:g} s")

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _connected(self) -> Any:
        import threading

        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        config = self._config
        client = paho.Client(CallbackAPIVersion.VERSION2, config.client_id)
        answered, answers = threading.Event(), []

        def on_connect(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
            answers.append(reason)
            answered.set()

        client.on_connect = on_connect
        client.connect_timeout = config.timeout_s
        if config.user is not None:
            client.username_pw_set(config.user, self._password)
        if config.tls:
            client.tls_set(config.ca_file)
        client.connect(config.host, config.port)
        client.loop_start()
        if not answered.wait(config.timeout_s) or answers[0].is_failure:
            client.disconnect()
            client.loop_stop()
            said = answers[0] if answers else f"nothing within {config.timeout_s:g} s"
            raise ConnectionError(f"{config.host}:{config.port}: the broker says: {said}")
        return client


def create(config: Config) -> MqttSink:
    """Checks the configuration; connects with the first verdict, so that a broker may start later.

    Raises:
        ConfigError: The broker is on another host and there is no TLS, or the password cannot be read.
        ModuleNotFoundError: paho-mqtt is not installed.
    """
    import paho.mqtt.client  # noqa: F401  missing, it shall be said at the start

    require_plain_host(config.host, tls_schemes=("mqtts", "ssl"))
    if not (config.tls or config.insecure or is_loopback(config.host)):
        raise ConfigError(
            f"host: {config.host} is another host, and verdicts would go there unencrypted; set `tls: true`, "
            "or write `insecure: true` to accept that"
        )
    return MqttSink(config)


def _password(config: Config) -> str | None:
    if config.password_file is None:
        return None
    try:
        return Path(config.password_file).read_text("utf-8").splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise ConfigError(f"password_file: no password in {config.password_file}: {error}") from error
