"""Every error a user can meet, as one tree.

AlganError
├── ConfigError          a configuration key is unknown, missing or out of range
├── InputError           an image, box or folder cannot be used
│   └── ImageError       one image file cannot be decoded
├── CameraError          a camera cannot be reached, or has stopped sending
├── BundleError          a model bundle is incomplete, altered or from a newer version
├── CalibrationError     a false-reject rate is asked for that the images cannot support
├── EngineError          an engine cannot be built or has failed
│   ├── GateError        an engine does not reproduce the bundle's golden logits
│   ├── EngineCacheError     a compiled engine is corrupt or for something else
│   └── MissingEngineError   an engine has not been compiled yet; says by which command
├── PluginError          a source, sink, engine or box plugin is unknown or lacks a dependency
├── ProtocolError        a peer broke the wire protocol
├── BusyError            a running line cannot do this now; says what to wait for
├── SharedMemoryError    there is no shared memory to be had
├── SinkRefusedError     a receiver of verdicts says that it will never take this one
└── LedgerError          the frame accounts do not add up (a bug: the service stops)

Messages say what was expected, what came, and how to mend it.
"""

from __future__ import annotations


class AlganError(Exception):
    """Base of every error raised on purpose by algan-stream."""

    #: Exit code of the `algan-stream` command when this error ends it.
    exit_code = 1


class ConfigError(AlganError):
    """A configuration key is unknown, missing or out of range; the message names its path."""

    exit_code = 2


class InputError(AlganError, ValueError):
    """An image, a box or a folder given by the caller cannot be used."""

    exit_code = 3


class ImageError(InputError):
    """An image file is missing, truncated, empty or of an unsupported kind."""


class CameraError(AlganError):
    """A camera cannot be reached, or has stopped sending; it may be back at any time."""

    exit_code = 3


class BundleError(AlganError):
    """A model bundle is incomplete, altered, or written by a newer version."""

    exit_code = 4


class CalibrationError(AlganError):
    """A false-reject rate was asked for that the number of good images cannot support."""

    exit_code = 5


class EngineError(AlganError):
    """An inference engine cannot be built, or failed while running."""

    exit_code = 6


class GateError(EngineError):
    """An engine does not reproduce the golden logits of its bundle on this machine."""


class EngineCacheError(EngineError):
    """A compiled engine in the cache is corrupt or for something else; it was set aside."""


class MissingEngineError(EngineError):
    """An engine has to be compiled before it can serve.

    Attributes:
        command: Builds it, as arguments of a process.
    """

    def __init__(self, message: str, command: tuple[str, ...]) -> None:
        super().__init__(message)
        self.command = command


class PluginError(AlganError):
    """A plugin is unknown, or a library that it needs is not installed."""

    exit_code = 2


class ProtocolError(AlganError):
    """A message does not follow the wire protocol; the message says which field and why."""

    exit_code = 7


class BusyError(AlganError):
    """A running line was asked for something that it cannot do at this moment; the message says why."""

    exit_code = 9


class SharedMemoryError(AlganError):
    """There is no shared memory to be had; frames can still go through the socket."""

    exit_code = 7


class SinkRefusedError(AlganError):
    """A receiver says that it will never take this verdict; trying again would only hold up the others."""


class LedgerError(AlganError):
    """The frame accounts do not add up. This is a bug in algan-stream, never a user's mistake."""

    exit_code = 70
