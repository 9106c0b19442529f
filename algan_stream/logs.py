"""How the command logs: text for people, or one JSON object in a line for programs; to standard error."""

from __future__ import annotations

import logging
import sys
import time
from enum import Enum
from types import TracebackType

import msgspec

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: What a log call may say besides its text: `log.warning("…", extra={"camera": …, "frame": …})`.
_EXTRA = ("camera", "frame")


class LogFormat(str, Enum):
    """Form of the log."""

    TEXT = "text"
    JSON = "json"


class LogLevel(str, Enum):
    """Least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record, whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        """`time` (UTC), `level`, `logger`, `thread`, `message`; if known, `camera`, `frame`, `exception`."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{moment}.{int(record.created % 1 * 1e3):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _EXTRA if hasattr(record, name)}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        sound = {key: _sound(value) for key, value in fields.items()}
        return msgspec.json.encode(sound, enc_hook=str).decode()


def _sound(value: object) -> object:
    """File names may hold bytes that are no text (lone surrogates), and JSON cannot."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


class Seldom:
    """Lets one of many equal messages through in a while, and counts the others; for one thread at a time.

    Args:
        every_s: Least time between two that are let through.
    """

    def __init__(self, every_s: float = 60.0) -> None:
        self._every_s, self._next, self._silent = every_s, float("-inf"), 0

    def silenced(self) -> int | None:
        """None: keep silent. Else: speak, and how many messages were not spoken since the last."""
        if time.monotonic() < self._next:
            self._silent += 1
            return None
        self._next = time.monotonic() + self._every_s
        silent, self._silent = self._silent, 0
        return silent


class SeldomWarning:
    """Warnings that strangers can cause at will must not fill the log: one in a second, and how many more.

    Args:
        log: Where they go; those left out go there as debug messages.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log, self._seldom = log, Seldom(every_s=1.0)

    def warning(self, text: str, *args: object) -> None:
        """Logs it, or counts it."""
        silent = self._seldom.silenced()
        if silent is None:
            self._log.debug(text, *args)
            return
        more = f" (and {silent} more since the last such line)" if silent else ""
        self._log.warning(text + more, *args)


def set_up(form: LogFormat = LogFormat.TEXT, level: LogLevel | None = None) -> None:
    """Sets form and level of the process's log.

    As JSON, warnings of Python and an error that nobody caught become records as well, so that every line on
    standard error is one.

    Args:
        form: Text or JSON.
        level: None leaves it as it is.
    """
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    if not ours:
        ours = [logging.StreamHandler(sys.stderr)]
        root.addHandler(ours[0])
    formatter = JsonFormatter() if form is LogFormat.JSON else logging.Formatter(_TEXT)
    for handler in ours:
        handler.setFormatter(formatter)
    if level is not None:
        root.setLevel(level.value.upper())
    if form is LogFormat.JSON:
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("algan_stream").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
