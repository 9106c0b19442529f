"""Three kinds of chart as inline SVG: lines, a two-sided histogram, and the ROC curve.

Their colours come from the page's style sheet by class, so that they follow light and dark. Nothing is
told by colour alone: the second line is dashed, anomalous images hang below the axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from algan_trainer.report.markup import el

WIDTH, HEIGHT = 860.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 46.0, 44.0
#: More points than this cannot be told apart at the chart's width.
_MOST_POINTS = 400


@dataclass(frozen=True)
class Line:
    """One line: its points, (n,) each, None where nothing was measured; `dots` marks each point."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line with a label: a checkpoint, the threshold."""

    x: float
    label: str


@dataclass(frozen=True)
class _Axes:
    """Maps data to the drawing's coordinates."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = WIDTH
    height: float = HEIGHT
    whole_x: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        return (
            _LEFT + (x - x0) / (x1 - x0) * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - (y - y0) / (y1 - y0) * (self.height - _TOP - _BOTTOM),
        )


def line_chart(
    lines: Sequence[Line], *, title: str, x_label: str, y_label: str, marks: Sequence[Mark] = ()
) -> Element:
    """Lines over a common x; the first is solid, the second dashed, the third dotted."""
    ys = [y for line in lines for y in line.ys if y is not None]
    xs = [x for line in lines for x in line.xs]
    whole = all(float(x).is_integer() for x in xs)
    axes = _Axes(_padded(min(xs), max(xs), 0.0), _padded(min(ys), max(ys), 0.06), whole_x=whole)
    parts = [*_grid(axes, x_label, y_label), *_marks(axes, marks), _legend([line.label for line in lines])]
    for number, line in enumerate(lines, start=1):
        known = [axes.at(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y is not None]
        parts.append(el("path", d=_path(thinned(known, _MOST_POINTS)), class_=f"line s{number}"))
        if line.dots and len(known) <= 80:
            parts += [el("circle", cx=x, cy=y, r=2.5, class_=f"dot s{number}") for x, y in known]
    return _svg(title, axes, parts)


def histogram_chart(
    edges: Sequence[float],
    good: Sequence[int],
    anomalous: Sequence[int],
    *,
    title: str,
    x_label: str,
    mark: Mark | None = None,
) -> Element:
    """Good images above the axis, anomalous ones below it, each as a share of its own kind.

    Args:
        edges: (n + 1,) ascending edges of the bins.
        good: (n,) counts.
        anomalous: (n,) counts.
        title: Read out in place of the picture.
        x_label: Below the axis.
        mark: The threshold.
    """
    above = [100.0 * count / max(sum(good), 1) for count in good]
    below = [100.0 * count / max(sum(anomalous), 1) for count in anomalous]
    top, bottom = 1.1 * max(above, default=0.0), -1.1 * max(below, default=0.0)
    low, high = edges[0], edges[-1]
    if mark is not None:  # a threshold that the user chose may lie beyond all scores
        low, high = min(low, mark.x), max(high, mark.x)
    axes = _Axes(_padded(low, high, 0.02), (bottom, top if top > bottom else 1.0))
    parts = _grid(axes, x_label, "share of its kind, %", absolute=True)
    labels = ["good, upwards"] + (["anomalous, downwards"] if any(anomalous) else [])
    parts.append(_legend(labels, shape="bar"))
    for values, sign, css in ((above, 1.0, "bar s1"), (below, -1.0, "bar s2")):
        for (left, right), value in zip(pairwise(edges), values, strict=True):
            if value:
                (x0, y0), (x1, y1) = axes.at(left, 0.0), axes.at(right, sign * value)
                size = {"width": max(x1 - x0 - 1.0, 1.0), "height": abs(y1 - y0)}
                parts.append(el("rect", x=x0 + 0.5, y=min(y0, y1), class_=css, **size))
    (x0, y), (x1, _) = axes.at(axes.x[0], 0.0), axes.at(axes.x[1], 0.0)
    parts.append(el("path", d=f"M{x0:.1f} {y:.1f}H{x1:.1f}", class_="axis"))
    return _svg(title, axes, parts + _marks(axes, [mark] if mark else []))


def roc_chart(
    false_rejects: Sequence[float], detections: Sequence[float], *, title: str, at: tuple[float, float] | None
) -> Element:
    """Share of anomalous images found over share of good ones rejected; `at` marks the threshold's place."""
    axes = _Axes((0.0, 1.0), (0.0, 1.0), width=420.0, height=380.0)
    points = [axes.at(x, y) for x, y in zip(false_rejects, detections, strict=True)]
    parts = _grid(axes, "share of the good rejected", "share of the anomalous found")
    parts.append(el("path", d=_path([axes.at(0, 0), axes.at(1, 1)]), class_="chance"))
    parts.append(el("path", d=_path(thinned(points, _MOST_POINTS)), class_="line s1"))
    if at is not None:
        x, y = axes.at(*at)
        parts.append(el("circle", cx=x, cy=y, r=5.0, class_="here"))
        # Beside the point, on the side where there is room.
        right = at[0] < 0.6
        text_y = y + 18.0 if at[1] > 0.5 else y - 10.0
        anchor = "start" if right else "end"
        parts.append(el("text", "at the threshold", x=x + (9 if right else -9), y=text_y, text_anchor=anchor))
    return _svg(title, axes, parts)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them: steps of 1, 2 or 5 × a power of ten."""
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1.0, 2.0, 5.0, 10.0) if power * f >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """A range that is never empty."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        pad = max(abs(low), 1.0) * 0.5
        return low - pad, high + pad
    pad = share * (high - low)
    return low - pad, high + pad


