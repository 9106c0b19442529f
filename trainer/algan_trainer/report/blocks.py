"""What the page's sections are built of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from algan_trainer.report.markup import Child, el


def section(title: str, *children: Child) -> Element:
    """A heading with what belongs to it."""
    return el("section", el("h2", title), *children)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, chosen: int = -1) -> Element:
    """A table: the first column names the row, the others are numbers; row `chosen` stands out."""
    heads = [el("th", text, scope="col", class_="n" if i else None) for i, text in enumerate(head)]
    body = []
    for number, row in enumerate(rows):
        cells = [el("td", text, class_="n") for text in row[1:]]
        css = "chosen" if number == chosen else None
        body.append(el("tr", el("th", row[0], scope="row"), *cells, class_=css))
    made = el("table", el("caption", caption), el("thead", el("tr", *heads)), el("tbody", *body))
    return el("div", made, class_="wide")


def facts(rows: Iterable[tuple[str, str]]) -> Element:
    """A table of names and texts."""
    body = [el("tr", el("th", k, scope="row"), el("td", v, class_="hash")) for k, v in rows]
    return el("div", el("table", el("tbody", *body)), class_="wide")


def folded(title: str, *children: Child) -> Element:
    """What most readers skip."""
    return el("details", el("summary", title), *children)


def missing(text: str) -> Element:
    """Says that something could not be measured, and why."""
    return el("p", text, class_="missing")
