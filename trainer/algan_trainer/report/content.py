"""What a report holds: `report.json`, typed. The page shows this and nothing else."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: Raised when a reader of older reports would misread the file.
FORMAT_VERSION = 1


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Images of one part of the data."""

    good: int
    anomalous: int


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`count` of `of` images, and the 95 % interval (Wilson's) of the rate behind them."""

    count: int
    of: int
    share: float
    ci95: tuple[float, float]


class TypeResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One type of defect: AUROC against all good images, and how many are rejected."""

    kind: str
    auroc: float | None
    detected: Rate


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the model does on one part of the data.

    Attributes:
        part: `test`, `validation`, `calibration`, or `judged` where a folder was evaluated.
        counts: Its images.
        auroc: Area under the ROC curve; None without both kinds.
        false_rejects: Good images above the threshold; None without good images, or without a threshold.
        detected: Anomalous images above it; likewise.
        types: Likewise by type of defect; empty without any.
    """

    part: str
    counts: Counts
    auroc: float | None
    false_rejects: Rate | None
    detected: Rate | None
    types: tuple[TypeResult, ...]


class Histogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Scores by bin: (n + 1,) ascending `edges`, (n,) counts. A bin holds its upper edge, not its lower."""

    part: str
    edges: tuple[float, ...]
    good: tuple[int, ...]
    anomalous: tuple[int, ...]


class OperatingPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a threshold would have done on these very images."""

    threshold: float
    false_rejects: float
    detected: float


class Roc(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ROC curve's corners, from (0, 0) to (1, 1), and thresholds worth a thought."""

    part: str
    false_rejects: tuple[float, ...]
    detected: tuple[float, ...]
    points: tuple[OperatingPoint, ...]


class Picture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A picture beside the page: its path relative to it, and its size."""

    file: str
    width_px: int
    height_px: int


class Hard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An image that the model finds hard, with its picture where there is one.

    `why` is the same picture with what its score comes from, where the bundle can tell.
    """

    path: str
    part: str
    kind: str
    score: float
    p_value: float | None
    rejected: bool | None
    picture: Picture | None = None
    why: Picture | None = None


class Fakes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sheets of what G makes, beside real good images; `epoch` says how long G had been trained."""

    epoch: int
    sigma: float
    real: Picture
    normal: Picture | None
    anomalous: Picture | None


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See `algan_stream.calibration.Calibration`; `good_images` stand behind it."""

    value: float
    method: Literal["conformal", "raw"]
    false_reject_rate: float | None
    false_reject_rate_ci95: tuple[float, float] | None
    good_images: int


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model; `input` says in words what it takes, `sha256` is that of its ONNX graph."""

    name: str
    kind: str
    input: str
    sha256: str


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The images: `parts` by split, `notes` that came up while reading them, `facts` of the provenance."""

    name: str
    layout: str
    sha256: str | None
    parts: dict[str, Counts]
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = {}


class Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, array_like=True):
    """One row of the training curve, in JSON a list; None where nothing was measured."""

    epoch: int
    loss_d: float
    loss_g: float
    auroc: float | None
    label_free: float | None


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the model came about.

    Attributes:
        epochs: Passes over the images that were made.
        seconds: Time they took.
        seed: Of everything random.
        rule: Which rule chose the checkpoint: `labels`, `label_free` or `last`.
        chosen_epoch: The checkpoint that became the model.
        best: By each rule that could be followed, its best epoch and value.
        curve: One row for each epoch.
        config: All of the training configuration.
        parity: Largest |logit difference| between PyTorch and each runtime.
    """

    epochs: int
    seconds: float
    seed: int
    rule: str
    chosen_epoch: int
    best: dict[str, dict[str, float]]
    curve: tuple[Epoch, ...]
    config: dict[str, Any]
    parity: dict[str, float]


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it.

    Attributes:
        subject: `training`: the report of a bundle; `evaluation`: of `algan-stream evaluate --report`.
        made_at: UTC, to the minute.
        results: By part of the data, the one that counts most first.
        training: None in an evaluation.
        histogram: Of the first result; None without any score.
        roc: Of the first result; None without both kinds.
        hard_good: Good images with the highest scores, the highest first.
        hard_anomalous: Anomalous images with the lowest, the lowest first.
        fakes: None where G paints nothing that can be shown, or no pictures are wanted.
        fakes_missing: Why, in a sentence.
        versions: Of the libraries that made the model.
    """

    format_version: int = FORMAT_VERSION
    subject: Literal["training", "evaluation"]
    made_at: str
    model: Model
    data: Data
    threshold: Threshold | None
    results: tuple[Result, ...]
    training: Training | None = None
    histogram: Histogram | None = None
    roc: Roc | None = None
    hard_good: tuple[Hard, ...] = ()
    hard_anomalous: tuple[Hard, ...] = ()
    fakes: Fakes | None = None
    fakes_missing: str = ""
    versions: dict[str, str] = {}