def _grid(axes: _Axes, x_label: str, y_label: str, *, absolute: bool = False) -> list[Element]:
    """Horizontal lines, numbers and the names of both axes; `absolute` drops the signs on the left."""
    parts: list[Element] = []
    left, right, bottom = _LEFT, axes.width - _RIGHT, axes.height - _BOTTOM
    for tick in ticks(*axes.y, most=6):
        y = axes.at(axes.x[0], tick)[1]
        text = _number(abs(tick) if absolute else tick)
        parts.append(el("path", d=f"M{left:.1f} {y:.1f}H{right:.1f}", class_="grid"))
        parts.append(el("text", text, x=left - 7, y=y + 4, text_anchor="end"))
    for tick in ticks(*axes.x, most=6 if axes.width < WIDTH else 10):
        if axes.whole_x and not tick.is_integer():
            continue  # there is no half an epoch
        x = axes.at(tick, axes.y[0])[0]
        parts.append(el("path", d=f"M{x:.1f} {bottom:.1f}v4", class_="axis"))
        parts.append(el("text", _number(tick), x=x, y=bottom + 17, text_anchor="middle"))
    parts.append(el("path", d=f"M{left:.1f} {bottom:.1f}H{right:.1f}", class_="axis"))
    middle = (left + right) / 2
    parts.append(el("text", x_label, x=middle, y=axes.height - 6, text_anchor="middle", class_="name"))
    middle = (_TOP + bottom) / 2
    turned = f"translate(14 {middle:.1f}) rotate(-90)"
    parts.append(el("text", y_label, transform=turned, text_anchor="middle", class_="name"))
    return parts


def _marks(axes: _Axes, marks: Sequence[Mark]) -> list[Element]:
    parts: list[Element] = []
    for mark in marks:
        x = axes.at(mark.x, axes.y[0])[0]
        parts.append(el("path", d=f"M{x:.1f} {_TOP:.1f}V{axes.height - _BOTTOM:.1f}", class_="mark"))
        right = x < axes.width * 0.75
        place = {"x": x + (5 if right else -5), "y": _TOP - 6, "text_anchor": "start" if right else "end"}
        parts.append(el("text", mark.label, class_="marked", **place))
    return parts


def _legend(labels: Sequence[str], *, shape: str = "line") -> Element:
    parts: list[Element] = []
    x = _LEFT
    for number, label in enumerate(labels, start=1):
        if shape == "line":
            parts.append(el("path", d=f"M{x:.1f} 13h26", class_=f"line s{number}"))
        else:
            parts.append(el("rect", x=x + 6, y=6.0, width=14.0, height=13.0, class_=f"bar s{number}"))
        parts.append(el("text", label, x=x + 32, y=17.0))
        x += 32 + 7.2 * len(label) + 22  # about a letter's width at this size
    return el("g", *parts)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _svg(title: str, axes: _Axes, parts: Sequence[Element]) -> Element:
    box = f"0 0 {axes.width:.0f} {axes.height:.0f}"
    style = f"max-width:{axes.width:.0f}px"
    return el("svg", *parts, viewBox=box, role="img", aria_label=title, style=style, class_="chart")
