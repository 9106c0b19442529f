"""The best checkpoints of a training run, one for each rule of `selection`: kept, compared, taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from algan_trainer import checkpoint
from algan_trainer.algan import State
from algan_trainer.evaluate import auroc_of
from algan_trainer.networks import anomaly_scores
from algan_trainer.selection import Rule, Trial, new_trial, rule_for
from algan_trainer.session import Data, Journal

BEST = "best-{rule}.npz"


def forget(work_dir: Path) -> None:
    """Removes what an earlier training kept there: it must never be taken for this one's."""
    for pattern in (BEST.format(rule="*"), "epoch-*.npz"):
        for path in work_dir.glob(pattern):
            path.unlink()


def validate(state: State, journal: Journal, trial: Trial, work_dir: Path) -> Mapping[Rule, float | None]:
    """Measures D by every rule, and keeps it where it is the best so far by one of them."""
    measured = trial.measure(state.scorer)
    for rule, value in measured.items():
        best = journal.best.get(rule)
        if value is not None and (best is None or value > best["value"]):
            journal.best[rule] = {"epoch": state.epoch, "value": value}
            arrays = checkpoint.discriminator_arrays(state.scorer)
            path = work_dir / BEST.format(rule=rule)
            checkpoint.write_checkpoint(path, arrays, {"epoch": state.epoch, "value": value})
    return measured


def take_best(state: State, journal: Journal, data: Data, work_dir: Path) -> None:
    """Puts the checkpoint to export into `state.scorer`, on the CPU, where runtimes are compared with it.

    Raises:
        CheckpointError: A kept checkpoint is not the one that the journal speaks of.
    """
    rule = rule_for(state.config.selection, data.anomalous)
    if rule != "last" and rule not in journal.best:  # ended before its first validation
        validate(state, journal, new_trial(data.validation, data.anomalous), work_dir)
    _try_rules(state, journal, data, work_dir)
    state.scorer.cpu()
    if rule != "last":
        _restore(state, journal, rule, work_dir)


def _try_rules(state: State, journal: Journal, data: Data, work_dir: Path) -> None:
    """Notes the test AUROC of each rule's checkpoint, to compare the rules; it decides nothing."""
    test = data.dataset.of("test")
    labels = [s.anomalous for s in test]
    if not any(labels) or all(labels):
        return
    inputs = torch.from_numpy(data.modality.network_inputs(test))
    last = checkpoint.discriminator_arrays(state.scorer)
    for rule, best in journal.best.items():
        _restore(state, journal, rule, work_dir)
        best["test_auroc"] = auroc_of(anomaly_scores(state.scorer, inputs), labels)
    checkpoint.restore_discriminator(state.scorer, last)


def _restore(state: State, journal: Journal, rule: str, work_dir: Path) -> None:
    path = work_dir / BEST.format(rule=rule)
    arrays, facts = checkpoint.read_checkpoint(path)
    best = journal.best[rule]
    if (facts.get("epoch"), facts.get("value")) != (best["epoch"], best["value"]):
        raise checkpoint.CheckpointError(
            f"{path}: expected the checkpoint of epoch {best['epoch']}, "
            f"got that of epoch {facts.get('epoch')}; train again in another --work-dir"
        )
    checkpoint.restore_discriminator(state.scorer, arrays)
