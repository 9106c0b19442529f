"""A search over configuration keys by Optuna: trials in a database in the search's folder, resumable.

OUT/search.db               what Optuna knows
OUT/search.json             what was asked
OUT/trials/HASH/            each configuration tried: bundle, log, checkpoints while it runs
OUT/trials.csv, best.toml   what came out
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from algan_stream.errors import AlganError, ConfigError, InputError, PluginError
from algan_trainer.config import Config, differences
from algan_trainer.run import TrainingInterruptedError
from algan_trainer.study.execute import Task, train
from algan_trainer.study.plan import StudyError, apply, fingerprint, plain
from algan_trainer.study.records import LOG, WORK, data_sha256, locked, read_json, write_json
from algan_trainer.study.space import Range, distributions
from algan_trainer.study.table import to_csv

if TYPE_CHECKING:
    import optuna

Objective = Literal["labels", "label_free"]
#: The curve's column that each objective is read from.
_COLUMN: dict[Objective, str] = {"labels": "auroc", "label_free": "label_free"}
_DATABASE, _ASKED = "search.db", "search.json"
#: Trials that are never pruned, and validations within a trial before it may be.
_STARTUP_TRIALS, _WARMUP_VALIDATIONS = 5, 2
#: An attribute of a trial: the folder it trains in.
_FOLDER = "folder"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a search's folder was begun with."""

    data_sha256: str
    base: dict[str, Any]
    space: dict[str, Range]
    objective: Objective


@dataclass(frozen=True)
class Search:
    """What is to be searched.

    Attributes:
        data: Folder of images, or a file of vectors.
        base: What all trials share.
        space: Dotted keys and their ranges.
        trials: How many in all.
        objective: `auto`: `labels` where validation has good and anomalous samples, else `label_free`.
        threads: Computing threads; None: all.
        prune: Stop trials early that fall behind the median of those before.
    """

    data: Path
    base: Config
    space: Mapping[str, Range]
    trials: int
    objective: str = "auto"
    threads: int | None = None
    prune: bool = True


def search(wanted: Search, out: Path, say: Callable[[str], None]) -> str:
    """Runs trials until there are as many as wanted; returns the best configuration's changes as TOML.

    Raises:
        StudyInterruptedError: Stopped by a signal; the same command goes on where it stopped.
        StudyError: The folder is in use or holds another search, or no trial succeeded.
        PluginError: Optuna is not installed.
    """
    from algan_trainer.study.conduct import StudyInterruptedError

    out = out.resolve()
    with locked(out, "another search"):
        asked = _settled(wanted, out)
        study = _open(out, wanted)
        try:
            while (done := _ended(study)) < wanted.trials:
                say(f"[{done + 1}/{wanted.trials}] {_trial(study, wanted, asked, out)}")
                _write(study, out)
        except (TrainingInterruptedError, KeyboardInterrupt):
            raise StudyInterruptedError(
                f"interrupted; {_ended(study)} of {wanted.trials} trials are done and kept; "
                "the same command goes on"
            ) from None
        return _write(study, out)


def _trial(study: optuna.Study, wanted: Search, asked: Asked, out: Path) -> str:
    """One trial: asks Optuna what to try, trains it, tells the outcome; returns a line about it."""
    import optuna

    trial = _next(study, wanted.space)
    config = apply(wanted.base, trial.params)
    mark = fingerprint(config, asked.data_sha256)
    folder = out / "trials" / mark[:16]
    trial.set_user_attr(_FOLDER, folder.name)
    task = Task(
        key=folder.name,
        data=str(wanted.data.resolve()),
        config=plain(config),
        fingerprint=mark,
        threads=wanted.threads,
    )
    shown = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
    known = read_json(folder / "value.json", float)
    try:
        if known is None:
            known = _trained(trial, task, folder, asked.objective, prune=wanted.prune)
    except optuna.TrialPruned:
        shutil.rmtree(folder / WORK, ignore_errors=True)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return f"{shown}: pruned after {len(study.trials[trial.number].intermediate_values)} validations"
    except AlganError as error:
        if isinstance(error, TrainingInterruptedError):
            raise  # the trial stays open: the next run puts it first
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return f"{shown}: FAILED: {error}"
    study.tell(trial, known)
    return f"{shown}: {asked.objective} {known:.4f} (best {study.best_value:.4f})"


