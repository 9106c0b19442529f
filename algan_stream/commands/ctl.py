"""`algan-stream ctl`: commands for a line that runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from algan_stream import control_wire as wire
from algan_stream.bundle import DEMO_NAME
from algan_stream.commands import ctl_show as show
from algan_stream.commands.options import JsonOption
from algan_stream.config import read_line
from algan_stream.control_client import FailedError, Line
from algan_stream.errors import ConfigError
from algan_stream.swap import SwapStatus

app = typer.Typer(help="Command a line that runs.", no_args_is_help=True)

#: How often a command that waits asks how things stand.
_GLANCE_S = 0.1


class Recalibrate(str, Enum):
    """What to do about a recalibration."""

    START = "start"
    FINISH = "finish"
    CANCEL = "cancel"


@app.callback()
def connect(
    context: typer.Context,
    line: Annotated[
        str, typer.Argument(help="The line's file, or the endpoint (ipc://PATH).", metavar="LINE")
    ],
    timeout: Annotated[float, typer.Option(help="Longest wait for an answer, in seconds.", min=0.1)] = 60.0,
) -> None:
    """Command a line that runs, over the socket of its section `control`."""
    endpoint = line
    if "://" not in line:
        control = read_line(line).control
        if control is None:
            raise ConfigError(
                f"{line}: has no control socket; add `control: {{bind: ipc://PATH}}` and restart"
            )
        endpoint = control.bind
    context.obj = Line(endpoint, timeout)


@app.command()
def status(context: typer.Context, json_: JsonOption = False) -> None:
    """Show model, engine, cameras, ledger, queues, shadow and trial."""
    found: wire.LineStatus = context.obj.status()
    show.status(found, json_)


@app.command()
def swap(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(help="Bundle that shall serve.", metavar="BUNDLE")],
    wait: Annotated[bool, typer.Option(help="Wait until it serves, or is refused.")] = True,
    json_: JsonOption = False,
) -> None:
    """Load a bundle beside the one that serves, gate it, and go over between two batches."""
    begun = context.obj.ask(wire.Swap(bundle=_absolute(bundle)), wire.Begun)
    _follow(context.obj, begun.job, json_, wait=wait)


@app.command()
def rollback(context: typer.Context, json_: JsonOption = False) -> None:
    """Go back to the model before the latest swap, while it is in its trial or kept."""
    begun = context.obj.ask(wire.Rollback(), wire.Begun)
    found = _until(context.obj, lambda s: s.job != begun.job or s.outcome == "rolled_back")
    show.swap(found, json_)


@app.command()
def shadow(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="A bundle to compare; or `report`, `promote`, `stop`.", metavar="BUNDLE|report|…"
        ),
    ],
    share: Annotated[float, typer.Option(help="Share of frames that both score.")] = 0.1,
    json_: JsonOption = False,
) -> None:
    """Score a share of the frames with a second bundle as well, and compare. No verdict changes or waits."""
    line: Line = context.obj
    if what == "promote":
        _follow(line, line.ask(wire.PromoteShadow(), wire.Begun).job, json_, wait=True)
        return
    if what in ("report", "stop"):
        asked = wire.GetShadow() if what == "report" else wire.StopShadow()
        report = line.ask(asked, wire.ShadowAnswer).report
    else:
        request = wire.StartShadow(bundle=_absolute(what), share=share)
        report = line.ask(request, wire.ShadowAnswer).report
        while report.state == "loading":
            time.sleep(_GLANCE_S)
            report = line.ask(wire.GetShadow(), wire.ShadowAnswer).report
    show.shadow(report, json_)


@app.command()
def reload(context: typer.Context, json_: JsonOption = False) -> None:
    """Read the line's file again and follow it: as a whole, or not at all."""
    answer = context.obj.ask(wire.Reload(), wire.Reloaded)
    if json_:
        typer.echo(msgspec.json.encode(answer))
    else:
        typer.echo("\n".join(answer.changes) or "nothing has changed")


@app.command()
def pause(context: typer.Context, camera: str) -> None:
    """Answer a camera's frames with unknown(paused), unscored."""
    typer.echo(context.obj.ask(wire.Pause(camera=camera, paused=True), wire.Done).told)


@app.command()
def resume(context: typer.Context, camera: str) -> None:
    """Score the frames of a paused camera again."""
    typer.echo(context.obj.ask(wire.Pause(camera=camera, paused=False), wire.Done).told)


@app.command()
def recalibrate(
    context: typer.Context,
    what: Recalibrate,
    camera: Annotated[str, typer.Option(help="start: whose parts are all good from now on.")] = "",
    images: Annotated[int, typer.Option(help="start: scores to collect.")] = 0,
    false_reject_rate: Annotated[
        float | None,
        typer.Option(help="start: share of good parts that may be rejected; default: as before."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="finish: go over to the new threshold.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="finish: save as this bundle; with --apply beside the old one.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Set the threshold from parts on the line that you declare good."""
    line: Line = context.obj
    if what is Recalibrate.CANCEL:
        typer.echo(line.ask(wire.CancelRecalibration(), wire.Done).told)
    elif what is Recalibrate.START:
        if not camera or images < 1:
            raise ConfigError("recalibrate start: expected --camera and --images")
        request = wire.StartRecalibration(camera=camera, images=images, false_reject_rate=false_reject_rate)
        collected = line.ask(request, wire.CollectedAnswer).collected
        if json_:
            typer.echo(msgspec.json.encode(collected))
        else:
            typer.echo(f"camera {camera}: collecting {images} scores; every part now counts as good")
    else:
        place = "" if out is None else str(out.resolve())
        answer = line.ask(wire.FinishRecalibration(apply=apply, out=place), wire.Recalibrated)
        show.recalibrated(answer, json_)
        if answer.job:
            _follow(line, answer.job, json_, wait=True)


@app.command()
def stop(context: typer.Context) -> None:
    """Stop the line, as SIGTERM does: frames already received are still scored."""
    typer.echo(context.obj.ask(wire.Stop(), wire.Done).told)


# ---- waiting ---------------------------------------------------------------------------------


def _absolute(bundle: str) -> str:
    """The line has another working directory."""
    return bundle if bundle == DEMO_NAME else str(Path(bundle).resolve())


def _until(line: Line, over: Callable[[SwapStatus], bool]) -> SwapStatus:
    while not over(found := line.status().swap):
        time.sleep(_GLANCE_S)
    return found


def _follow(line: Line, job: int, json_: bool, *, wait: bool) -> None:
    """Waits for a swap to serve; one that was refused ends the command with its exit code."""
    if not wait:
        typer.echo(msgspec.json.encode({"job": job}) if json_ else f"swap {job}: loading; see `ctl … status`")
        return
    found = _until(line, lambda s: s.job != job or s.state != "loading")
    if found.outcome == "refused":
        raise FailedError(found.told, found.exit_code)
    show.swap(found, json_)
    if not json_ and found.outcome == "serving":
        typer.echo("the line's file still names its `bundle:`; change it there too, or a restart goes back")
