"""The file of verdicts: whole lines at any moment, set aside by size and by day, and none lost on the way."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from algan_stream.errors import ConfigError
from algan_stream.sinks import jsonl
from algan_stream.sinks.base import Sink
from algan_stream.sinks.outlet import open_sink
from algan_stream.types import FrameVerdict, Outcome, VerdictKind
from servers import wait_for


def _verdict(frame_id: int) -> FrameVerdict:
    kind = VerdictKind.PASS
    return FrameVerdict(camera="cam", frame_id=frame_id, verdict=kind, outcome=Outcome.SCORED, captured_ns=0)


def _open(folder: Path, **more: Any) -> Sink:
    return open_sink({"kind": "jsonl", "path": str(folder / "v.jsonl"), **more}, "sinks[0]")


def _ids(file: Path) -> list[int]:
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [msgspec.json.decode(line, type=FrameVerdict).frame_id for line in data.splitlines()]


def _aside(folder: Path) -> list[Path]:
    return sorted(folder.glob("v-*"), key=lambda f: f.name.removesuffix(".gz").removesuffix(".jsonl"))


@pytest.mark.parametrize("compress", [False, True])
def test_by_size(tmp_path: Path, compress: bool) -> None:
    sink = _open(tmp_path, max_mb=0.01, compress=compress)
    for i in range(500):
        sink.write(_verdict(i))
    sink.close()
    files = _aside(tmp_path)
    assert len(files) >= 5
    assert {file.suffix for file in files} == {".gz" if compress else ".jsonl"}
    assert [i for file in [*files, tmp_path / "v.jsonl"] for i in _ids(file)] == list(range(500))
    if not compress:
        assert all(file.stat().st_size <= 10_000 for file in files)
    assert not list(tmp_path.glob(".*"))


def test_the_newest_stay(tmp_path: Path) -> None:
    sink = _open(tmp_path, max_mb=0.01, keep=2)
    for i in range(500):
        sink.write(_verdict(i))
    sink.close()
    files = _aside(tmp_path)
    assert len(files) == 2
    left = [i for file in [*files, tmp_path / "v.jsonl"] for i in _ids(file)]
    assert left == list(range(500 - len(left), 500))


def test_old_ones_go_at_the_next_start(tmp_path: Path) -> None:
    old, young = tmp_path / "v-20200101T000000Z.jsonl", tmp_path / "v-20200102T000000Z.jsonl.gz"
    mine = tmp_path / "v-notes.jsonl"
    for file in (old, young, mine):
        file.write_bytes(b"")
    past = time.time() - 5 * 86_400
    os.utime(old, (past, past))
    os.utime(mine, (past, past))
    _open(tmp_path, daily=True, keep_days=3.0).close()
    assert not old.exists()
    assert young.exists()
    assert mine.exists()  # nothing of somebody else's


def test_by_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000.0]
    monkeypatch.setattr(jsonl.time, "time", lambda: now[0])
    sink = _open(tmp_path, daily=True)
    for i in range(6):
        now[0] += 43_200
        sink.write(_verdict(i))
    sink.close()
    assert [_ids(file) for file in _aside(tmp_path)] == [[0, 1], [2, 3]]
    assert _ids(tmp_path / "v.jsonl") == [4, 5]


def test_a_file_of_yesterday_from_an_earlier_run(tmp_path: Path) -> None:
    sink = _open(tmp_path, daily=True)
    sink.write(_verdict(0))
    sink.close()
    past = time.time() - 86_400
    os.utime(tmp_path / "v.jsonl", (past, past))
    sink = _open(tmp_path, daily=True)
    sink.write(_verdict(1))
    sink.close()
    assert [_ids(file) for file in _aside(tmp_path)] == [[0]]
    assert _ids(tmp_path / "v.jsonl") == [1]


def test_killed_while_it_sets_files_aside(tmp_path: Path) -> None:
    """With -9, again and again: every line is whole, and what was written is there in order."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from test_sinks_jsonl import _open, _verdict; from pathlib import Path; import itertools;"
        "sink = _open(Path(sys.argv[1]), max_mb=0.005, compress=True);"
        "[sink.write(_verdict(i)) or (print(i, flush=True) if i % 100 == 0 else None)"
        " for i in itertools.count(int(sys.argv[3]))]"
    )
    following = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent), str(following)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if int(line) >= following + 500:
                    break
            process.send_signal(signal.SIGKILL)
        _open(tmp_path, max_mb=0.005, compress=True).close()  # packs what was left
        files = [*_aside(tmp_path), tmp_path / "v.jsonl"]
        ids = [i for file in files for i in _ids(file)]
        assert ids == list(range(len(ids)))
        assert len(ids) > following + 500
        following = len(ids)


