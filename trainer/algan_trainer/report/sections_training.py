"""The page's sections on a training: its checkpoint, its curves, and what G makes."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from algan_trainer.report import wording
from algan_trainer.report.blocks import folded, missing, section, table
from algan_trainer.report.charts import Line, Mark, line_chart
from algan_trainer.report.content import Epoch, Fakes, Picture, Report, Training
from algan_trainer.report.markup import Child, el

#: Most rows of the table below the curves; the CSV has them all.
_MOST_ROWS = 64
#: Sheets of small images are shown up to twice as large, up to this width.
_SHEET_PX = 780.0
#: What the lines of AUROC are, by their label.
_MEASURED_ON = {
    "validation": "the labelled validation split",
    "label-free": "held-out good ones against pseudo-anomalies of them (label-free)",
}


def about_checkpoint(training: Training) -> Element:
    """Which checkpoint became the model, and why."""
    rule = training.rule
    text = f"Epoch {training.chosen_epoch} of {training.epochs}, by the rule: {wording.RULES[rule]}."
    children: list[Child] = [el("p", text)]
    if rule == "last" and training.config.get("selection") == "labels":
        children.append(
            missing("The paper's rule was asked for, but validation lacks one kind, good or anomalous.")
        )
    names = list(training.best)
    rows = [
        (
            wording.RULES.get(name, name),
            f"{training.best[name]['epoch']:.0f}",
            wording.number(training.best[name]["value"]),
        )
        for name in names
    ]
    if rows:
        chosen = names.index(rule) if rule in names else -1
        head = ("rule", "its best epoch", "its value")
        children.append(table("What each rule would have taken", head, rows, chosen=chosen))
    if "labels" not in names:
        children.append(
            missing("Validation holds nothing defective, so the paper's rule could not be followed.")
        )
    return section("Which checkpoint, and why", *children)


def about_curves(training: Training) -> Element:
    """Losses and AUROC over epochs."""
    rows, title = training.curve, "Training"
    if not rows:
        return section(title, missing("No epoch was completed."))
    epochs = [row.epoch for row in rows]
    marks = [Mark(training.chosen_epoch, f"model: epoch {training.chosen_epoch}")]
    losses = line_chart(
        [
            Line("discriminator", epochs, [row.loss_d for row in rows]),
            Line("generator", epochs, [row.loss_g for row in rows]),
        ],
        title=f"Losses of discriminator and generator over {len(rows)} epochs; the table has its numbers.",
        x_label="epoch",
        y_label="loss",
        marks=marks,
    )
    children: list[Child] = [
        el("figure", losses, el("figcaption", "Losses, mean over each epoch."), class_="broad")
    ]
    measured = _measured(rows)
    if measured:
        chart = line_chart(
            measured,
            title="AUROC of the checkpoints over epochs, by each rule; the table has its numbers.",
            x_label="epoch",
            y_label="AUROC",
            marks=marks,
        )
        caption = "AUROC at each validation, by what it was measured on: " + "; ".join(
            _MEASURED_ON[line.label] for line in measured
        )
        if len(measured) > 1:
            caption += ". The two are different tasks: compare their shapes, not their heights"
        children.append(el("figure", chart, el("figcaption", f"{caption}."), class_="broad"))
    else:
        children.append(missing("Nothing was measured in between: there is no curve of AUROC."))
    children.append(folded("Numbers", _table(rows, training.chosen_epoch)))
    link = el("a", "training_curve.csv", href="training_curve.csv")
    children.append(el("p", "Every epoch: ", link, ".", class_="quiet"))
    return section(title, *children)


def about_fakes(report: Report) -> Element:
    """What G makes of normal and of anomalous latents (paper, Fig. 1)."""
    title, fakes = "What the generator makes", report.fakes
    if fakes is None:
        return section(title, missing(report.fakes_missing))
    text = (
        f"G as it stood after epoch {fakes.epoch}. The discriminator learns to tell the real images from all "
        "fakes; those of anomalous latents shall lie around the good parts, not far from them."
    )
    return section(title, el("p", text), *_sheets(fakes))


def _sheets(fakes: Fakes) -> list[Element]:
    shown: list[tuple[str, str, Picture | None]] = [
        ("Real good images, as the networks see them", "Real good images", fakes.real),
        ("Fakes of normal latents, z ~ N(0, I)", "Images that G makes of normal latents", fakes.normal),
        (
            f"Fakes of anomalous latents, z ~ N(0, {fakes.sigma:g}² I)",
            "Images that G makes of anomalous latents",
            fakes.anomalous,
        ),
    ]
    found = []
    for heading, alt, picture in shown:
        found.append(el("h3", heading))
        if picture is None:
            found.append(missing("This configuration draws no such latents (algan.alpha)."))
            continue
        scale = max(1.0, min(2.0, _SHEET_PX / picture.width_px))
        size = {"width": scale * picture.width_px, "height": scale * picture.height_px}
        found.append(el("div", el("img", src=picture.file, alt=alt, loading="lazy", **size), class_="sheet"))
    return found


def _measured(rows: Sequence[Epoch]) -> list[Line]:
    lines = []
    for label, values in (
        ("validation", [row.auroc for row in rows]),
        ("label-free", [row.label_free for row in rows]),
    ):
        if any(value is not None for value in values):
            lines.append(Line(label, [row.epoch for row in rows], values, dots=True))
    return lines


def _table(rows: Sequence[Epoch], chosen_epoch: int) -> Element:
    """Rows where something was measured, else evenly chosen ones; the exported epoch among them."""
    kept = [row for row in rows if row.auroc is not None or row.label_free is not None] or list(rows)
    if len(kept) > _MOST_ROWS:
        chosen = {round(i * (len(kept) - 1) / (_MOST_ROWS - 1)) for i in range(_MOST_ROWS)}
        kept = [row for i, row in enumerate(kept) if i in chosen or row.epoch == chosen_epoch]
    epochs = [row.epoch for row in kept]
    cells = [
        (
            str(row.epoch),
            wording.number(row.loss_d),
            wording.number(row.loss_g),
            wording.number(row.auroc),
            wording.number(row.label_free),
        )
        for row in kept
    ]
    marked = epochs.index(chosen_epoch) if chosen_epoch in epochs else -1
    head = ("epoch", "loss of D", "loss of G", "AUROC", "label-free")
    return table("The model's epoch in bold", head, cells, chosen=marked)
