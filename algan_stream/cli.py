"""The one command, `algan-stream`: a subcommand is a file in `commands/` or another package's entry point."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from algan_stream import __version__
from algan_stream.commands import (
    bench,
    bundle,
    calibrate,
    conformance,
    ctl,
    demo,
    guard,
    health,
    keys,
    replay,
    run,
    score,
    send,
    watch,
)
from algan_stream.engines.openvino_device import without_telemetry
from algan_stream.errors import AlganError
from algan_stream.logs import LogLevel, set_up


def _add_installed(to: typer.Typer, group: str) -> None:
    """Adds the subcommands that other packages offer through an entry-point group."""
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        try:
            command = entry.load()
            if isinstance(command, typer.Typer):  # one with subcommands of its own
                to.add_typer(command, name=entry.name)
            else:
                to.command(entry.name)(command)
        except (ImportError, AttributeError) as error:
            # A broken add-on must not take the other commands away from an operator.
            typer.echo(f"warning: the command `{entry.name}` cannot be loaded: {error}", err=True)


app = typer.Typer(
    name="algan-stream",
    help="Visual anomaly detection for production lines: learns from good parts, judges every frame.",
    no_args_is_help=True,
    rich_markup_mode=None,  # [x, y] in a help text is no markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("score")(score.score)
app.command("calibrate")(calibrate.calibrate)
app.command("run")(run.run)
app.command("send")(send.send)
app.command("watch")(watch.watch)
app.command("health")(health.health)
app.command("demo")(demo.demo)
app.add_typer(ctl.app, name="ctl")
app.command("replay")(replay.replay_archive)
app.add_typer(bundle.app, name="bundle")
app.add_typer(bench.app, name="bench")
app.add_typer(guard.app, name="guard")
app.command("conformance")(conformance.conformance)
app.add_typer(keys.app, name="keys")
_add_installed(app, "algan_stream.commands")
_add_installed(bundle.app, "algan_stream.commands.bundle")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, to standard error.")] = False,
) -> None:
    """Options that stand before the subcommand."""
    set_up(level=LogLevel.INFO if verbose else LogLevel.WARNING)
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command; an error meant for the user ends it with one line and that error's exit code."""
    without_telemetry()  # before anything imports OpenVINO
    try:
        app()
    except AlganError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `algan-stream score … | head`
        sys.stderr.close()
        sys.exit(0)
