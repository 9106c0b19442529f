"""One cell: trains, or goes on training, measures, and leaves a result that is never computed twice."""

from __future__ import annotations

import csv
import math
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from algan_stream import __version__
from algan_stream.bundle import Bundle
from algan_stream.errors import AlganError, InputError
from algan_trainer.checkpoint import read_checkpoint
from algan_trainer.config import Config
from algan_trainer.report import CURVE
from algan_trainer.run import LAST, TrainingInterruptedError, run
from algan_trainer.session import Request
from algan_trainer.study.designs import Measure
from algan_trainer.study.records import (
    ATTEMPTS,
    BUNDLE,
    LOG,
    RESULT,
    WORK,
    Result,
    locked,
    read_result,
    write_json,
)


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a worker needs to know of a cell; travels as JSON.

    Attributes:
        key: The cell's.
        data: Its folder or file of data.
        config: Complete, as a dictionary.
        fingerprint: See `plan.fingerprint`.
        measure: What is measured after training.
        threads: Computing threads; None: all that the process may use.
        keep_checkpoints: Leave the checkpoints when the result is there.
    """

    key: str
    data: str
    config: dict[str, Any]
    fingerprint: str
    measure: Measure = "auroc"
    threads: int | None = None
    keep_checkpoints: bool = False


def execute(task: Task, folder: Path, *, node: str = "", wait_s: float = 0.0) -> Result:
    """Runs a cell in its folder, from wherever an earlier attempt stopped.

    Args:
        task: The cell.
        folder: Its own; what stands there decides where it goes on.
        node: Who runs it, for the record.
        wait_s: How long to wait for an earlier attempt that is not quite dead yet.

    Returns:
        Its result, written to the folder as well; a failure is a result.

    Raises:
        TrainingInterruptedError: Stopped by a signal; another attempt goes on.
        StudyError: The folder is in use or cannot be written.
    """
    with locked(folder, "another run of this cell", wait_s):
        before = read_result(folder)
        if before is not None and before.status == "done" and before.fingerprint == task.fingerprint:
            return before
        facts = _begin(task, folder, node)
        with (folder / LOG).open("a", encoding="utf-8", buffering=1) as log, redirect_stderr(log):
            try:
                result = _train_and_measure(task, folder, facts)
            except TrainingInterruptedError:
                raise
            except Exception as error:  # noqa: BLE001  (one cell's failure must not end the others)
                traceback.print_exc()
                kind = "" if isinstance(error, AlganError) else f"{type(error).__name__}: "
                result = Result(status="failed", error=f"{kind}{error}", **facts)
        write_json(folder / RESULT, result)
        if result.status == "done" and not task.keep_checkpoints:
            shutil.rmtree(folder / WORK, ignore_errors=True)
        return result


def _begin(task: Task, folder: Path, node: str) -> dict[str, Any]:
    """Notes the attempt; returns what every result says."""
    earlier = _attempts(folder)
    if earlier and earlier[-1]["fingerprint"] != task.fingerprint:  # e.g. bad images, mended since
        shutil.rmtree(folder / WORK, ignore_errors=True)
    last = folder / WORK / LAST
    epoch = int(read_checkpoint(last)[1]["epoch"]) if last.is_file() else 0
    line = {
        "at": time.time(),
        "host": platform.node(),
        "node": node,
        "pid": os.getpid(),
        "from_epoch": epoch,
        "fingerprint": task.fingerprint,
    }
    with (folder / ATTEMPTS).open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")
    return {
        "key": task.key,
        "fingerprint": task.fingerprint,
        "config": task.config,
        "attempts": len(earlier) + 1,
        "resumed_from_epoch": epoch,
        "host": platform.node(),
        "version": __version__,
    }


def _attempts(folder: Path) -> list[dict[str, Any]]:
    """Earlier starts; a line that a crash cut short does not count."""
    path, found = folder / ATTEMPTS, []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
    return found


def train(
    task: Task, folder: Path, on_validation: Callable[[Mapping[str, Any]], None] | None = None
) -> Bundle:
    """Trains the task's configuration in `folder`, resuming what is there."""
    request = Request(
        data=Path(task.data),
        out=folder / BUNDLE,
        work_dir=folder / WORK,
        resume=True,
        name=task.key,
        threads=task.threads,
        on_validation=on_validation,
    )
    return run(msgspec.convert(task.config, Config), {}, request)


def _train_and_measure(task: Task, folder: Path, facts: dict[str, Any]) -> Result:
    bundle = train(task, folder)
    provenance = bundle.manifest.provenance
    metrics: dict[str, float | None] = {
        **provenance["metrics"],
        "best_epoch": float(provenance["checkpoint"]["epoch"]),
    }
    if metrics["test_auroc"] is None:
        raise InputError(f"{task.data}: expected good and anomalous test images, to measure AUROC on")
    curve = read_curve(bundle.path / "report" / CURVE)
    metrics |= _late(curve, int(task.config["epochs"]))
    if task.measure == "robustness":
        from algan_trainer.study.robustness import measure_robustness

        config = msgspec.convert(task.config, Config)
        metrics |= measure_robustness(bundle, folder / WORK / LAST, Path(task.data), config)
    return Result(
        status="done",
        metrics=metrics,
        curve=tuple(curve),
        counts=provenance["data"]["counts"],
        seconds=float(provenance["training_seconds"]),
        **facts,
    )


def read_curve(path: Path) -> list[tuple[int, float]]:
    """(epoch, validation AUROC) of a bundle's training curve, where it was validated."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(int(row["epoch"]), float(row["auroc"])) for row in csv.DictReader(file) if row["auroc"]]


def _late(curve: list[tuple[int, float]], epochs: int) -> dict[str, float | None]:
    """Level and wavering of the validation AUROC in the second half of the epochs."""
    late = [value for epoch, value in curve if epoch > epochs / 2]
    mean = float(np.mean(late)) if late else None
    std = float(np.std(late, ddof=1)) if len(late) > 1 else None
    return {"late_mean": mean, "late_std": std if std is None or math.isfinite(std) else None}
