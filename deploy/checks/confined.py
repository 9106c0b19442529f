"""Runs an installed algan-stream as confined as the image or the unit would, without Docker or systemd.

    python3 deploy/checks/confined.py image PREFIX     # e.g. of wheelhouse/install.sh --prefix PREFIX
    python3 deploy/checks/confined.py unit PREFIX

bubblewrap makes the room: a root file system that cannot be written, an empty /tmp, no capabilities, a user
that is not root, other processes out of sight. Then the very words of deploy/docker/Dockerfile.cpu
(environment, health check, entry point, command) or of the unit (`ExecStart=`, its filter of system calls,
its notify socket) are run, frames are sent, and SIGTERM must end it with exit code 0, every frame accounted
for. Needs: bwrap; for the image tini; for the unit systemd-analyze and Debian's python3-seccomp.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

_DEPLOY = Path(__file__).resolve().parents[1]
_LINE = _DEPLOY / "docker" / "line.yaml"
_PATIENCE_S = 120
_FRAMES = 40
_PARTS = """
import sys
from pathlib import Path
from PIL import Image
from algan_stream.demo.parts import render_part
for seed in range(int(sys.argv[2])):
    Image.fromarray(render_part(seed, size_px=64).image[..., ::-1]).save(Path(sys.argv[1]) / f"{seed:03}.png")
"""


class Room:
    """Where commands run confined.

    Args:
        prefix: Python environment with algan-stream; seen under its own path.
        scratch: Empty folder on the real machine.
        environment: The commands' whole environment.
        read_only: More files or folders to be seen: real path → path inside.
        seccomp: BPF program for all commands, or None.
    """

    def __init__(
        self,
        prefix: Path,
        scratch: Path,
        environment: dict[str, str],
        read_only: dict[Path, str],
        seccomp: Path | None,
    ) -> None:
        python = Path(os.path.realpath(prefix / "bin" / "python"))
        self.state, self.run = scratch / "state", scratch / "run"
        self.state.mkdir()
        self.run.mkdir()
        self._seccomp = seccomp
        seen = {
            prefix: str(prefix),
            Path("/usr"): "/usr",
            Path("/sys"): "/sys",
            python.parents[1]: str(python.parents[1]),
            **read_only,
        }
        self._words = ["bwrap", "--die-with-parent", "--unshare-user", "--uid", "10001", "--gid", "10001"]
        self._words += ["--unshare-pid", "--unshare-ipc", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"]
        for name, value in environment.items():
            self._words += ["--setenv", name, value]
        for inside, target in (("/lib", "usr/lib"), ("/lib64", "usr/lib64"), ("/bin", "usr/bin")):
            self._words += ["--symlink", target, inside]
        self._words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        for path, inside in seen.items():
            self._words += ["--ro-bind", str(path), inside]
        self._words += ["--bind", str(self.state), "/var/lib/algan-stream", "--bind", str(self.run), "/run"]
        self._words += ["--remount-ro", "/", "--chdir", "/var/lib/algan-stream"]

    def start(self, words: list[str], log: Path) -> tuple[subprocess.Popen[bytes], int]:
        """Starts a command; returns bwrap's process and the command's own number out here."""
        reads, writes = os.pipe()
        options, passed = ["--info-fd", str(writes)], [writes]
        if self._seccomp:
            program = os.open(self._seccomp, os.O_RDONLY)
            options += ["--seccomp", str(program)]
            passed.append(program)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self._words, *options, *words], stdout=out, stderr=out, pass_fds=passed
            )
        for handle in passed:
            os.close(handle)
        with os.fdopen(reads) as told:
            return process, int(json.loads(told.read())["child-pid"])

    def call(self, words: list[str], log: Path) -> int:
        """Runs a command to its end."""
        return self.start(words, log)[0].wait(_PATIENCE_S)


def dockerfile() -> tuple[dict[str, str], list[str], list[str], list[str]]:
    """Environment, entry point, command and health check of the image's last stage."""
    text = (_DEPLOY / "docker" / "Dockerfile.cpu").read_text("utf-8").replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    environment = dict(
        word.split("=", 1) for line in re.findall(r"^ENV (.*)$", last, re.MULTILINE) for word in line.split()
    )
    lists = [
        json.loads(re.findall(rf"{key} (\[.*\])$", last, re.MULTILINE)[-1])
        for key in ("^ENTRYPOINT", "^CMD", " CMD")
    ]
    return environment, lists[0], lists[1], lists[2]


def unit() -> dict[str, list[str]]:
    """Keys and values of the unit."""
    keys: dict[str, list[str]] = {}
    for line in (_DEPLOY / "systemd" / "algan-stream@.service").read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


def allowed_calls(filters: list[str]) -> set[str]:
    """System calls that the lines `SystemCallFilter=` leave, as systemd reads them."""
    allowed = _expanded(["@default"])
    for text in filters:
        allowed = (
            allowed - _expanded(text[1:].split())
            if text.startswith("~")
            else allowed | _expanded(text.split())
        )
    return allowed


def _expanded(names: list[str]) -> set[str]:
    found = set()
    for name in names:
        if name.startswith("@"):
            said = subprocess.run(
                ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
            )
            lines = [line.strip() for line in said.stdout.splitlines()[1:]]
            found |= _expanded([line for line in lines if line and not line.startswith("#")])
        else:
            found.add(name)
    return found


