"""What a training run is asked to do, what it has in memory, and what has happened so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from algan_trainer.data import Dataset
from algan_trainer.devices import DeviceKind
from algan_trainer.modality import Modality


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
        device: What to train on; auto: a CUDA GPU where there is one.
        devices: Processes that share the work, each on its own GPU, or on the CPU.
        compiled: Compile the networks (`torch.compile`); on a GPU into CUDA graphs.
        overwrite: Replace a bundle that stands at `out`.
        stop_after_epochs: Stop, as if interrupted, after so many epochs of this session.
        backbone: ONNX file that makes the features of ALGAN-feature.
        feature_cache: Folder for these features; None: in `work_dir`.
        report_pictures: Most pictures in each group of the report; 0: none.
        tensorboard: Folder for TensorBoard's event files; None: no log.
        on_validation: Called with the curve's row after each validation, when it is saved; what it raises
            ends the training.
    """

    data: Path
    out: Path
    work_dir: Path
    resume: bool = False
    name: str | None = None
    false_reject_rate: float | None = None
    threads: int | None = None
    device: DeviceKind = "auto"
    devices: int = 1
    compiled: bool = False
    overwrite: bool = False
    stop_after_epochs: int | None = None
    backbone: Path | None = None
    feature_cache: Path | None = None
    report_pictures: int = 12
    tensorboard: Path | None = None
    on_validation: Callable[[Mapping[str, Any]], None] | None = None


@dataclass
class Journal:
    """What has happened so far; part of every checkpoint.

    Attributes:
        data_hash: Of the images trained on.
        curve: One row for each epoch: epoch, loss_d, loss_g, auroc and label_free (None between
            validations and where they cannot be had), seconds since the start.
        best: By each rule of `selection`, the best checkpoint so far: its epoch and its value; and at
            the end its AUROC on the test part, where there is one with both kinds.
        seconds: Training time in all sessions.
    """

    data_hash: str
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class Data:
    """A dataset with what training and validation need of it in memory: the networks' inputs."""

    modality: Modality
    hashes: dict[str, str]
    train: Tensor
    validation: Tensor
    anomalous: npt.NDArray[np.bool_]

    @property
    def dataset(self) -> Dataset:
        """The samples and their split."""
        return self.modality.dataset
