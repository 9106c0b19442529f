"""A camera's features by name, as GenICam's standard calls them: set, then read back and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from algan_stream.errors import ConfigError

Value: TypeAlias = bool | int | float | str

#: A camera rounds times and gains to what its clock and converter can do.
_ROUNDING = 0.01


def set_features(
    wanted: Mapping[str, Value],
    write: Callable[[str, Value], None],
    read: Callable[[str], object],
    section: str = "features",
) -> None:
    """Sets features in the order given, then checks that each has kept its value.

    Args:
        wanted: Value by name; `true` for a command executes it.
        write: Sets one; raises anything where that fails.
        read: Gives one's value; None for a command, which has none.
        section: Of the configuration, for messages.

    Raises:
        ConfigError: The camera has no such feature, refuses the value, or has another one afterwards.
    """
    for name, value in wanted.items():
        try:
            write(name, value)
        except Exception as error:
            raise ConfigError(
                f"{section}.{name}: the camera does not take {value!r}: {_first(error)}"
            ) from error
    for name, value in wanted.items():
        try:
            got = read(name)
        except Exception as error:
            raise ConfigError(f"{section}.{name}: cannot be read back: {_first(error)}") from error
        if got is not None and not same(value, got):
            raise ConfigError(
                f"{section}.{name}: expected {value!r}, but the camera has {got!r}; another may bind it"
            )


def same(wanted: Value, got: object) -> bool:
    """Whether a camera has what was wanted; a fractional number up to the camera's rounding."""
    if isinstance(wanted, bool) or isinstance(got, bool):
        return bool(wanted) == bool(got) and not isinstance(wanted, str)
    if isinstance(got, float) and isinstance(wanted, int | float):
        return math.isclose(wanted, got, rel_tol=_ROUNDING, abs_tol=1e-9)
    return wanted == got


def _first(error: Exception) -> str:
    """The first sentence: where in whose C++ it was thrown helps nobody."""
    return str(error).partition(" : ")[0].partition("\n")[0].strip() or type(error).__name__