def write_filter(calls: set[str], path: Path) -> int:
    """Compiles a filter that answers EPERM to all other calls; returns how many calls it knows."""
    program = (
        "import sys, seccomp\n"
        "f = seccomp.SyscallFilter(seccomp.ERRNO(1))\n"
        "n = 0\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n        f.add_rule(seccomp.ALLOW, name); n += 1\n"
        "    except (RuntimeError, ValueError, OSError):\n        pass  # of other processors\n"
        "f.export_bpf(open(sys.argv[1], 'wb'))\n"
        "print(n)\n"
    )
    words = ["/usr/bin/python3", "-c", program, str(path), *sorted(calls)]  # where Debian puts the module
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def use(room: Room, prefix: Path, start: list[str], probe: list[str], scratch: Path) -> None:
    """Starts the service, waits for health, sends frames, ends it, and looks at what it wrote."""
    algan_stream = str(prefix / "bin" / "algan-stream")
    parts, log = scratch / "parts", scratch / "log"
    parts.mkdir()
    subprocess.run([str(prefix / "bin" / "python"), "-c", _PARTS, str(parts), str(_FRAMES)], check=True)
    process, number = room.start(start, log)
    deadline = time.monotonic() + _PATIENCE_S
    while room.call(probe, scratch / "probe") != 0:
        _must(process.poll() is None and time.monotonic() < deadline, f"never healthy: {_text(log)}")
        time.sleep(0.5)
    print(f"healthy: {' '.join(probe)}: {_text(scratch / 'probe').strip()}")
    sent = subprocess.run(
        [algan_stream, "send", str(parts), "--fps", "100"], capture_output=True, text=True, check=False
    )
    _must(sent.returncode == 0, f"send: {sent.stderr}{sent.stdout}{_text(log)}")
    os.kill(number, signal.SIGTERM)
    code = process.wait(_PATIENCE_S)
    _must(code == 0, f"exit code {code} after SIGTERM: {_text(log)}")
    verdicts = (room.state / "verdicts.jsonl").read_text("utf-8").splitlines()
    _must(len(verdicts) == _FRAMES, f"expected {_FRAMES} verdicts, got {len(verdicts)}")
    print(f"ended by SIGTERM with 0; {len(verdicts)} frames, {len(verdicts)} verdicts")
    print("log:", *(_text(log).splitlines()[:3]), sep="\n  ")


def check_image(prefix: Path, scratch: Path) -> None:
    """The words of Dockerfile.cpu."""
    environment, entry, command, health = dockerfile()
    environment["PATH"] = (
        environment["PATH"].replace("/opt/algan/bin", str(prefix / "bin")).replace("$PATH", "/usr/bin")
    )
    room = Room(prefix, scratch, environment, {_LINE: "/etc/algan-stream/line.yaml"}, None)
    _must(room.call(["touch", "/etc/x"], scratch / "touch") != 0, "the root file system can be written")
    _must(room.call(health, scratch / "early") != 0, "healthy before it was started")
    for words in (["doctor"], ["doctor", "--line", "/etc/algan-stream/line.yaml"]):
        _must(room.call([*entry, *words], scratch / "doctor") == 0, _text(scratch / "doctor"))
        print(f"{' '.join([*entry, *words])}: 0")
    print(f"starting {' '.join([*entry, *command])}")
    use(room, prefix, [*entry, *command], health, scratch)


def check_unit(prefix: Path, scratch: Path) -> None:
    """The words of the unit, its system calls, and what it tells systemd."""
    keys = unit()
    calls = allowed_calls(keys["SystemCallFilter"])
    known = write_filter(calls, scratch / "filter")
    print(f"filter: {known} system calls allowed, EPERM for all others")
    environment = dict(word.split("=", 1) for word in keys["Environment"][0].split())
    environment = {key: value.replace("%C/algan-stream/%i", "/tmp") for key, value in environment.items()}
    watchdog_us = 2_000_000
    environment |= {"PATH": "/usr/bin", "NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": str(watchdog_us)}
    room = Room(prefix, scratch, environment, {_LINE: "/etc/algan-stream/press3.yaml"}, scratch / "filter")
    _must(
        room.call(["ionice", "-c", "3", "true"], scratch / "denied") != 0,
        "the filter lets everything through",
    )
    start = shlex.split(keys["ExecStart"][0].replace("%i", "press3"))
    start[0] = str(prefix / "bin" / "algan-stream")
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(room.run / "notify"))
        threading.Thread(target=_listen, args=(systemd, told), daemon=True).start()
        print(f"starting {' '.join(start)}")
        use(room, prefix, start, [start[0], "health"], scratch)
        time.sleep(0.2)  # until the last word is heard
    for wanted in ("READY=1", "WATCHDOG=1", "STOPPING=1"):
        _must(wanted in told, f"systemd was never told {wanted}: {told}")
    print(f"told systemd: READY, {told.count('WATCHDOG=1')} × WATCHDOG, STOPPING")


def _listen(systemd: socket.socket, told: list[str]) -> None:
    with suppress(OSError):  # closed at the end
        while True:
            told += systemd.recv(4096).decode().splitlines()


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"confined: {otherwise}")


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("image", "unit"):
        raise SystemExit("confined: expected `image PREFIX` or `unit PREFIX`")
    if os.geteuid() == 0 and "ALONE" not in os.environ:  # a network of its own: nobody else's ports
        again = 'ip link set lo up && ALONE=1 exec "$@"'
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", again, "sh", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as folder:
        check = check_image if sys.argv[1] == "image" else check_unit
        check(Path(sys.argv[2]).resolve(), Path(folder))
    print("confined: ok")
