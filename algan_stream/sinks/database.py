"""Keeps verdicts in a database: SQLite in a file, or PostgreSQL by its URL."""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from algan_stream.endpoints import is_loopback
from algan_stream.errors import ConfigError, SinkRefusedError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict

#: What identifies a verdict: the same one, delivered twice, is kept once.
_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
  camera TEXT NOT NULL, frame_id BIGINT NOT NULL, captured_ns BIGINT NOT NULL, part_id TEXT NOT NULL,
  verdict TEXT NOT NULL, reason TEXT NOT NULL, outcome TEXT NOT NULL, score DOUBLE PRECISION,
  p_value DOUBLE PRECISION, threshold DOUBLE PRECISION, model TEXT NOT NULL, engine TEXT NOT NULL,
  total_ms DOUBLE PRECISION NOT NULL, boxes TEXT NOT NULL,
  PRIMARY KEY (camera, captured_ns, frame_id))
"""
_COLUMNS = 14


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: database`; one of `path` and `url`.

    Attributes:
        path: SQLite file, made if it is missing; its folder must exist.
        url: `postgresql://USER@HOST[:PORT]/DATABASE`; the password belongs into `~/.pgpass`, or the
            environment variable PGPASSWORD.
        timeout_s: Longest wait for the database.
        insecure: Allow PostgreSQL on another host without `sslmode=verify-full` (or `verify-ca`) in the URL.
    """

    kind: Literal["database"]
    path: str | None = None
    url: str | None = None
    timeout_s: float = 5.0
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.path is None and self.url is None:
            raise ValueError("path: expected path (SQLite) or url (PostgreSQL), got neither")
        if self.path is not None and self.url is not None:
            raise ValueError("path: expected either path (SQLite) or url (PostgreSQL), got both; remove one")
        if not 0 < self.timeout_s <= 600:
            raise ValueError(f"timeout_s: expected above 0 and up to 600, got {self.timeout_s}")


class DatabaseSink(Sink):
    """A row for each verdict, committed before `write` returns; the boxes are a JSON column."""

    waits: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: Any = None
        mark = "?" if config.url is None else "%s"
        marks = ", ".join([mark] * _COLUMNS)
        self._insert = f"INSERT INTO verdicts VALUES ({marks}) ON CONFLICT DO NOTHING"

    def write(self, verdict: FrameVerdict) -> None:
        """Inserts one row, unless it is there.

        Raises:
            SinkRefusedError: A value does not fit into its column.
        """
        if self._connection is None:
            self._connection = self._connected()
        try:
            self._connection.execute(self._insert, _row(verdict))
        except Exception as error:
            if isinstance(error, OverflowError) or type(error).__mro__[1].__name__ == "DataError":
                raise SinkRefusedError(f"frame {verdict.frame_id} of {verdict.camera}: {error}") from error
            raise

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Any:
        if self._config.url is None:
            import sqlite3

            assert self._config.path is not None
            connection: Any = sqlite3.connect(
                self._config.path,
                timeout=self._config.timeout_s,
                check_same_thread=False,  # made and used by the outlet's thread, closed by another
                isolation_level=None,  # each statement commits
            )
            connection.execute("PRAGMA journal_mode=WAL")  # readers do not keep the writer waiting
        else:
            import psycopg

            connection = psycopg.connect(
                self._config.url, connect_timeout=max(2, round(self._config.timeout_s)), autocommit=True
            )
        connection.execute(_TABLE)
        return connection


def create(config: Config) -> DatabaseSink:
    """Checks the configuration; PostgreSQL may start later: it is connected to with the first verdict.

    Raises:
        ConfigError: The file cannot be written, or the URL is none, holds a password, or leads to another
            host unencrypted.
        ModuleNotFoundError: psycopg is not installed.
    """
    sink = DatabaseSink(config)
    if config.url is not None:
        import psycopg  # noqa: F401  missing, it shall be said at the start

        _check_url(config.url, insecure=config.insecure)
        return sink
    import sqlite3

    try:
        sink._connected().close()
    except sqlite3.Error as error:
        raise ConfigError(f"path: cannot keep verdicts in {config.path}: {error}") from error
    return sink


def _check_url(url: str, *, insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise ConfigError("url: expected postgresql://USER@HOST/DATABASE")
    if parts.password is not None:
        raise ConfigError("url: holds a password; put that into ~/.pgpass or PGPASSWORD instead")
    checked = any(f"sslmode={mode}" in parts.query.split("&") for mode in ("verify-full", "verify-ca"))
    if parts.hostname and not (checked or insecure or is_loopback(parts.hostname)):
        raise ConfigError(
            f"url: {parts.hostname} is another host; add ?sslmode=verify-full, or write `insecure: true` to "
            "accept that verdicts may go there unencrypted"
        )


def _row(verdict: FrameVerdict) -> tuple[object, ...]:
    scores = [box.score for box in verdict.boxes if box.score is not None]
    p_values = [box.p_value for box in verdict.boxes if box.p_value is not None]
    score = verdict.fused_score if verdict.fused_score is not None else max(scores, default=None)
    # NUL cannot stand in a PostgreSQL text; a part's name from outside may hold one.
    part_id, reason = (text.replace("\0", "�") for text in (verdict.part_id, verdict.reason))
    boxes = msgspec.json.encode(verdict.boxes).decode().replace("\\u0000", "�")
    return (
        verdict.camera, verdict.frame_id, verdict.captured_ns, part_id, verdict.verdict.value, reason,
        verdict.outcome.value, score, min(p_values, default=None), verdict.threshold, verdict.model,
        verdict.engine, verdict.stages.total_ms, boxes,
    )  # fmt: skip
