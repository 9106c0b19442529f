"""Runs cells on this machine: one after another in this process, or several in processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from algan_trainer.study.execute import Task, execute
from algan_trainer.study.records import LOG, RESULT, Result, read_result, write_json

#: How long a worker may take to save its checkpoint when it is asked to stop.
_GRACE_S = 60.0


def run_here(tasks: list[Task], cells: Path) -> Iterator[Result]:
    """One after another; a signal during training saves and raises `TrainingInterruptedError`."""
    for task in tasks:
        yield execute(task, cells / task.key)


def run_processes(tasks: list[Task], cells: Path, jobs: int) -> Iterator[Result]:
    """Up to `jobs` at a time. A worker that dies is a failed cell, and no other's trouble.

    Closing the iterator asks the workers to save, and waits for them.
    """
    waiting, running = list(tasks), dict[str, tuple[Task, subprocess.Popen[bytes]]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                running[task.key] = (task, _start(task, cells / task.key))
            ended = [key for key, (_, worker) in running.items() if worker.poll() is not None]
            for key in ended:
                task, worker = running.pop(key)
                yield _outcome(task, worker, cells / key)
            if not ended:
                time.sleep(0.05)
    finally:
        _stop([worker for _, worker in running.values()])


def _start(task: Task, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "algan_trainer.study.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C in the terminal is for this process to hand on
        )
    try:
        _input(worker).write(msgspec.json.encode(task) + b"\n")
        _input(worker).flush()
    except BrokenPipeError:
        pass  # it died at once: its exit code and its log say why
    return worker


def _outcome(task: Task, worker: subprocess.Popen[bytes], folder: Path) -> Result:
    _close(worker)
    result = read_result(folder)
    if worker.returncode == 0 and result is not None and result.fingerprint == task.fingerprint:
        return result
    how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"exit code {worker.returncode}"
    error = f"the worker ended with {how}; see {folder / LOG}"
    result = Result(
        key=task.key, fingerprint=task.fingerprint, status="failed", config=task.config, error=error
    )
    write_json(folder / RESULT, result)
    return result


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    ends = time.monotonic() + _GRACE_S
    for worker in workers:
        try:
            worker.wait(max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        _close(worker)


def _close(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        _input(worker).close()


def _input(worker: subprocess.Popen[bytes]) -> IO[bytes]:
    if worker.stdin is None:
        raise ValueError("a worker's standard input must be a pipe")
    return worker.stdin