def _trained(trial: optuna.Trial, task: Task, folder: Path, objective: Objective, *, prune: bool) -> float:
    """Trains, and returns the objective of the checkpoint that it chose."""
    import optuna

    folder.mkdir(parents=True, exist_ok=True)
    best = [max(trial.study.trials[trial.number].intermediate_values.values(), default=-1.0)]

    def on_validation(row: Mapping[str, Any]) -> None:
        value = row[_COLUMN[objective]]
        if value is None:
            raise InputError(f"{task.data}: validation gives no {objective} value to search by")
        best[0] = max(best[0], float(value))
        trial.report(best[0], int(row["epoch"]))
        if prune and trial.should_prune():
            raise optuna.TrialPruned

    with (folder / LOG).open("a", encoding="utf-8", buffering=1) as log, redirect_stderr(log):
        bundle = train(task, folder, on_validation)
    value = float(bundle.manifest.provenance["checkpoint"]["best"][objective]["value"])
    write_json(folder / "value.json", value)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return value


def _settled(wanted: Search, out: Path) -> Asked:
    """Types what is asked, and holds it against what the folder was begun with."""
    if not wanted.data.exists():
        raise InputError(f"{wanted.data}: expected a folder of images, but there is no such folder")
    asked = Asked(
        data_sha256=data_sha256(wanted.data.resolve(), out),
        base=plain(wanted.base),
        space=dict(wanted.space),
        objective=_objective(wanted),
    )
    known = read_json(out / _ASKED, Asked)
    if known is not None:
        known = msgspec.structs.replace(known, base=plain(known.base))
    if known is not None and known != asked:
        changed = differences(msgspec.to_builtins(known), msgspec.to_builtins(asked))
        raise StudyError(f"{out}: holds another search: {'; '.join(changed)}; name another --out")
    write_json(out / _ASKED, asked)
    return asked


def _objective(wanted: Search) -> Objective:
    from algan_trainer.modality import open_modality

    if wanted.objective not in ("auto", *_COLUMN):
        raise ConfigError(f"--objective: expected auto, labels or label_free, got {wanted.objective}")
    validation = open_modality(wanted.data, wanted.base).dataset.validation
    labelled = {sample.anomalous for sample in validation} == {False, True}
    if wanted.objective == "labels" and not labelled:
        raise InputError(
            f"{wanted.data}: --objective labels needs good and anomalous validation samples; use label_free"
        )
    return "labels" if labelled and wanted.objective != "label_free" else "label_free"


def _open(out: Path, wanted: Search) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise PluginError(
            f"study search needs the Python package {error.name}: pip install 'algan-stream[optuna]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{out / _DATABASE}"
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=_STARTUP_TRIALS,
            n_warmup_steps=_WARMUP_VALIDATIONS * wanted.base.validate_every,
        ),
    )
    # Seeded anew from where it stands: going on never repeats the first suggestions.
    study.sampler = optuna.samplers.TPESampler(seed=wanted.base.seed * 100_003 + len(study.trials))
    return study


def _next(study: optuna.Study, space: Mapping[str, Range]) -> optuna.Trial:
    """The trial that a stop or a crash left open, with its checkpoint where it was; else a new one."""
    import optuna

    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if left.params.keys() == space.keys():
            return optuna.Trial(study, left._trial_id)
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)  # stopped before it had all its values
    return study.ask(distributions(space))


def _ended(study: optuna.Study) -> int:
    """Trials that have an outcome; one that was only interrupted has none."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _write(study: optuna.Study, out: Path) -> str:
    """Writes trials.csv, and best.toml if a trial succeeded; returns the latter."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    lines = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "folder": trial.user_attrs.get(_FOLDER),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            **{key: trial.params.get(key) for key in sorted({k for t in trials for k in t.params})},
        }
        for trial in trials
    ]
    (out / "trials.csv").write_text(to_csv(lines), "utf-8")
    if not any(trial.state is optuna.trial.TrialState.COMPLETE for trial in trials):
        raise StudyError(f"none of {len(trials)} trials succeeded; see the logs under {out / 'trials'}")
    best = study.best_trial
    where = f"folder {best.user_attrs[_FOLDER]}"
    text = f"# Trial {best.number} of {len(trials)}: {best.value:.4f} in validation, {where}.\n"
    for key, value in best.params.items():  # what JSON has for text, numbers and truth, TOML has as well
        text += f"{key} = {json.dumps(value)}\n"
    (out / "best.toml").write_text(text, "utf-8")
    return text


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
