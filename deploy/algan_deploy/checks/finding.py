"""What every check of the doctor says, and where it looks."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from algan_stream.config import LineConfig

State = Literal["ok", "missing", "wrong"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: `ok`; `missing`: something optional is not there; `wrong`: the service cannot run.
        detail: What was found.
        mend: The command or step that helps, or "".
    """

    name: str
    state: State
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Host:
    """The machine that is looked at.

    Attributes:
        root: Its root directory; tests show another.
        line: The line that shall run on it, or None.
        bundle: A bundle whose compiled engines are of interest, or None.
    """

    root: Path = Path("/")
    line: LineConfig | None = None
    bundle: str | None = None

    def path(self, name: str) -> Path:
        """An absolute path on that machine."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """What a file says, without the zero bytes and spaces at its end; None if it cannot be read."""
        try:
            return self.path(name).read_text("utf-8", errors="replace").rstrip("\0\n ")
        except OSError:
            return None

    def found(self, pattern: str) -> list[Path]:
        """Files by a glob pattern, sorted."""
        return sorted(self.root.glob(pattern.lstrip("/")))


def installed(module: str, package: str = "") -> str | None:
    """Version of an installed module (`unknown version` if it tells none), or None."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ModuleNotFoundError, ValueError):  # its parent is not there; it is half unloaded
        return None
    try:
        return version(package or module)
    except PackageNotFoundError:
        return "unknown version"


def about_package(name: str, module: str, purpose: str, mend: str) -> Finding:
    """Whether an optional Python package is installed."""
    found = installed(module)
    if found is None:
        return Finding(name=name, state="missing", detail=f"not installed; {purpose}", mend=mend)
    return Finding(name=name, state="ok", detail=found)
