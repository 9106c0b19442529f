"""One JSON line per verdict, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from algan_stream.errors import ConfigError
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: jsonl`.

    Attributes:
        path: File to append to; its folder must exist.
    """

    kind: Literal["jsonl"]
    path: str


class JsonlSink(Sink):
    """Appends each verdict as a line and hands it to the operating system at once."""

    def __init__(self, config: Config) -> None:
        try:
            # Unbuffered: a killed service leaves every verdict that it gave, and no half line of another.
            self._file = Path(config.path).open("ab", buffering=0)  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise ConfigError(f"path: cannot write {config.path}: {error.strerror}") from error
        self._encode = msgspec.json.Encoder().encode

    def write(self, verdict: FrameVerdict) -> None:
        """Appends one line."""
        self._file.write(self._encode(verdict) + b"\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def create(config: Config) -> JsonlSink:
    """Opens the file.

    Raises:
        ConfigError: It cannot be written.
    """
    return JsonlSink(config)
