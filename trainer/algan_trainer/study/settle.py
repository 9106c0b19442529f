"""What is asked of a study, typed, and held against what its folder was begun with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from algan_stream.errors import ConfigError, InputError
from algan_trainer.config import Config, differences, override, read_config
from algan_trainer.study import paper
from algan_trainer.study.designs import NAMES
from algan_trainer.study.plan import Settings, StudyError, apply, choose_categories, plain
from algan_trainer.study.records import SETTINGS, read_json


def settle(
    study: str,
    data: Path,
    out: Path,
    *,
    seeds: int,
    config: Path | None = None,
    changes: dict[str, Any] | None = None,
    categories: list[str] | None = None,
) -> Settings:
    """Types what is asked, and holds it against what the folder was begun with.

    Args:
        study: One of `designs.NAMES`.
        data: Folder or file of data.
        out: The study's folder.
        seeds: How many, from 0 on.
        config: TOML file that all cells start from; None: the paper's configuration.
        changes: Dotted keys that the command line sets; None values are ignored.
        categories: Subfolders to take; None or empty: what the study needs.

    Raises:
        ConfigError: A key is unknown or a value out of range.
        InputError: The data is not there, or not as the study needs it.
        StudyError: `out` holds another study, or one with other settings.
    """
    data, out = data.resolve(), out.resolve()
    if study not in NAMES:
        raise ConfigError(f"study: expected one of {', '.join(NAMES)}, got {study}")
    if seeds < 1:
        raise ConfigError(f"--seeds: expected 1 or more, got {seeds}")
    if not data.exists():
        raise InputError(f"{data}: expected a folder of images, but there is no such folder")
    if data == out or data in out.parents:
        raise StudyError(f"{out}: lies in the data's own folder; name an --out elsewhere")
    asked = {key: value for key, value in (changes or {}).items() if value is not None}
    known = read_json(out / SETTINGS, Settings)
    base = read_config(config) if config else override(Config(), paper.CONFIG)
    base = apply(base, asked)
    if base.precision == "auto":
        base = override(base, {"precision": _precision(known)})
    settings = Settings(
        study=study,
        data=str(data),
        categories=choose_categories(study, data, categories or []),
        seeds=seeds,
        config=plain(override(base, {"seed": 0})),
        fixed=tuple(sorted(key for key in asked if key.startswith("data."))),
    )
    return settings if known is None else _joined(known, settings, out)


def _precision(known: Settings | None) -> str:
    """Settled once for the whole study, so that its cells compare whatever machine they run on."""
    if known is not None:
        return str(known.config["precision"])
    from algan_trainer.precision import resolve

    return resolve("auto")


def _joined(known: Settings, asked: Settings, out: Path) -> Settings:
    """More seeds and categories may come; all else stays."""
    changed = differences(_comparable(known), _comparable(asked))
    if changed:
        raise StudyError(
            f"{out}: holds a study with other settings: {'; '.join(changed)}; name another --out"
        )
    categories = known.categories + tuple(c for c in asked.categories if c not in known.categories)
    return msgspec.structs.replace(asked, categories=categories, seeds=max(known.seeds, asked.seeds))


def _comparable(settings: Settings) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(settings)
    kept = {key: value for key, value in facts.items() if key not in ("categories", "seeds")}
    return kept | {"config": plain(settings.config)}
