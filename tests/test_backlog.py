"""What waits for a sink, and what of it outlives a process."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algan_stream.errors import ConfigError
from algan_stream.sinks import backlog as module
from algan_stream.sinks.backlog import Backlog, FileBacklog, MemoryBacklog

_MIB = 1 << 20


def _drain(backlog: Backlog) -> list[bytes]:
    got = []
    while (record := backlog.peek()) is not None:
        got.append(record)
        backlog.pop()
    return got


@pytest.fixture(params=["memory", "file"])
def backlog(request: pytest.FixtureRequest, tmp_path: Path) -> Backlog:
    return MemoryBacklog(1000) if request.param == "memory" else FileBacklog(tmp_path / "spill", _MIB)


def test_first_in_first_out(backlog: Backlog) -> None:
    records = [bytes([i]) * i for i in range(200)]
    assert sum(map(backlog.put, records)) == 0
    assert len(backlog) == 200
    assert _drain(backlog) == records
    assert len(backlog) == 0
    assert backlog.peek() is None
    backlog.pop()  # nothing is there
    assert len(backlog) == 0


def test_puts_and_pops_in_any_order(backlog: Backlog) -> None:
    rng, expected = random.Random(0), deque[bytes]()
    for i in range(3000):
        if rng.random() < 0.52:
            record = str(i).encode() * rng.randrange(1, 9)
            assert backlog.put(record) == 0
            expected.append(record)
        elif expected:
            assert backlog.peek() == expected.popleft()
            backlog.pop()
        assert len(backlog) == len(expected)
    assert _drain(backlog) == list(expected)


def test_a_full_memory_loses_the_oldest_but_not_the_one_in_delivery() -> None:
    backlog = MemoryBacklog(2)
    backlog.put(b"0")
    assert backlog.peek() == b"0"
    assert [backlog.put(b"%d" % i) for i in range(1, 5)] == [0, 0, 1, 1]
    assert backlog.peek() == b"0"
    backlog.pop()
    assert _drain(backlog) == [b"3", b"4"]
    backlog.put(b"5")
    assert backlog.close() == 1


def test_a_file_goes_on_after_a_restart(tmp_path: Path) -> None:
    first = FileBacklog(tmp_path, _MIB)
    for i in range(10):
        first.put(b"%d" % i)
    for _ in range(4):
        first.peek()
        first.pop()
    assert first.close() == 0
    second = FileBacklog(tmp_path, _MIB)
    assert len(second) == 6
    second.put(b"10")
    assert _drain(second) == [b"%d" % i for i in range(4, 11)]
    second.close()
    third = FileBacklog(tmp_path, _MIB)
    assert len(third) == 0
    third.close()


def test_a_file_goes_on_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from algan_stream.sinks.backlog import FileBacklog\n"
        "b = FileBacklog(Path(sys.argv[1]), 1 << 20)\n"
        "for i in range(100): b.put(b'%d' % i)\n"
        "for _ in range(30): b.peek(); b.pop()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert ended.returncode == -9
    backlog = FileBacklog(tmp_path, _MIB)
    assert _drain(backlog) == [b"%d" % i for i in range(30, 100)]
    backlog.close()


def test_a_full_file_loses_the_newest(tmp_path: Path) -> None:
    backlog = FileBacklog(tmp_path, 10 * (8 + 100))
    assert [backlog.put(bytes([i]) * 100) for i in range(12)] == [0] * 10 + [1, 1]
    backlog.peek()
    backlog.pop()
    assert backlog.put(b"x" * 100) == 0
    assert _drain(backlog) == [*(bytes([i]) * 100 for i in range(1, 10)), b"x" * 100]
    backlog.close()


def test_a_full_disk_loses_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = FileBacklog(tmp_path, _MIB)
    backlog.put(b"before")
    real = os.pwrite

    def half(file: int, data: bytes, offset: int) -> int:
        return real(file, data[: len(data) // 2], offset)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    for broken in (half, full):
        monkeypatch.setattr(module.os, "pwrite", broken)
        assert backlog.put(b"lost") == 1
    monkeypatch.setattr(module.os, "pwrite", real)
    assert backlog.put(b"after") == 0
    backlog.close()
    reopened = FileBacklog(tmp_path, _MIB)
    assert _drain(reopened) == [b"before", b"after"]
    reopened.close()


def test_what_is_delivered_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPACT_BYTES", 1000)
    backlog, expected = FileBacklog(tmp_path, _MIB), deque[bytes]()
    for i in range(2000):  # never empty, always moving
        record = b"%05d" % i * 4
        backlog.put(record)
        expected.append(record)
        if i >= 10:
            assert backlog.peek() == expected.popleft()
            backlog.pop()
    assert (tmp_path / "records").stat().st_size < 3000
    backlog.close()
    reopened = FileBacklog(tmp_path, _MIB)
    assert _drain(reopened) == list(expected)
    reopened.close()


@pytest.mark.parametrize("keep", [1, 5, 8, 9, 20])
def test_half_a_record_is_set_aside(tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture) -> None:
    backlog = FileBacklog(tmp_path, _MIB)
    backlog.put(b"whole")
    backlog.close()
    with (tmp_path / "records").open("ab") as file:
        file.write((struct.pack("<II", 100, 0) + b"x" * 100)[:keep])
    reopened = FileBacklog(tmp_path, _MIB)
    assert f"last {keep} bytes are no whole record" in caplog.text
    assert len(next(tmp_path.glob("broken-*")).read_bytes()) == keep
    assert reopened.put(b"next") == 0
    assert _drain(reopened) == [b"whole", b"next"]
    reopened.close()


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_whatever_is_in_the_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("spill")
    (folder / "records").write_bytes(content)
    backlog = FileBacklog(folder, _MIB)
    _drain(backlog)
    backlog.put(b"works")
    assert _drain(backlog) == [b"works"]
    backlog.close()


def test_a_folder_belongs_to_one(tmp_path: Path) -> None:
    first = FileBacklog(tmp_path, _MIB)
    with pytest.raises(ConfigError, match=r"spill: .* is in use by another sink or service"):
        FileBacklog(tmp_path, _MIB)
    first.close()
    FileBacklog(tmp_path, _MIB).close()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="spill: cannot use"):
        FileBacklog(tmp_path / "file" / "spill", _MIB)
