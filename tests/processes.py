"""Runs `algan-stream` as a process of its own, as in the field."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

#: The command, by the interpreter that runs the tests; warnings are errors there as they are here.
ALGAN_STREAM = (sys.executable, "-c", "from algan_stream.cli import main; main()")
_PATIENCE_S = 60.0


def algan_stream(*arguments: str | Path, timeout_s: float = _PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        [*ALGAN_STREAM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False
    )


class Service:
    """`algan-stream run` with one `zmq` source over ipc.

    Args:
        folder: For the configuration, the socket and `verdicts.jsonl`.
        bundle: Path of the bundle.
        source: More keys for the source.
        line: More keys for the file.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        *,
        source: dict[str, Any] | None = None,
        camera: dict[str, Any] | None = None,
        **line: Any,
    ) -> None:
        self.folder = folder
        self.endpoint = f"ipc://{folder / 'in'}"
        config = {
            "bundle": str(bundle),
            "engine": {"kind": "openvino", "threads": 1, "max_batch": 4},
            "cameras": [
                {
                    "id": "cam",
                    "source": {"kind": "zmq", "bind": self.endpoint, **(source or {})},
                    **(camera or {}),
                }
            ],
            "sinks": [{"kind": "jsonl", "path": "verdicts.jsonl"}],
            **line,
        }
        self.file = folder / "line.yaml"
        self.file.write_text(yaml.safe_dump(config), "utf-8")
        self.stopped: dict[str, Any] = {}
        self.errors = ""
        with (folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                [*ALGAN_STREAM, "run", str(self.file), "--json"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"},
            )
        self.ready = self._said()

    def stop(self) -> int:
        """Sends SIGTERM, waits for the end, and returns the exit code; `stopped` holds the final accounts."""
        self.process.send_signal(signal.SIGTERM)
        self.stopped = self._said()
        code = self.process.wait(_PATIENCE_S)
        self.errors = (self.folder / "stderr").read_text()
        return code

    def frames(self, camera: str = "cam") -> dict[str, int]:
        """The final tally of a camera's frames."""
        tally: dict[str, int] = self.stopped["cameras"][camera]["frames"]
        return tally

    def verdicts(self) -> list[dict[str, Any]]:
        """What the `jsonl` sink wrote."""
        lines = (self.folder / "verdicts.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(_PATIENCE_S)
        if self.process.stdout:
            self.process.stdout.close()

    def _said(self) -> dict[str, Any]:
        """The next line that it prints, as JSON; a service that stays silent is killed."""
        watchdog = threading.Timer(_PATIENCE_S, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline() if self.process.stdout else ""
        finally:
            watchdog.cancel()
        if not line:
            raise AssertionError(f"the service said nothing:\n{(self.folder / 'stderr').read_text()}")
        said: dict[str, Any] = json.loads(line)
        return said
