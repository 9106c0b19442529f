"""The space that a search looks through: configuration keys and their ranges, from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from algan_stream.errors import ConfigError
from algan_trainer.config import Config
from algan_trainer.study.plan import apply


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What values one configuration key may take: `choices`, or `low` to `high`, both included.

    Attributes:
        low: Least value; whole numbers make a range of whole numbers.
        high: Largest value.
        log: Equal factors are equally likely, instead of equal steps.
        step: Only low, low + step, …
        choices: The values themselves.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[str | float | int | bool, ...] = ()


def read_space(path: Path, base: Config) -> dict[str, Range]:
    """Reads the ranges: TOML tables named by configuration keys, such as `[adam.lr_generator]`.

    Raises:
        ConfigError: The file cannot be read, or a range is not one, or not of values that its key takes.
    """
    try:
        raw = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    found = {}
    for key, section in _flattened(raw).items():
        try:
            found[key] = msgspec.convert(section, Range)
            _check_range(found[key])
            for value in _ends(found[key]):
                apply(base, {key: value})
        except (msgspec.ValidationError, ConfigError) as error:
            raise ConfigError(f"{path}: {key}: {error}") from error
    if not found:
        raise ConfigError(f"{path}: expected at least one configuration key with its range, got none")
    return found


def distributions(space: Mapping[str, Range]) -> dict[str, Any]:
    """The same as Optuna has it; whole numbers stay whole."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, Any] = {}
    for key, of in space.items():
        low: Any = of.low
        high: Any = of.high
        step: Any = of.step
        if of.choices:
            made[key] = CategoricalDistribution(of.choices)
        elif all(isinstance(value, int) for value in (low, high, step or 1)):
            made[key] = IntDistribution(low, high, log=of.log, step=step or 1)
        else:
            made[key] = FloatDistribution(low, high, log=of.log, step=step)
    return made


def _flattened(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables of ranges by their dotted keys; a table with a table inside is no range but a section."""
    found: dict[str, Any] = {}
    for key, section in raw.items():
        if isinstance(section, dict) and any(isinstance(value, dict) for value in section.values()):
            found |= _flattened(section, f"{prefix}{key}.")
        else:
            found[prefix + key] = section
    return found


def _check_range(of: Range) -> None:
    if of.choices:
        ok = of.low is None and of.high is None and of.step is None and not of.log
    else:
        ok = of.low is not None and of.high is not None and of.low < of.high
        ok = ok and not (of.log and (of.step is not None or of.low is None or of.low <= 0))
        ok = ok and (of.step is None or of.step > 0)
    if not ok:
        raise ConfigError(
            "expected `choices`, or `low` below `high` with `log` (low above 0) or `step` if wanted, got "
            f"{msgspec.json.encode(of).decode()}"
        )


def _ends(of: Range) -> tuple[Any, ...]:
    return of.choices or (of.low, of.high)
