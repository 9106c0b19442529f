"""Numbers and names as people read them."""

from __future__ import annotations

from algan_trainer.report.content import Rate, Report

#: Names of the parts of the data, and of the checkpoint rules.
PARTS = {
    "train": "training",
    "calibration": "calibration",
    "validation": "validation",
    "test": "test",
    "judged": "judged",
}
RULES = {
    "labels": "best AUROC on the labelled validation split (the paper's rule)",
    "label_free": "best at telling held-out good ones from pseudo-anomalies of them (needs no defects)",
    "last": "the last checkpoint",
}
NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}".replace("-", "−")


def score(value: float | None) -> str:
    """Scores and thresholds: four significant digits."""
    return NONE if value is None else f"{value:.4g}".replace("-", "−")


def percent(share: float | None) -> str:
    """Two significant digits where it is small, else a tenth of a percent."""
    if share is None:
        return NONE
    value = 100.0 * share
    return f"{value:.2g}\u00a0%" if 0 < value < 1 else f"{value:.1f}\u00a0%"


def interval(ci95: tuple[float, float] | None) -> str:
    """From … to … ."""
    return NONE if ci95 is None else f"{percent(ci95[0])} to {percent(ci95[1])}"


def rate(of: Rate | None) -> str:
    """`3.1 % (4 of 129)`."""
    return NONE if of is None else f"{percent(of.share)} ({of.count} of {of.of})"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"


def things(report: Report) -> str:
    """What was scored, in the plural."""
    return "vectors" if report.model.kind == "algan-vector" else "images"
