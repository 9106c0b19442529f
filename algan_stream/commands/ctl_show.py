"""What `algan-stream ctl` prints."""

from __future__ import annotations

import msgspec
import typer
from rich.table import Table

from algan_stream import control_wire as wire
from algan_stream.commands.options import console
from algan_stream.commands.run import account_table
from algan_stream.control_client import FailedError
from algan_stream.shadow import ShadowReport
from algan_stream.swap import SwapStatus


def status(found: wire.LineStatus, json_: bool) -> None:
    """Model, engine, cameras, ledger, queues, shadow and trial."""
    if json_:
        typer.echo(msgspec.json.encode(found))
        return
    limit = "not calibrated" if found.threshold is None else f"rejects above {found.threshold:.6g}"
    typer.echo(f"{found.phase}{': ' if found.problems else ''}{'; '.join(found.problems)}")
    typer.echo(f"bundle {found.bundle}: model {found.model}, {limit}; {found.engine}")
    console().print(account_table({n: c.account for n, c in found.cameras.items() if c.account is not None}))
    for name, camera in found.cameras.items():
        paused = ", paused" if camera.paused else ""
        typer.echo(f"camera {name}: {camera.waiting} waiting{paused}")
    for name, waiting in found.sinks.items():
        typer.echo(f"sink {name}: {waiting} verdicts waiting")
    typer.echo(swap_line(found.swap))
    if found.shadow.state != "off":
        typer.echo(f"shadow: {found.shadow.state}, {found.shadow.frames} frames compared")
    if found.recalibration.camera:
        c = found.recalibration
        typer.echo(f"recalibration of camera {c.camera}: {c.scores} of {c.wanted} scores")


def swap(found: SwapStatus, json_: bool) -> None:
    """Where a swap stands."""
    typer.echo(msgspec.json.encode(found) if json_ else swap_line(found))


def swap_line(found: SwapStatus) -> str:
    """The same in one line."""
    if not found.job:
        return "swap: none yet"
    line = f"swap {found.job}: {found.state}{', ' if found.told else ''}{found.told}"
    if found.state in ("in trial", "kept"):
        line += f"; {found.left_s:.0f} s left to roll back to {found.kept}"
    return line


def shadow(report: ShadowReport, json_: bool) -> None:
    """The comparison; one that was refused ends the command with its exit code."""
    if json_:
        typer.echo(msgspec.json.encode(report))
    else:
        table = Table(title=f"shadow: {report.state}", show_header=False)
        for name, value in msgspec.to_builtins(report).items():
            if name not in ("state", "exit_code"):
                text = f"{value:.6g}" if isinstance(value, float) else str(value)
                table.add_row(name.replace("_", " "), text)
        console().print(table)
    if report.state == "refused":
        raise FailedError(report.told, report.exit_code)


def recalibrated(answer: wire.Recalibrated, json_: bool) -> None:
    """The new threshold, and what it rests on."""
    if json_:
        typer.echo(msgspec.json.encode(answer))
        return
    before = "none" if answer.threshold_before is None else f"{answer.threshold_before:.6g}"
    low, high = answer.false_reject_rate_ci95
    c = answer.collected
    typer.echo(
        f"camera {c.camera}: threshold {before} → {answer.threshold:.6g}, from {c.scores} scores of which "
        f"{c.rejects} were rejects so far; of good parts at most {answer.false_reject_rate:.4g} on average "
        f"are rejected, between {low:.4g} and {high:.4g} (95 %)"
    )
    typer.echo(f"saved: {answer.bundle}" if answer.bundle else "not saved: see --out and --apply")
