"""The C++ client against the real service, compiled with warnings as errors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from algan_stream.bundle import Bundle
from processes import Service

_ROOT = Path(__file__).parents[1]
_WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wshadow", "-Werror"]


@pytest.fixture(scope="module")
def send_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    probe = [compiler, "-E", "-x", "c++", "-include", "zmq.h", "/dev/null"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no zmq.h; Debian has it in libzmq3-dev")
    program = tmp_path_factory.mktemp("cpp") / "send_frames"
    source = _ROOT / "examples" / "cpp" / "send_frames.cpp"
    include = f"-I{_ROOT / 'csrc' / 'include'}"
    built = subprocess.run(
        [compiler, "-std=c++17", "-O1", *_WARNINGS, include, source, "-o", program, "-lzmq"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return program


def _run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_frames_and_verdicts(send_frames: Path, bundle: Bundle, tmp_path: Path) -> None:
    with Service(tmp_path, bundle.path) as service:
        shared = _run(send_frames, service.endpoint, 40, 480, 640)
        socket = _run(send_frames, service.endpoint, 40, 480, 640, "socket")
        assert (shared.returncode, socket.returncode) == (0, 0), shared.stderr + socket.stderr
        assert service.stop() == 0
    assert shared.stdout.splitlines()[-1] == "sent 40, answered 40, through shared memory"
    assert socket.stdout.splitlines()[-1] == "sent 40, answered 40, through the socket"
    # The same pixels, the same scores, whichever way they went.
    assert sorted(shared.stdout.splitlines()[:-1]) == sorted(socket.stdout.splitlines()[:-1])
    frames = service.frames("example")
    assert frames == {**frames, "received": 80, "scored": 80, "in_flight": 0}
    assert service.stopped["cameras"]["example"]["boxes"]["scored"] == 2 * 40
    parts = [verdict["part_id"] for verdict in service.verdicts()]
    assert parts == [f"part-{i}" for i in range(40)] * 2


def test_nobody_there(send_frames: Path, tmp_path: Path) -> None:
    ended = _run(send_frames, "nonsense")
    assert (ended.returncode, "endpoint: expected ipc://PATH" in ended.stderr) == (1, True)
    assert _run(send_frames).returncode == 2
