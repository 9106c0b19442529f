"""What a training run is asked to do, what it has in memory, and what has happened so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from algan_trainer.data import Dataset


@dataclass(frozen=True)
class Request:
    """What to train, apart from how.

    Attributes:
        data: Folder of images.
        out: Where the bundle shall stand.
        work_dir: Where checkpoints live.
        resume: Go on from the checkpoint there.
        name: Name of the model, by default that of `out`.
        false_reject_rate: Wanted share of good parts rejected; None: as low as the images support.
        threads: Computing threads; None: all that this process may use.
        overwrite: Replace a bundle that stands at `out`.
        stop_after_epochs: Stop, as if interrupted, after so many epochs of this session.
    """

    data: Path
    out: Path
    work_dir: Path
    resume: bool = False
    name: str | None = None
    false_reject_rate: float | None = None
    threads: int | None = None
    overwrite: bool = False
    stop_after_epochs: int | None = None


@dataclass
class Journal:
    """What has happened so far; part of every checkpoint.

    Attributes:
        data_hash: Of the images trained on.
        curve: One row for each epoch: epoch, loss_d, loss_g, auroc (or None), seconds since the start.
        best_epoch: Epoch with the best validation AUROC, or None without one.
        best_auroc: That AUROC.
        seconds: Training time in all sessions.
    """

    data_hash: str
    curve: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_auroc: float | None = None
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class Data:
    """A dataset with what training and validation need of it in memory."""

    dataset: Dataset
    hashes: dict[str, str]
    train: Tensor
    validation: Tensor
    anomalous: npt.NDArray[np.bool_]
