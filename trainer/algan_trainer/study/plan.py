"""From a study and its settings to cells: one cell is one training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from algan_stream.errors import AlganError, ConfigError, InputError
from algan_trainer.config import Config, override
from algan_trainer.study.designs import Design, Group, designs
from algan_trainer.study.paper import AUGMENTATION


class StudyError(AlganError):
    """A study cannot go on as it was asked to, or some of its trainings failed."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        key: Its folder's name, unique in the study.
        group: See `designs.Group`.
        category: Subfolder of the data, or "" for the data as a whole.
        seed: Of the split, the weights and everything random.
        config: Complete.
    """

    key: str
    group: str
    category: str
    seed: int
    config: Config


@dataclass(frozen=True)
class Plan:
    """All cells of a study; those of the first seed come first, so that a partial table is an even one."""

    design: Design
    cells: tuple[Cell, ...]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a study was asked: enough to plan it again, and kept in its folder.

    Attributes:
        study: Name of its design.
        data: The data's folder or file.
        categories: Subfolders taken; empty: the data as a whole.
        seeds: How many, from 0 on.
        config: What all cells share, as a dictionary.
        fixed: Dotted keys of it that were asked for in so many words: these win over `paper.AUGMENTATION`.
    """

    study: str
    data: str
    categories: tuple[str, ...]
    seeds: int
    config: dict[str, Any]
    fixed: tuple[str, ...] = ()


def make_plan(settings: Settings) -> Plan:
    """Lays out the cells of a study.

    Raises:
        ConfigError: A cell's configuration is out of range.
    """
    design = designs(list(settings.categories))[settings.study]
    base = override(msgspec.convert(settings.config, Config), {})
    cells = [
        _cell(group, category, seed, base, settings)
        for seed in range(settings.seeds)
        for group in design.groups
        for category in _categories_of(group, settings)
    ]
    return Plan(design, tuple(cells))


def folder_of(data: Path, category: str) -> Path:
    """Where a category's images are."""
    return data / category if category else data


def apply(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config.override`, for keys that a user wrote.

    Raises:
        ConfigError: A key is unknown, or its value is of the wrong type or out of range.
    """
    for key in changes:
        at: Any = config
        for name in key.split("."):
            known = getattr(at, "__struct_fields__", ())
            if name not in known:
                raise ConfigError(f"{key}: unknown configuration key; {name} is none of {', '.join(known)}")
            at = getattr(at, name)
    try:
        return override(config, dict(changes))
    except TypeError as error:  # a bound compared with a value of another type
        raise ConfigError(f"{', '.join(changes)}: {error}") from error


def plain(config: Config | dict[str, Any]) -> dict[str, Any]:
    """A configuration as JSON has it: two that mean the same are equal, whatever wrote them.

    One from before an option existed is given that option's default.
    """
    typed = config if isinstance(config, Config) else msgspec.convert(config, Config)
    facts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(typed))
    return facts


def fingerprint(config: Config, data_sha256: str) -> str:
    """What a training's result depends on, in 64 hex digits: its configuration and its data."""
    facts = {"config": plain(config), "data": data_sha256}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def find_categories(data: Path) -> list[str]:
    """Subfolders that are datasets themselves: those with `train` inside; none where `data` is one."""
    if not data.is_dir() or (data / "train").is_dir():
        return []
    return sorted(p.name for p in data.iterdir() if (p / "train").is_dir())


def choose_categories(study: str, data: Path, wanted: list[str]) -> tuple[str, ...]:
    """Settles which categories a study takes.

    Raises:
        InputError: A category is wanted that is not there, or none is there and the study needs them.
    """
    found = find_categories(data)
    design = designs([])[study]
    listed = ", ".join(found) or "none"
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{data}: expected the category {missing[0]} with a folder `train`, found {listed}")
    if design.categories == "none":
        return tuple(wanted)
    if design.categories == "each" and not found:
        raise InputError(
            f"{data}: `study {study}` expects one subfolder for each category, with `train` in it, "
            "found none; name the folder that holds them all"
        )
    if wanted or not found:
        return tuple(wanted)
    if design.categories in ("each", "all"):
        return tuple(found)
    if design.favourite in found:
        return (design.favourite,)
    raise InputError(
        f"{data}: the paper's {design.source} is about {design.favourite}, found {listed}; "
        "choose one with --category"
    )


def _categories_of(group: Group, settings: Settings) -> tuple[str, ...]:
    if group.category is not None:
        return (group.category,)
    return settings.categories or ("",)


def _cell(group: Group, category: str, seed: int, base: Config, settings: Settings) -> Cell:
    parts = [group.id] if category in ("", group.id) else [group.id, category]
    # A single category's folder may be named directly: …/mvtec/bottle.
    subject = category or (Path(settings.data).name if settings.study not in ("mtd", "coil100") else "")
    augmentation = {k: v for k, v in AUGMENTATION.get(subject, {}).items() if k not in settings.fixed}
    changes = augmentation | dict(group.changes) | {"seed": seed}
    return Cell(f"{'.'.join(parts)}.seed-{seed}", group.id, category, seed, override(base, changes))
