"""HTML and SVG as trees: what goes in as text comes out escaped, and every element is closed."""

from __future__ import annotations

from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = "Element | str | None"


def el(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """Makes an element.

    Args:
        tag: Its name.
        children: Elements and texts, in order; None is left out.
        attributes: Theirs; `class_` stands for `class`, `_` for `-`; None is left out, numbers are shortened.
    """
    named = {k.rstrip("_").replace("_", "-"): _text(v) for k, v in attributes.items() if v is not None}
    made = Element(tag, named)
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + child
        elif child is not None:
            made.text = (made.text or "") + child
    return made


def document(root: Element) -> str:
    """The whole page as text."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _text(value: str | float) -> str:
    """Coordinates need no more than a tenth of a pixel."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
