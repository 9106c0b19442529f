"""Figure 7: validation AUROC over epochs, mean and standard deviation over seeds, as CSV and SVG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from algan_trainer.study.records import Result
from algan_trainer.study.table import to_csv

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 360, 60, 20, 20, 50


@dataclass(frozen=True)
class Point:
    """One epoch: mean and sample standard deviation over n seeds (None with one)."""

    epoch: int
    mean: float
    std: float | None
    n: int


def points(results: Iterable[Result]) -> list[Point]:
    """Gathers the curves of all finished trainings, by epoch."""
    by_epoch: dict[int, list[float]] = {}
    for result in results:
        if result.status == "done":
            for epoch, value in result.curve:
                by_epoch.setdefault(epoch, []).append(value)
    return [
        Point(epoch, float(np.mean(of)), float(np.std(of, ddof=1)) if len(of) > 1 else None, len(of))
        for epoch, of in sorted(by_epoch.items())
    ]


def curve_csv(of: list[Point]) -> str:
    """epoch, mean, std, n."""
    return to_csv([{"epoch": p.epoch, "mean": p.mean, "std": p.std, "n": p.n} for p in of])


def curve_svg(of: list[Point], title: str) -> str:
    """A line for the mean, a band of one standard deviation to either side."""
    if not of:
        raise ValueError("a curve needs at least one point")
    least = min(p.mean - (p.std or 0.0) for p in of)
    low = max(0.0, np.floor(min(least, 0.5) * 10) / 10)
    last = max(p.epoch for p in of)

    def at(epoch: float, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * epoch / last
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (min(value, 1.0) - low) / (1.0 - low)
        return f"{x:.1f},{y:.1f}"

    upper = [at(p.epoch, p.mean + (p.std or 0.0)) for p in of]
    lower = [at(p.epoch, max(low, p.mean - (p.std or 0.0))) for p in of]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f"<title>{title}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for value in np.linspace(low, 1.0, 6):
        x, y = at(0, float(value)).split(",")
        parts.append(f'<path d="M{x},{y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for epoch in np.linspace(0, last, 5):
        x, y = at(float(epoch), low).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18:.1f}" text-anchor="middle">{epoch:.0f}</text>')
    parts += [
        f'<polygon points="{" ".join(upper + lower[::-1])}" fill="#1f77b4" fill-opacity="0.2"/>',
        f'<polyline points="{" ".join(at(p.epoch, p.mean) for p in of)}" fill="none" stroke="#1f77b4" '
        'stroke-width="2"/>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">epoch</text>',
        f'<text x="16" y="{(_TOP + _HEIGHT - _BOTTOM) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {(_TOP + _HEIGHT - _BOTTOM) / 2})">validation AUROC</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
