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
        """Appends one line.

        Raises:
            OSError: There is no room for it; nothing of it is left in the file.
        """
        line = self._encode(verdict) + b"\n"
        written = 0
        try:
            while written < len(line):  # a disk takes what has room, and says why at the next attempt
                written += self._file.write(line[written:])
        except OSError:
            if written:  # half a line would spoil the next one too
                self._file.truncate(self._file.tell() - written)
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def create(config: Config) -> JsonlSink:
    """Opens the file.

    Raises:
        ConfigError: It cannot be written.
    """
    return JsonlSink(config)
