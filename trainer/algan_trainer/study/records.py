"""Files of a study's folder: its settings, each cell's result, and the lock that keeps two runs apart.

OUT/study.json                 what was asked
OUT/cells/KEY/result.json      what came out, or the error; written last, all at once
OUT/cells/KEY/bundle/          the trained model
OUT/cells/KEY/work/            checkpoints; removed when the result is there
OUT/cells/KEY/attempts.jsonl   one line for every start
OUT/cells/KEY/log.txt          what the training reported
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from algan_stream.errors import InputError
from algan_trainer.study.plan import StudyError

RESULT, ATTEMPTS, LOG, BUNDLE, WORK = "result.json", "attempts.jsonl", "log.txt", "bundle", "work"
SETTINGS, CELLS = "study.json", "cells"
_LOCK, _HASHES = ".lock", "data.json"

T = TypeVar("T")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell.

    Attributes:
        key: The cell's.
        fingerprint: Of its configuration and data, see `plan.fingerprint`.
        status: `done`, or `failed` with an `error`.
        metrics: Always `test_auroc`, `validation_auroc` and `best_epoch`; a study may add to them.
        curve: (epoch, validation AUROC), in order.
        counts: Images in each split.
        config: Complete.
        seconds: Training time in all attempts that left a checkpoint.
        attempts: Starts, this one included.
        resumed_from_epoch: Epochs that an earlier attempt had done, at the last start.
        host: Where it ended.
    """

    key: str
    fingerprint: str
    status: Literal["done", "failed"]
    metrics: dict[str, float | None] = {}
    curve: tuple[tuple[int, float], ...] = ()
    counts: dict[str, dict[str, int]] = {}
    config: dict[str, Any] = {}
    seconds: float = 0.0
    attempts: int = 1
    resumed_from_epoch: int = 0
    host: str = ""
    version: str = ""
    error: str = ""


def write_json(path: Path, value: Any) -> None:
    """Writes all at once: a crash leaves the old file or the new one.

    Raises:
        StudyError: It cannot be written.
    """
    staged = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror}") from error


def read_json(path: Path, kind: type[T]) -> T | None:
    """Reads what `write_json` wrote; None where there is nothing.

    Raises:
        StudyError: The file is damaged or from another version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise StudyError(f"{path}: is damaged or from another version: {error}; remove it") from error


def read_result(folder: Path) -> Result | None:
    """A cell's result, if it has one."""
    return read_json(folder / RESULT, Result)


@contextmanager
def locked(folder: Path, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Keeps a second process out of a folder; the system releases it even after a kill.

    Args:
        folder: Is made if need be.
        what: For the message, e.g. `another study`.
        wait_s: How long to wait for the other one to end.

    Raises:
        StudyError: The other one still works there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w")
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {error.strerror}") from error
    with file:
        ends = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= ends:
                    raise StudyError(f"{folder}: {what} is at work there; wait for it to end") from error
            time.sleep(0.2)
        yield


def data_sha256(data: Path, out: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, or of one file.

    Contents are read again only where a name, a size or a time of change differs from the last look.

    Args:
        data: Folder or file.
        out: The study's folder, which remembers the last look.

    Raises:
        InputError: There is no such folder, it is empty, or a file cannot be read.
    """
    files = sorted(p for p in data.rglob("*") if p.is_file()) if data.is_dir() else [data]
    try:
        looks = [f"{p.relative_to(data)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
    except OSError as error:
        raise InputError(f"{data}: cannot be read: {error.strerror}") from error
    if not files:
        raise InputError(f"{data}: expected a folder of images, found no files in it")
    look = hashlib.sha256("\n".join(looks).encode()).hexdigest()
    known = read_json(out / _HASHES, dict[str, str]) or {}
    if look not in known:
        total = hashlib.sha256()
        for path in files:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(data)}\0{digest}\n".encode())
        known[look] = total.hexdigest()
        write_json(out / _HASHES, known)
    return known[look]
