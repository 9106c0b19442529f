"""While an engine is being built, a slower one serves; then the line goes over to it, between two batches."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine
from algan_stream.errors import AlganError, MissingEngineError

log = logging.getLogger(__name__)

#: Opens a gated engine: `service.open_engine`.
Opener: TypeAlias = Callable[[Bundle, dict[str, Any]], Engine]
#: What runs everywhere.
STAND_IN: dict[str, Any] = {"kind": "openvino", "precision": "fp32"}
_BUILD_NICENESS = 10
_END_S = 5.0


class BackgroundBuild:
    """Builds a missing engine in a process of its own, then opens and gates it here.

    Args:
        bundle: What the engine shall serve.
        section: The line's section `engine`.
        command: Builds it, as arguments of a process.
        open_engine: Opens it afterwards.
    """

    def __init__(
        self, bundle: Bundle, section: dict[str, Any], command: tuple[str, ...], open_engine: Opener
    ) -> None:
        self._bundle, self._section, self._command = bundle, section, command
        self._open_engine = open_engine
        #: Set by `stop`; nobody need wait for anything more.
        self.stopping = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def start(self, adopt: Callable[[Engine], None]) -> None:
        """Starts the build; `adopt` gets the gated engine, from another thread, and owns it.

        A build or a gate that fails is logged, and nothing changes.
        """
        self._thread = threading.Thread(target=self._run, args=(adopt,), name="engine-build", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the engine may still take over."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends a build that still runs, and waits for the thread."""
        self.stopping.set()
        if (child := self._child) is not None and child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_END_S)
            child.kill()
        if self._thread is not None:
            self._thread.join()

    def _run(self, adopt: Callable[[Engine], None]) -> None:
        kind = self._section["kind"]
        try:
            if not self._build():
                return
            engine = self._open_engine(self._bundle, self._section)
        except Exception as error:  # noqa: BLE001  the stand-in serves on, whatever it was
            log.error("engine %s cannot serve after its build, the stand-in goes on: %s", kind, error)
            return
        if self.stopping.is_set():
            engine.close()
        else:
            adopt(engine)

    def _build(self) -> bool:
        log.warning("building the missing engine: %s", " ".join(self._command))
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with suppress(OSError):  # the line's frames come first
            os.setpriority(os.PRIO_PROCESS, self._child.pid, _BUILD_NICENESS)
        if self.stopping.is_set():  # `stop` may have come before there was a child
            self._child.terminate()
        _, said = self._child.communicate()
        if self.stopping.is_set():
            return False
        if self._child.returncode != 0:
            last = said.strip().splitlines()[-1:] or [f"exit code {self._child.returncode}"]
            log.error("the build of the missing engine failed, the stand-in goes on: %s", last[0])
            return False
        return True


def open_or_stand_in(
    bundle: Bundle, section: dict[str, Any], open_engine: Opener
) -> tuple[Engine, BackgroundBuild | None]:
    """The line's engine; or, where it has to be built first, a slower gated one and the build to start.

    Raises:
        AlganError: The engine cannot serve for another reason, or the stand-in cannot either.
    """
    try:
        return open_engine(bundle, section), None
    except MissingEngineError as error:
        missing = error
    shared: dict[str, Any] = {name: section[name] for name in ("max_batch", "threads") if name in section}
    try:
        engine = open_engine(bundle, {**STAND_IN, **shared})
    except AlganError as error:
        raise type(error)(f"{missing}; and no engine can stand in for it: {error}") from error
    engine.identity = replace(engine.identity, stand_in_for=section["kind"])
    log.warning("%s; %s serves meanwhile", missing, engine.identity)
    return engine, BackgroundBuild(bundle, section, missing.command, open_engine)
