"""Posts verdicts as JSON to a web server."""

from __future__ import annotations

import http.client
import os
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from algan_stream.endpoints import is_loopback
from algan_stream.errors import ConfigError, SinkRefusedError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, VerdictKind

#: Answers of a server that may take the same verdict later.
_LATER = frozenset({408, 425, 429})
#: Answers that say: for good, the page is elsewhere.
_MOVED = frozenset({301, 308})


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: webhook`.

    Attributes:
        url: `https://HOST[:PORT]/PATH`, or `http://` on this host.
        verdicts: Which verdicts are posted.
        token_env: Environment variable that holds a bearer token; the configuration holds none.
        timeout_s: Longest wait for the server.
        insecure: Allow `http://` to another host.
    """

    kind: Literal["webhook"]
    url: str
    verdicts: tuple[VerdictKind, ...] = tuple(VerdictKind)
    token_env: str | None = None
    timeout_s: float = 5.0
    insecure: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 600:
            raise ValueError(f"timeout_s: expected above 0 and up to 600, got {self.timeout_s}")


class WebhookSink(Sink):
    """One connection, kept open; each verdict is a POST that the server must answer with 2xx."""

    waits: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self._verdicts = frozenset(config.verdicts)
        self._headers = {"Content-Type": "application/json", "User-Agent": "algan-stream"}
        if config.token_env is not None:
            self._headers["Authorization"] = f"Bearer {_token(config.token_env)}"
        parts = urlsplit(config.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        assert parts.hostname is not None
        self._connection = kind(parts.hostname, parts.port, timeout=config.timeout_s)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def write(self, verdict: FrameVerdict) -> None:
        """Posts one verdict.

        Raises:
            SinkRefusedError: The server's answer is 4xx, other than "later", or it has moved for good.
            OSError: There is no connection, or the server is in trouble.
        """
        if verdict.verdict not in self._verdicts:
            return
        self._connection.request("POST", self._target, msgspec.json.encode(verdict), self._headers)
        answer = self._connection.getresponse()
        said = answer.read(200)
        if 200 <= answer.status < 300:
            return
        if answer.status in _MOVED:
            to = answer.getheader("Location", "a place that it does not name")
            raise SinkRefusedError(
                f"the server answered {answer.status}: it has moved to {to}; correct `url`"
            )
        message = f"the server answered {answer.status} {answer.reason}: {said.decode('utf-8', 'replace')}"
        if 400 <= answer.status < 500 and answer.status not in _LATER:
            raise SinkRefusedError(message)
        raise OSError(message)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def create(config: Config) -> WebhookSink:
    """Checks the configuration; connects with the first verdict, so that the server may start later.

    Raises:
        ConfigError: The URL is none, or leads to another host unencrypted; or the token is not set.
    """
    parts = urlsplit(config.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url: expected https://HOST/PATH, got {config.url!r}")
    try:
        parts.port  # noqa: B018  it is parsed here
    except ValueError as error:
        raise ConfigError(f"url: {error}, in {config.url!r}") from error
    if parts.scheme == "http" and not (config.insecure or is_loopback(parts.hostname)):
        raise ConfigError(
            f"url: {config.url} leads to another host unencrypted; use https://, or write "
            "`insecure: true` to accept that"
        )
    return WebhookSink(config)


def _token(variable: str) -> str:
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(f"token_env: the environment variable {variable} is not set")
    return token
