"""`algan-stream doctor`: what this machine has, what will be used, and how to mend what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from algan_deploy.checks import cameras, engines, gpu, line, machine
from algan_deploy.checks.finding import Finding, Host
from algan_stream.commands.options import console
from algan_stream.config import read_line
from algan_stream.errors import AlganError

#: A check may say nothing: of a Jetson on a server, say.
Check = Callable[[Host], Iterable[Finding]]

_STYLE = {"ok": "green", "missing": "yellow", "wrong": "bold red"}
_CHECKS: tuple[Check, ...] = (
    machine.python, machine.processor, machine.simd, machine.processors, machine.memory,
    machine.shared_memory, line.frames_in_memory, gpu.jetson, gpu.driver, gpu.toolkit, gpu.core,
    engines.each, engines.tensorrt, engines.training, engines.golden_gate,
    cameras.video4linux, cameras.frameworks, line.cameras, line.sinks,
)  # fmt: skip


def doctor(
    line: Annotated[
        Path | None,
        typer.Option(help="A line's configuration: can this machine run it?", metavar="LINE.yaml"),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Also look at the compiled engines of this bundle.", metavar="BUNDLE")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tell what this machine has, what will be used and why, and how to mend what is missing.

    Ends with 0 if the service can run here, else with 1.
    """
    findings = examine(line, bundle)
    well = all(finding.state != "wrong" for finding in findings)
    if json_:
        typer.echo(msgspec.json.encode({"ok": well, "findings": findings}))
    else:
        table = Table("what", "state", "found", "to mend it", title="algan-stream doctor")
        for f in findings:
            table.add_row(f.name, f"[{_STYLE[f.state]}]{f.state}[/]", escape(f.detail), escape(f.mend))
        console().print(table)
    if not well:
        raise typer.Exit(1)


def examine(line: Path | None = None, bundle: str | None = None, root: Path = Path("/")) -> list[Finding]:
    """Looks at everything; a check that itself breaks is reported as wrong, not raised.

    Args:
        line: A line's file, or None for the machine alone.
        bundle: Whose compiled engines are looked at, too; by default the line's.
        root: Root directory of the machine.
    """
    found: list[Finding] = []
    host = Host(root, bundle=bundle)
    if line is not None:
        try:
            host = Host(root, read_line(line), bundle)
            found.append(Finding(name="line", state="ok", detail=f"{line}: its configuration is right"))
        except AlganError as error:
            found.append(Finding(name="line", state="wrong", detail=str(error), mend="correct that file"))
    for check in _CHECKS:
        found += _guarded(check, host)
    return found


def _guarded(check: Check, host: Host) -> list[Finding]:
    try:
        return list(check(host))
    except Exception as error:  # noqa: BLE001  the doctor must not fall ill
        name = check.__name__.replace("_", " ")
        return [Finding(name=name, state="wrong", detail=f"{type(error).__name__}: {error}")]
