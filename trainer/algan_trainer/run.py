"""One training run around Algorithm 1: validates, saves, resumes, reports, and exports the result."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch

from algan_stream.bundle import MANIFEST, Bundle, check_target, read_bundle
from algan_stream.calibration import calibrate
from algan_stream.errors import AlganError, BundleError
from algan_trainer import checkpoint
from algan_trainer.algan import State, new_state, train
from algan_trainer.backbone.file import backbone_hash
from algan_trainer.board import Board, open_board
from algan_trainer.choosing import forget, take_best, validate
from algan_trainer.config import Config, differences, override
from algan_trainer.data import data_hash
from algan_trainer.devices import choose_device
from algan_trainer.distributed import Team, open_team
from algan_trainer.modality import default_config, open_modality, refuse_image_options
from algan_trainer.precision import dtype_of, resolve, use_threads
from algan_trainer.progress import Reporter
from algan_trainer.selection import Rule, new_trial, rule_for
from algan_trainer.session import Data, Journal, Request
from algan_trainer.stopping import stop_requests

LAST = "last.npz"
#: A kill loses at most this much, however long an epoch is.
SAVE_EVERY_S = 120.0
#: Good samples that a false-reject rate of 1 % needs.
FEW_FOR_CALIBRATION = 99
#: Keys that may change when a training is resumed: they only decide when to stop and what to keep.
_FREE_KEYS = {"epochs": 0, "keep_every": 0, "golden_images": 0}


class TrainingInterruptedError(AlganError):
    """Training was stopped on request; its checkpoint is complete."""

    exit_code = 130


def run(base: Config | None, changes: dict[str, Any], request: Request) -> Bundle:
    """Trains, or goes on training, and writes the bundle.

    With several devices each process comes through here; all return the same bundle, which rank 0 writes.

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
    device = choose_device(request.device)
    with open_team(device, request.devices, compiled=request.compiled) as team:
        if team.rank == 0:
            with checkpoint.exclusive(request.work_dir):
                return _run(base, changes, request, team)
        return _run(base, changes, replace(request, tensorboard=None, on_validation=None), team)


def _run(base: Config | None, changes: dict[str, Any], request: Request, team: Team) -> Bundle:
    saved = _saved(request)
    if base is None and saved is not None:
        base = msgspec.convert(saved[1]["config"], Config)
    config = override(base or default_config(request.data), changes)
    refuse_image_options(config.network.kind, changes)
    precision = resolve(
        config.precision, convolutions=config.network.kind == "image", device=team.device.type
    )
    config = override(config, {"precision": precision})
    team.check(config.batch_size)
    threads = use_threads(request.threads, team.size)
    if config.network.kind == "feature":
        sha256 = backbone_hash(request.backbone, config.feature.backbone_sha256)
        config = override(config, {"feature.backbone_sha256": sha256})
    with team.first():  # it may fill the feature cache
        data = _load(request, config, team)
    if request.false_reject_rate is not None:  # an impossible wish is refused now, not after training
        calibrate(range(len(data.dataset.calibration)), request.false_reject_rate)
    journal = Journal(data_hash(data.dataset, data.hashes))
    state = new_state(config, data.train)
    if saved is not None:
        journal = _resumed(state, saved, journal.data_hash, request)
    elif team.rank == 0:
        forget(request.work_dir)
    batches = len(state.order)
    reporter = Reporter(config.epochs * batches, state.epoch * batches + state.batch)
    _introduce(reporter, data, config, threads, state)
    with open_board(request.tensorboard, state, data.modality.spec, data.train) as board, reporter:
        _loop(state, journal, data, request, reporter, board, team)
    with team.first():
        if team.rank:
            return read_bundle(request.out)
        return _export(state, journal, data, request, reporter)


def _loop(
    state: State,
    journal: Journal,
    data: Data,
    request: Request,
    reporter: Reporter,
    board: Board | None,
    team: Team,
) -> None:
    """Consumes Algorithm 1 batch by batch."""
    config, batches = state.config, len(state.order)
    trial, rule = new_trial(data.validation, data.anomalous), rule_for(config.selection, data.anomalous)
    first_epoch, before_s, started = state.epoch, journal.seconds, time.monotonic()
    saved_at = started
    with stop_requests() as stop:
        for _ in train(state, data.train, team):
            now = time.monotonic()
            journal.seconds = before_s + now - started
            done = state.epoch * batches + state.batch
            loss_d, loss_g = (loss / (state.batch or batches) for loss in state.losses)
            reporter.batch(
                done, min(state.epoch + 1, config.epochs), loss_d, loss_g, _best_value(journal, rule)
            )
            validated = False
            if state.batch == 0:
                validated = state.epoch % config.validate_every == 0 or state.epoch == config.epochs
                measured = (
                    validate(state, journal, trial, request.work_dir) if validated and not team.rank else {}
                )
                row = {"epoch": state.epoch, "loss_d": loss_d, "loss_g": loss_g}
                rules = {"auroc": measured.get("labels"), "label_free": measured.get("label_free")}
                journal.curve.append({**row, **rules, "seconds": round(journal.seconds, 3)})
                if board is not None:
                    board.epoch(journal.curve[-1], state)
                if validated:
                    reporter.validation(done, state.epoch, config.epochs, _summary(journal, rule))
            limit = request.stop_after_epochs
            stopping = team.any(stop.is_set()) or (limit is not None and state.epoch - first_epoch >= limit)
            due = validated or stopping or now - saved_at > SAVE_EVERY_S
            if team.rank == 0 and (due or _kept_for_good(state)):
                _save(state, journal, request)
                saved_at = time.monotonic()
            if validated and request.on_validation is not None:
                request.on_validation(journal.curve[-1])
            if stopping and state.epoch < config.epochs:
                with team.first():
                    pass  # none ends before rank 0 has saved
                raise TrainingInterruptedError(
                    f"stopped in epoch {state.epoch + 1} of {config.epochs}; nothing is lost: add "
                    f" --resume to the same command to go on ({request.work_dir / LAST})"
                )


