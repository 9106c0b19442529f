"""Each line on standard error is one JSON object, whatever is logged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from algan_stream.logs import JsonFormatter, SeldomWarning


def _record(message: str, *arguments: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("algan_stream.x", logging.WARNING, "f", 1, message, arguments, None)
    for name, value in more.items():
        setattr(record, name, value)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    made: dict[str, Any] = json.loads(line)
    return made


def test_what_a_record_says() -> None:
    made = _record("camera %s", "press", camera="press", frame=7, other="not ours")
    moment = datetime.strptime(made.pop("time"), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert abs((datetime.now(timezone.utc) - moment).total_seconds()) < 5
    assert made == {
        "level": "warning",
        "logger": "algan_stream.x",
        "thread": "MainThread",
        "message": "camera press",
        "camera": "press",
        "frame": 7,
    }


@pytest.mark.parametrize(
    "text", ["two\nlines", 'a "quote"', "\udcff\udc80.png", "\0\x1b[31m", "Weiß 漢字", "\u2028", ""]
)
def test_any_text(text: str) -> None:
    expected = text.encode("utf-8", "backslashreplace").decode()
    made = _record("%s", text, camera=text)
    assert (made["message"], made["camera"]) == (expected, expected)


def test_values_that_json_does_not_know() -> None:
    assert _record("x", camera=Path("a"), frame=1 + 2j)["camera"] == "a"


def test_an_exception_is_told_in_the_same_line() -> None:
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        made = _record("x", exc_info=sys.exc_info())
    assert made["exception"].startswith("Traceback (most recent call last):\n")
    assert made["exception"].endswith("ValueError: broken\nin two")


_PROGRAM = """
import logging, warnings
from algan_stream.logs import LogFormat, LogLevel, set_up
set_up(LogFormat({form!r}), LogLevel("warning"))
set_up(LogFormat({form!r}), LogLevel("info"))
logging.getLogger("algan_stream.a").info("told once")
logging.getLogger("algan_stream.a").debug("not told")
warnings.warn("old ways")
raise RuntimeError("nobody caught me")
"""


def _errors(form: str) -> list[str]:
    program = [sys.executable, "-c", _PROGRAM.format(form=form)]
    return subprocess.run(program, capture_output=True, text=True, check=False).stderr.splitlines()


def test_warnings_and_what_nobody_caught_are_records_too() -> None:
    records = [json.loads(line) for line in _errors("json")]
    assert [(r["level"], r["logger"]) for r in records] == [
        ("info", "algan_stream.a"),
        ("warning", "py.warnings"),
        ("critical", "algan_stream"),
    ]
    assert "old ways" in records[1]["message"]
    assert records[2]["message"] == "RuntimeError: nobody caught me"
    assert "Traceback" in records[2]["exception"]


def test_text_is_for_people() -> None:
    lines = _errors("text")
    assert lines[0].endswith("INFO algan_stream.a: told once")
    assert lines[-1] == "RuntimeError: nobody caught me"
    assert not any("not told" in line for line in lines)


def test_what_strangers_cause_is_told_seldom(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    seldom = SeldomWarning(logging.getLogger("x"))
    for i in range(5):
        seldom.warning("refused %d", i)
    now[0] += 1.5
    seldom.warning("refused %d", 5)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["refused 0", "refused 5 (and 4 more since the last such line)"]
