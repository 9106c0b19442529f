"""One training run around Algorithm 1: validates, saves, resumes, reports, and exports the result."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import torch

from algan_stream.bundle import MANIFEST, Bundle, check_target
from algan_stream.calibration import calibrate
from algan_stream.errors import AlganError, BundleError
from algan_trainer import checkpoint
from algan_trainer.algan import State, new_state, train
from algan_trainer.config import Config, differences, override
from algan_trainer.data import Dataset, data_hash, file_hashes, load_inputs, read_dataset
from algan_trainer.evaluate import auroc_of
from algan_trainer.networks import anomaly_scores
from algan_trainer.precision import dtype_of, resolve, use_threads
from algan_trainer.progress import Reporter
from algan_trainer.session import Data, Journal, Request

LAST, BEST = "last.npz", "best.npz"
#: A kill loses at most this much, however long an epoch is.
SAVE_EVERY_S = 120.0
#: Keys that may change when a training is resumed: they only decide when to stop and what to keep.
_FREE_KEYS = {"epochs": 0, "keep_every": 0, "golden_images": 0}


class TrainingInterruptedError(AlganError):
    """Training was stopped on request; its checkpoint is complete."""

    exit_code = 130


def run(base: Config | None, changes: dict[str, Any], request: Request) -> Bundle:
    """Trains, or goes on training, and writes the bundle.

    Args:
        base: Configuration from a file; None: the checkpoint's when resuming, else the defaults.
        changes: Dotted keys that the command line sets; None values are ignored.
        request: What to train.

    Raises:
        TrainingInterruptedError: Stopped by a signal or `stop_after_epochs`; go on with `resume`.
        AlganError: Something cannot be used; the message says what and how to mend it.
    """
    check_target(request.out)
    if (request.out / MANIFEST).is_file() and not (request.resume or request.overwrite):
        raise BundleError(
            f"{request.out}: a finished bundle with its calibration stands there; name another --out, or add "
            "--overwrite"
        )
    with checkpoint.exclusive(request.work_dir):
        saved = _saved(request)
        if base is None and saved is not None:
            base = msgspec.convert(saved[1]["config"], Config)
        config = override(base or Config(), changes)
        config = override(config, {"precision": resolve(config.precision)})
        threads = use_threads(request.threads)
        data = _load(request.data, config)
        if request.false_reject_rate is not None:  # an impossible wish is refused now, not after training
            calibrate(range(len(data.dataset.calibration)), request.false_reject_rate)
        journal = Journal(data_hash(data.dataset, data.hashes))
        state = new_state(config, data.train)
        if saved is not None:
            journal = _resumed(state, saved, journal.data_hash, request)
        batches = len(state.order)
        reporter = Reporter(config.epochs * batches, state.epoch * batches + state.batch)
        _introduce(reporter, data.dataset, config, threads, state)
        with reporter:
            _loop(state, journal, data, request, reporter)
        return _export(state, journal, data, request, reporter)


def _loop(state: State, journal: Journal, data: Data, request: Request, reporter: Reporter) -> None:
    """Consumes Algorithm 1 batch by batch."""
    config, batches = state.config, len(state.order)
    first_epoch, before_s, started = state.epoch, journal.seconds, time.monotonic()
    saved_at = started
    with _stop_requests() as stop:
        for _ in train(state, data.train):
            now = time.monotonic()
            journal.seconds = before_s + now - started
            done = state.epoch * batches + state.batch
            loss_d, loss_g = (loss / (state.batch or batches) for loss in state.losses)
            reporter.batch(done, min(state.epoch + 1, config.epochs), loss_d, loss_g, journal.best_auroc)
            validated = False
            if state.batch == 0:
                validated = state.epoch % config.validate_every == 0 or state.epoch == config.epochs
                auroc = _validate(state, journal, data, request) if validated else None
                row = {"epoch": state.epoch, "loss_d": loss_d, "loss_g": loss_g, "auroc": auroc}
                journal.curve.append({**row, "seconds": round(journal.seconds, 3)})
                if validated:
                    reporter.validation(done, state.epoch, config.epochs, _summary(journal))
            limit = request.stop_after_epochs
            stopping = stop.is_set() or (limit is not None and state.epoch - first_epoch >= limit)
            if validated or stopping or now - saved_at > SAVE_EVERY_S:
                _save(state, journal, request)
                saved_at = time.monotonic()
            if stopping and state.epoch < config.epochs:
                raise TrainingInterruptedError(
                    f"stopped in epoch {state.epoch + 1} of {config.epochs}; nothing is lost: add "
                    f" --resume to the same command to go on ({request.work_dir / LAST})"
                )


def _validate(state: State, journal: Journal, data: Data, request: Request) -> float | None:
    """Validation AUROC; keeps D where it is the best so far (the paper's rule)."""
    auroc = auroc_of(anomaly_scores(state.discriminator, data.validation), data.anomalous)
    if auroc is not None and (journal.best_auroc is None or auroc > journal.best_auroc):
        journal.best_epoch, journal.best_auroc = state.epoch, auroc
        arrays = checkpoint.discriminator_arrays(state.discriminator)
        checkpoint.write_checkpoint(request.work_dir / BEST, arrays, {"epoch": state.epoch, "auroc": auroc})
    return auroc


def _save(state: State, journal: Journal, request: Request) -> None:
    arrays, facts = checkpoint.capture(state)
    facts |= {"config": msgspec.to_builtins(state.config), "journal": vars(journal)}
    checkpoint.write_checkpoint(request.work_dir / LAST, arrays, facts)
    every = state.config.keep_every
    if every and state.batch == 0 and state.epoch % every == 0:
        checkpoint.write_checkpoint(request.work_dir / f"epoch-{state.epoch:05d}.npz", arrays, facts)


def _saved(request: Request) -> tuple[checkpoint.Arrays, dict[str, Any]] | None:
    """The checkpoint to go on from, if one is wanted and there is one."""
    path = request.work_dir / LAST
    if not path.exists():
        return None
    saved = checkpoint.read_checkpoint(path)
    if request.resume:
        return saved
    if not saved[1]["journal"]["finished"]:
        raise checkpoint.CheckpointError(
            f"{path}: holds an unfinished training (epoch {saved[1]['epoch']}); add --resume "
            "to go on with it, name another --work-dir, or remove the folder to start over"
        )
    return None


def _resumed(
    state: State, saved: tuple[checkpoint.Arrays, dict[str, Any]], data_hash_now: str, request: Request
) -> Journal:
    arrays, facts = saved
    journal = Journal(**facts["journal"])
    # Typed first: a checkpoint from before an option existed was trained with that option's default.
    before = msgspec.to_builtins(msgspec.convert(facts["config"], Config))
    now = msgspec.to_builtins(state.config)
    changed = differences(before | _FREE_KEYS, now | _FREE_KEYS)
    if journal.data_hash != data_hash_now:
        changed.append(
            f"the images or their split (SHA-256 was {journal.data_hash[:12]}…, now {data_hash_now[:12]}…)"
        )
    if changed:
        raise checkpoint.CheckpointError(
            f"{request.work_dir / LAST}: belongs to another training: {'; '.join(changed)}; "
            "undo the change, or start over with another --work-dir"
        )
    checkpoint.restore(state, arrays, facts)
    journal.finished = False
    return journal


def _load(root: Path, config: Config) -> Data:
    spec = config.network.input_spec()
    dataset = read_dataset(root, config.seed, config.data.calibration_fraction)
    validation = dataset.validation
    train_inputs = torch.from_numpy(load_inputs(root, [s.path for s in dataset.of("train")], spec))
    if config.precision == "auto":
        raise ValueError("precision must be resolved first")
    return Data(
        dataset=dataset,
        hashes=file_hashes(root, dataset.samples),
        train=train_inputs.to(dtype_of(config.precision), memory_format=torch.channels_last),
        validation=torch.from_numpy(load_inputs(root, [s.path for s in validation], spec)),
        anomalous=np.array([s.anomalous for s in validation]),
    )


def _export(state: State, journal: Journal, data: Data, request: Request, reporter: Reporter) -> Bundle:
    from algan_trainer.export import export_bundle

    if journal.best_epoch is not None:
        arrays, _ = checkpoint.read_checkpoint(request.work_dir / BEST)
        checkpoint.restore_discriminator(state.discriminator, arrays)
    bundle = export_bundle(state, journal, data, request, reporter.note)
    journal.finished = True
    arrays, facts = checkpoint.read_checkpoint(request.work_dir / LAST)
    checkpoint.write_checkpoint(request.work_dir / LAST, arrays, facts | {"journal": vars(journal)})
    return bundle


def _introduce(reporter: Reporter, dataset: Dataset, config: Config, threads: int, state: State) -> None:
    counts = ", ".join(
        f"{split} {sum(not s.anomalous for s in of)} good + {sum(s.anomalous for s in of)} anomalous"
        for split in ("train", "calibration", "validation", "test")
        if (of := dataset.of(split))
    )
    net = config.network
    reporter.note(f"data: {dataset.root}, layout {dataset.layout}: {counts}")
    reporter.note(
        f"model: {net.size_px} x {net.size_px} px, width {net.width}; {config.precision}, {threads} threads"
    )
    if state.epoch or state.batch:
        reporter.note(f"resumed: {state.epoch} epochs and {state.batch} batches done")


def _summary(journal: Journal) -> str:
    row = journal.curve[-1]
    text = f"D {row['loss_d']:.3f}  G {row['loss_g']:.3f}"
    if row["auroc"] is None:
        return text
    return f"{text}  AUROC {row['auroc']:.3f} (best {journal.best_auroc:.3f} at {journal.best_epoch})"


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into a flag, read between batches; a second SIGINT ends at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return

    def handle(_signum: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
