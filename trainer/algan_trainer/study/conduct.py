"""A study from command to table: settles what is asked, runs what is missing, writes the tables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algan_trainer.study.outputs import finished, line, write_tables
from algan_trainer.study.plan import (
    Cell,
    Plan,
    Settings,
    StudyError,
    fingerprint,
    folder_of,
    make_plan,
    plain,
)
from algan_trainer.study.records import CELLS, SETTINGS, Result, data_sha256, locked, write_json


class StudyInterruptedError(StudyError):
    """A study was stopped on request; all that is finished or half finished is kept."""

    exit_code = 130


@dataclass(frozen=True)
class How:
    """Where and how fast cells run; no result depends on it.

    Attributes:
        jobs: Cells at a time on this machine; 1: in this process.
        threads: Computing threads for each; None: all, divided by `jobs`, or one each on Ray.
        ray: Address of a cluster, or `local`; None: no Ray.
        keep_checkpoints: Leave a finished cell's checkpoints.
    """

    jobs: int = 1
    threads: int | None = None
    ray: str | None = None
    keep_checkpoints: bool = False


def conduct(settings: Settings, out: Path, how: How, say: Callable[[str], None]) -> None:
    """Runs every cell that has no result yet, and writes the tables.

    Raises:
        StudyInterruptedError: Stopped by a signal; the same command goes on.
        StudyError: Trainings failed, or the folder is in use, or its results are of other data.
    """
    out = out.resolve()
    plan = make_plan(settings)
    with locked(out, "another study"):
        write_json(out / SETTINGS, settings)
        fingerprints = _fingerprints(plan, Path(settings.data), out)
        results = finished(plan, out)
        _refuse_stale(results, fingerprints, out)
        missing = [cell for cell in plan.cells if _unfinished(results.get(cell.key))]
        done = len(plan.cells) - len(missing)
        say(f"{plan.design.title}: {len(plan.cells)} trainings, {done} done before, {len(missing)} to do")
        try:
            with _stop_on_signals():
                _run(plan, missing, fingerprints, results, settings, out, how, say)
        except KeyboardInterrupt:
            count = sum(not _unfinished(result) for result in finished(plan, out).values())
            raise StudyInterruptedError(
                f"interrupted; {count} of {len(plan.cells)} trainings are done and kept; "
                "the same command goes on"
            ) from None
        finally:
            write_tables(settings, out)
    failed = [key for key, result in finished(plan, out).items() if result.status == "failed"]
    if failed:
        raise StudyError(
            f"{len(failed)} of {len(plan.cells)} trainings failed: {', '.join(failed[:5])}"
            f"{', …' if len(failed) > 5 else ''}; see {out / 'table.md'}; the same command tries them again"
        )


def _run(
    plan: Plan,
    missing: list[Cell],
    fingerprints: dict[str, str],
    results: dict[str, Result],
    settings: Settings,
    out: Path,
    how: How,
    say: Callable[[str], None],
) -> None:
    from algan_trainer.run import TrainingInterruptedError
    from algan_trainer.study.execute import Task

    tasks = [
        Task(
            key=cell.key,
            data=str(folder_of(Path(settings.data), cell.category)),
            config=plain(cell.config),
            fingerprint=fingerprints[cell.key],
            measure=plan.design.measure,
            threads=_threads(how),
            keep_checkpoints=how.keep_checkpoints,
        )
        for cell in missing
    ]
    done, started = len(plan.cells) - len(missing), time.monotonic()
    try:
        with closing(_runner(tasks, out / CELLS, how)) as running:
            for count, result in enumerate(running, 1):
                results[result.key] = result
                spent = time.monotonic() - started
                left = spent / count * (len(tasks) - count)
                say(f"[{done + count}/{len(plan.cells)}] {line(result)}  ({left / 60:.0f} min left)")
                write_tables(settings, out)
    except TrainingInterruptedError:
        raise KeyboardInterrupt from None


def _runner(tasks: list[Any], cells: Path, how: How) -> Generator[Result, None, None]:
    from algan_trainer.study import local

    if not tasks:
        return
    if how.ray is not None:
        from algan_trainer.study.ray_runner import run_ray

        yield from run_ray(tasks, cells, how.ray, how.threads or 1)
    elif how.jobs > 1:
        yield from local.run_processes(tasks, cells, how.jobs)
    else:
        yield from local.run_here(tasks, cells)


def check(settings: Settings, say: Callable[[str], None]) -> None:
    """A dry run: opens and splits every category's data with its configuration, and says what would be run.

    Raises:
        AlganError: The data cannot be used.
    """
    from algan_trainer.modality import open_modality

    plan = make_plan(settings)
    for category in dict.fromkeys(cell.category for cell in plan.cells):
        of = [cell for cell in plan.cells if cell.category == category]
        root = folder_of(Path(settings.data), category)
        dataset = open_modality(root, of[0].config).dataset
        parts = {split: len(dataset.of(split)) for split in ("train", "calibration", "validation", "test")}
        counts = ", ".join(f"{split} {count}" for split, count in parts.items() if count)
        batches = math.ceil(parts["train"] / of[0].config.batch_size) * of[0].config.epochs
        say(f"{root}: {dataset.layout}: {counts}; {len(of)} trainings of {batches} batches")
    say(f"would run {len(plan.cells)} trainings")


def _threads(how: How) -> int | None:
    from algan_stream.cpus import available_cpus

    if how.threads is not None or (how.jobs == 1 and how.ray is None):
        return how.threads
    return 1 if how.ray is not None else max(1, available_cpus() // how.jobs)


def _fingerprints(plan: Plan, data: Path, out: Path) -> dict[str, str]:
    hashes = {
        category: data_sha256(folder_of(data, category), out)
        for category in dict.fromkeys(cell.category for cell in plan.cells)
    }
    return {cell.key: fingerprint(cell.config, hashes[cell.category]) for cell in plan.cells}


def _refuse_stale(results: dict[str, Result], fingerprints: dict[str, str], out: Path) -> None:
    stale = [
        key
        for key, result in results.items()
        if result.status == "done" and result.fingerprint != fingerprints[key]
    ]
    if stale:
        raise StudyError(
            f"{out}: the images or the configuration changed since {stale[0]} was run (as for {len(stale)} "
            f"results in all); name another --out, or remove {out / CELLS / stale[0]}"
        )


def _unfinished(result: Result | None) -> bool:
    return result is None or result.status != "done"


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Makes SIGTERM what Ctrl-C is, as far as no training in this process has its own handler.

    SIGINT as well: a shell's background process begins with it ignored, and could not be stopped by it.
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
