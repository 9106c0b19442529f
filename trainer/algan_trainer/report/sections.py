"""The page's sections that every report has, apart from those on scores."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from algan_trainer.report import wording
from algan_trainer.report.blocks import facts, folded, missing, section, table
from algan_trainer.report.content import Report, Result, Threshold
from algan_trainer.report.markup import Child, el


def tiles(report: Report) -> Element:
    """The four numbers that one looks for first."""
    first = report.results[0] if report.results else None
    found: list[tuple[str, str, str]] = []
    if first is not None:
        part = wording.PARTS[first.part]
        kinds = f"{first.counts.good} good and {first.counts.anomalous} anomalous, {part}"
        found.append(("AUROC", wording.number(first.auroc), kinds))
        for name, rate in (("False rejects", first.false_rejects), ("Defects found", first.detected)):
            share = wording.percent(rate.share) if rate else wording.NONE
            detail = (
                f"{rate.count} of {rate.of}; 95 %: {wording.interval(rate.ci95)}" if rate else "not measured"
            )
            found.append((name, share, detail))
    threshold = report.threshold
    value = wording.score(threshold.value) if threshold else wording.NONE
    found.append(("Threshold", value, "scores above it are rejected" if threshold else "not calibrated"))
    rows = [el("div", el("dt", name), el("dd", value), el("dd", note)) for name, value, note in found]
    return el("dl", *rows, class_="tiles")


def about_data(report: Report) -> Element:
    """What it was trained on, or judged on."""
    data, training = report.data, report.training
    rows = [
        (wording.PARTS[part], str(counts.good), str(counts.anomalous)) for part, counts in data.parts.items()
    ]
    things = wording.things(report)
    counted = table(f"Number of {things}", ("split", "good", "anomalous"), rows)
    notes = [el("p", note, class_="quiet") for note in data.notes]
    if training is None:
        text = f"{data.name}, judged with the model {report.model.name}."
        return section("What was judged", el("p", text), counted, *notes)
    text = (
        f"{data.name} (layout {data.layout}), split and weights by seed {training.seed}: "
        f"{training.epochs} epochs in {wording.duration(training.seconds)}. "
    )
    link = el("a", "split.csv", href="split.csv")
    where = f" says which of the {things} went where."
    return section("What it was trained on", el("p", text, link, where), counted, *notes)


def about_quality(report: Report) -> Element:
    """AUROC, false rejects and detection at the threshold, by part and by type of defect."""
    parts: list[Child] = [_threshold(report.threshold, report)]
    rows = []
    for result in report.results:
        name = wording.PARTS[result.part]
        false, found = result.false_rejects, result.detected
        rows.append(
            (
                name,
                wording.number(result.auroc),
                wording.rate(false),
                wording.interval(false.ci95 if false else None),
                wording.rate(found),
                wording.interval(found.ci95 if found else None),
            )
        )
    head = ("split", "AUROC", "good rejected", "95 % interval", "anomalous rejected", "95 % interval")
    parts.append(table("At the threshold", head, rows))
    parts += _gaps(report)
    for result in report.results[:1]:
        parts.append(_types(result))
    return section("How good it is", *parts)


def _threshold(threshold: Threshold | None, report: Report) -> Element:
    if threshold is None:
        text = "The bundle is not calibrated: it has no threshold yet (algan-stream calibrate)."
        return missing(text)
    value = wording.score(threshold.value)
    if threshold.method == "raw":
        text = (
            f"Scores above {value} are rejected: a threshold set by hand, with no promise about good parts."
        )
    else:
        low, high = threshold.false_reject_rate_ci95 or (0.0, 1.0)
        text = (
            f"Scores above {value} are rejected. The threshold was set from {threshold.good_images} good "
            f"{wording.things(report)} that were not trained on, so that on average at most "
            f"{wording.percent(threshold.false_reject_rate)} of good parts are rejected; with 95 % "
            f"confidence the true rate lies between {wording.percent(low)} and {wording.percent(high)}."
        )
    if report.subject == "training":
        text += " A later algan-stream calibrate moves it in the bundle, not on this page."
    return el("p", text)


def _gaps(report: Report) -> list[Element]:
    """What these numbers cannot tell, in words."""
    found = []
    held = {result.part for result in report.results}
    if report.subject == "training" and "test" not in held:
        found.append(
            missing(
                "The data has no test split. Every number here is from what set the threshold or chose the "
                "checkpoint, and may be too good; judge new data with algan-stream evaluate."
            )
        )
    elif report.subject == "training" and len(held) > 1:
        chose = report.training is not None and report.training.rule != "last"
        also = ", and validation chose the checkpoint" if chose else ""
        others = f"other good {wording.things(report)} set the threshold{also}"
        text = f"Only the test split is independent: {others}."
        found.append(el("p", text, class_="quiet"))
    for result in report.results[:1]:
        if not result.counts.anomalous:
            found.append(
                missing(
                    "Nothing defective was at hand: AUROC, the share of defects found and the ROC curve "
                    "cannot be measured. A few dozen real defects would tell."
                )
            )
        elif not result.counts.good:
            found.append(missing("Nothing good is among these: AUROC and false rejects cannot be measured."))
    return found


def _types(result: Result) -> Element | None:
    if not result.types:
        return None
    rows = [
        (
            of.kind,
            str(of.detected.of),
            wording.number(of.auroc),
            wording.rate(of.detected),
            wording.interval(of.detected.ci95),
        )
        for of in sorted(result.types, key=lambda of: of.detected.share)
    ]
    head = ("type of defect", "number", "AUROC", "rejected", "95 % interval")
    return table(f"By type of defect ({wording.PARTS[result.part]}), the hardest first", head, rows)


def provenance(report: Report) -> Element:
    """Where it all comes from."""
    rows = [("model, SHA-256", report.model.sha256)]
    if report.data.sha256:
        rows.append(("data and split, SHA-256", report.data.sha256))
    rows += [
        (key.replace("_", " "), _plain(value))
        for key, value in report.data.facts.items()
        if value not in ([], {}, "", None)
    ]
    rows += [("versions", ", ".join(f"{name} {of}" for name, of in report.versions.items()))]
    children: list[Child] = [facts(rows)]
    if report.training is not None:
        parity = [(name, f"{of:.2g}") for name, of in report.training.parity.items()]
        head = ("runtime", "largest difference")
        children.append(table("The exported graph against PyTorch", head, parity))
        config = facts(_flat(report.training.config))
        children.append(folded("Training configuration", config))
    links = [el("a", "report.json", href="report.json"), el("a", "scores.csv", href="scores.csv")]
    children.append(el("p", "The numbers of this page: ", links[0], ", ", links[1], ".", class_="quiet"))
    return section("Provenance", *children)


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        rows += (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else [(f"{prefix}{key}", _plain(value))]
        )
    return rows


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
