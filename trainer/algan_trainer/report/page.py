"""`index.html`: a report for people, from what one asks first to what one asks last.

Self-contained: no script, no font, nothing from a network; pictures lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from algan_trainer.report.content import Report
from algan_trainer.report.markup import document, el
from algan_trainer.report.sections import about_data, about_quality, provenance, tiles
from algan_trainer.report.sections_scores import about_hardest, about_roc, about_scores
from algan_trainer.report.sections_training import about_checkpoint, about_curves, about_fakes

_STYLE = Path(__file__).with_name("style.css")


def render(report: Report) -> str:
    """The whole page."""
    trained = report.subject == "training"
    title = f"{report.model.name}: {'training report' if trained else 'evaluation'}"
    sections = [about_data(report), about_quality(report)]
    if report.training is not None:
        sections += [about_checkpoint(report.training), about_curves(report.training)]
    sections += [about_scores(report), about_roc(report), about_hardest(report)]
    if trained:
        sections.append(about_fakes(report))
    body = el(
        "body",
        el(
            "header",
            el("h1", title),
            el("p", f"{report.model.kind}, {report.model.input}. Made {report.made_at}.", class_="quiet"),
        ),
        el("main", tiles(report), *sections, provenance(report)),
    )
    return document(el("html", _head(title), body, lang="en"))


def _head(title: str) -> Element:
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", _STYLE.read_text("utf-8")),
    )