def _save(state: State, journal: Journal, request: Request) -> None:
    arrays, facts = checkpoint.capture(state)
    facts |= {"config": msgspec.to_builtins(state.config), "journal": vars(journal)}
    checkpoint.write_checkpoint(request.work_dir / LAST, arrays, facts)
    if _kept_for_good(state):
        checkpoint.write_checkpoint(request.work_dir / f"epoch-{state.epoch:05d}.npz", arrays, facts)


def _kept_for_good(state: State) -> bool:
    every = state.config.keep_every
    return bool(every) and state.batch == 0 and state.epoch % every == 0


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


def _load(request: Request, config: Config, team: Team) -> Data:
    cache = request.feature_cache or request.work_dir / "features"
    modality = open_modality(request.data, config, request.backbone, cache)
    validation = modality.dataset.validation
    inputs = torch.from_numpy(modality.training_inputs())
    memory_format = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
    if config.precision == "auto":
        raise ValueError("precision must be resolved first")
    return Data(
        modality=modality,
        hashes=modality.hashes(),
        train=inputs.to(team.device, dtype_of(config.precision), memory_format=memory_format),
        validation=torch.from_numpy(modality.network_inputs(validation)),
        anomalous=np.array([s.anomalous for s in validation]),
    )


def _export(state: State, journal: Journal, data: Data, request: Request, reporter: Reporter) -> Bundle:
    from algan_trainer.export import export_bundle

    take_best(state, journal, data, request.work_dir)
    bundle = export_bundle(state, journal, data, request, reporter.note)
    journal.finished = True
    arrays, facts = checkpoint.read_checkpoint(request.work_dir / LAST)
    checkpoint.write_checkpoint(request.work_dir / LAST, arrays, facts | {"journal": vars(journal)})
    return bundle


def _introduce(reporter: Reporter, data: Data, config: Config, threads: int, state: State) -> None:
    dataset = data.dataset
    counts = ", ".join(
        f"{split} {sum(not s.anomalous for s in of)} good + {sum(s.anomalous for s in of)} anomalous"
        for split in ("train", "calibration", "validation", "test")
        if (of := dataset.of(split))
    )
    reporter.note(f"data: {dataset.root}, layout {dataset.layout}: {counts}")
    for text in dataset.notes:
        reporter.note(f"note: {text}")
    for text in _about_calibration(data, config):
        reporter.note(f"note: {text}")
    model = data.modality.describe(config)
    where = f"{threads} threads" if data.train.device.type == "cpu" else str(data.train.device)
    reporter.note(f"model: {model}; {config.precision}, {where}")
    if state.epoch or state.batch:
        reporter.note(f"resumed: {state.epoch} epochs and {state.batch} batches done")


def _about_calibration(data: Data, config: Config) -> list[str]:
    """What the threshold will suffer from."""
    good = {s.path for s in data.dataset.calibration}
    notes = []
    if len(good) < FEW_FOR_CALIBRATION:
        notes.append(
            f"only {len(good)} good samples to calibrate with: no false-reject rate below "
            f"{1 / (len(good) + 1):.2g} can be set; {FEW_FOR_CALIBRATION} support 1 %"
        )
    chosen_by = {s.path for s in data.dataset.validation}
    if rule_for(config.selection, data.anomalous) != "last" and good & chosen_by:
        notes.append(
            "the good samples that set the threshold also help to choose the checkpoint, so that the stated "
            "false-reject rate is a little optimistic; `algan-stream calibrate` with others mends it"
        )
    return notes


def _best_value(journal: Journal, rule: Rule) -> float | None:
    return journal.best[rule]["value"] if rule in journal.best else None


def _summary(journal: Journal, rule: Rule) -> str:
    row = journal.curve[-1]
    text = f"D {row['loss_d']:.3f}  G {row['loss_g']:.3f}"
    for name, key in (("AUROC", "auroc"), ("label-free", "label_free")):
        if row[key] is not None:
            text += f"  {name} {row[key]:.3f}"
    if rule in journal.best:
        text += f" (best {journal.best[rule]['value']:.3f} at {journal.best[rule]['epoch']:.0f})"
    return text
