"""The page's sections on scores: histogram, ROC curve, hardest images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from algan_trainer.report import wording
from algan_trainer.report.blocks import folded, missing, section, table
from algan_trainer.report.charts import Mark, histogram_chart, roc_chart
from algan_trainer.report.content import Hard, OperatingPoint, Picture, Report
from algan_trainer.report.markup import el


def about_scores(report: Report) -> Element:
    """The histogram of scores (paper, Fig. 5)."""
    title = "Scores"
    found = report.histogram
    if found is None:
        return section(title, missing("Nothing was scored."))
    threshold = report.threshold
    mark = Mark(threshold.value, f"threshold {wording.score(threshold.value)}") if threshold else None
    good, bad = sum(found.good), sum(found.anomalous)
    spoken = f"Histogram of anomaly scores, {good} good and {bad} anomalous; the table has its numbers."
    chart = histogram_chart(
        found.edges,
        found.good,
        found.anomalous,
        title=spoken,
        x_label="anomaly score (higher is more anomalous)",
        mark=mark,
    )
    caption = (
        f"{wording.PARTS[found.part].capitalize()}: {good} good, {bad} anomalous. "
        "Everything right of the line is rejected."
    )
    bins = zip(pairwise(found.edges), found.good, found.anomalous, strict=True)
    rows = [
        (f"{wording.score(low)} to {wording.score(high)}", str(n), str(k))
        for (low, high), n, k in bins
        if n or k
    ]
    return section(
        title,
        el("figure", chart, el("figcaption", caption), class_="broad"),
        folded("Numbers", table("Number by score", ("score", "good", "anomalous"), rows)),
    )


def about_roc(report: Report) -> Element:
    """The ROC curve, and what other thresholds would have done."""
    title = "Other thresholds (ROC)"
    first = report.results[0] if report.results else None
    if report.roc is None or first is None:
        return section(title, missing("A ROC curve needs scores of both good and anomalous parts."))
    false, found = first.false_rejects, first.detected
    at = (false.share, found.share) if false and found else None
    spoken = f"ROC curve, area {wording.number(first.auroc)}; the table has points on it."
    chart = roc_chart(report.roc.false_rejects, report.roc.detected, title=spoken, at=at)
    points, here = list(report.roc.points), -1
    if at is not None and report.threshold is not None:
        now = OperatingPoint(threshold=report.threshold.value, false_rejects=at[0], detected=at[1])
        points = sorted([*points, now], key=lambda of: -of.threshold)
        here = points.index(now)
    rows = [
        (wording.percent(of.false_rejects), wording.percent(of.detected), wording.score(of.threshold))
        for of in points
    ]
    caption = (
        f"{wording.PARTS[report.roc.part].capitalize()}; area under the curve {wording.number(first.auroc)}."
    )
    text = (
        "In bold the threshold as it is; the others are what would have been on these very data. To move it: "
        "algan-stream calibrate --false-reject-rate."
    )
    head = ("good rejected", "anomalous rejected", "threshold")
    beside = el("div", table("Points on the curve", head, rows, chosen=here), el("p", text, class_="quiet"))
    figure = el("figure", chart, el("figcaption", caption))
    return section(title, el("div", figure, beside, class_="pair"))


def about_hardest(report: Report) -> Element:
    """The images that the model finds hardest, on both sides."""
    good, bad, things = report.hard_good, report.hard_anomalous, wording.things(report)
    return section(
        f"The hardest {things}",
        el("h3", f"Good {things} with the highest scores"),
        _gallery(good) if good else missing(f"There were no good {things}."),
        el("h3", f"Anomalous {things} with the lowest scores"),
        _gallery(bad) if bad else missing(f"There were no {things} of defective parts."),
        _on_why(report),
        el("p", "Every score: ", el("a", "scores.csv", href="scores.csv"), ".", class_="quiet"),
    )


def _on_why(report: Report) -> Element | None:
    if not any(of.why for of in (*report.hard_good, *report.hard_anomalous)):
        return None
    text = (
        "The second picture of each shows where its score comes from; the circle marks the strongest place. "
        "What is weaker than in good images stays faint."
    )
    return el("p", text, class_="quiet")


def _gallery(images: Sequence[Hard]) -> Element:
    if images[0].picture is None:
        rows = [
            (of.path, of.kind, wording.PARTS[of.part], wording.score(of.score), _verdict(of)) for of in images
        ]
        return table("The first is the hardest", ("name", "type", "split", "score", "verdict"), rows)
    items = []
    for of in images:
        if of.picture is None:
            continue
        kind = of.kind if of.kind == "good" else f"anomalous ({of.kind})"
        alt = f"{kind}, score {wording.score(of.score)}"
        p_value = "" if of.p_value is None else f", p\u00a0=\u00a0{of.p_value:.2g}"
        wrong = of.rejected is not None and of.rejected == (of.kind == "good")
        items.append(
            el(
                "li",
                _image(of.picture, alt),
                None
                if of.why is None
                else _image(of.why, f"The same, with where its score comes from: {alt}"),
                el("span", _verdict(of), class_="wrong" if wrong else None),
                el("br"),
                f"score {wording.score(of.score)}{p_value}",
                el("br"),
                f"{of.path} ({of.kind}, {wording.PARTS[of.part]})",
            )
        )
    return el("ul", *items, class_="hard")


def _image(picture: Picture, alt: str) -> Element:
    size = {"width": picture.width_px, "height": picture.height_px}
    return el("img", src=picture.file, alt=alt, loading="lazy", **size)


def _verdict(of: Hard) -> str:
    if of.rejected is None:
        return "no verdict"
    if of.kind == "good":
        return "rejected: false alarm" if of.rejected else "passed"
    return "rejected" if of.rejected else "passed: missed"
