"""Numbers of a configuration that must lie in a range."""

from __future__ import annotations


def check_ranges(*rows: tuple[str, float | None, float, float]) -> None:
    """Raises ValueError for the first that does not: key, value (None: left open), least and largest."""
    for key, value, low, high in rows:
        if value is not None and not low <= value <= high:
            raise ValueError(f"{key}: expected {_text(low)} to {_text(high)}, got {_text(value)}")


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