def test_half_a_line_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = _open(tmp_path)
    sink.write(_verdict(0))
    sink.close()
    with (tmp_path / "v.jsonl").open("ab") as file:
        file.write(b'{"camera":"c')
    sink = _open(tmp_path)
    sink.write(_verdict(1))
    sink.close()
    assert _ids(tmp_path / "v.jsonl") == [0, 1]
    [broken] = tmp_path.glob("v.jsonl.broken-*")
    assert broken.read_bytes() == b'{"camera":"c'
    assert "were no whole line" in caplog.text


def test_a_full_disk(tmp_path: Path) -> None:
    """A file system of its own: what does not fit is an error for each verdict, and no half line."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.getuid() == 0 and os.system(f"mount -t tmpfs -o size=64k none {disk} 2>/dev/null") == 0
    if not mounted:
        pytest.skip("only root may mount a small file system")
    try:
        sink = _open(disk)
        taken, refused = [], 0
        for i in range(2000):
            try:
                sink.write(_verdict(i))
                taken.append(i)
            except OSError:
                refused += 1
        assert refused > 1000
        assert _ids(disk / "v.jsonl") == taken
        (disk / "v.jsonl").write_bytes(b"")  # somebody makes room
        sink.write(_verdict(3000))
        sink.close()
        assert _ids(disk / "v.jsonl") == [3000]
    finally:
        os.system(f"umount {disk}")


def test_a_file_that_cannot_be_set_aside_grows_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = _open(tmp_path, max_mb=0.001)

    def fails(*_: object) -> None:
        raise OSError(13, "no")

    monkeypatch.setattr(Path, "rename", fails)
    for i in range(50):
        sink.write(_verdict(i))
    sink.close()
    assert _ids(tmp_path / "v.jsonl") == list(range(50))
    assert caplog.text.count("cannot be set aside") == 1


def test_by_a_thread_of_its_own_and_safe_from_power_cuts(tmp_path: Path) -> None:
    sink = _open(tmp_path, max_mb=0.005, fsync="always", delivery={})
    for i in range(100):
        sink.write(_verdict(i))
    sink.close()
    assert [i for file in [*_aside(tmp_path), tmp_path / "v.jsonl"] for i in _ids(file)] == list(range(100))


def test_packing_that_fails_keeps_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip, "open", fails)
    sink = _open(tmp_path, max_mb=0.005, compress=True)
    for i in range(100):
        sink.write(_verdict(i))
    sink.close()
    wait_for(lambda: "cannot be packed" in caplog.text)
    assert [i for file in [*_aside(tmp_path), tmp_path / "v.jsonl"] for i in _ids(file)] == list(range(100))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_mb": 0}, "max_mb: expected 0.001 to"),
        ({"keep": -1, "daily": True}, "keep: expected 0 to"),
        ({"keep": 3}, "keep: needs max_mb or daily"),
        ({"compress": True}, "compress: needs max_mb or daily"),
        ({"fsync": "sometimes"}, "fsync: expected one of never, rotate, always"),
    ],
)
def test_a_wrong_section(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _open(tmp_path, **wrong)
