"""`algan-stream run`: the service."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from algan_stream.commands.options import JsonOption, console
from algan_stream.config import read_line
from algan_stream.errors import AlganError
from algan_stream.heap import keep_large_messages
from algan_stream.ledger import CameraAccount
from algan_stream.logs import LogFormat, LogLevel, set_up
from algan_stream.notify import attending
from algan_stream.plugins import placed
from algan_stream.service import Service, stop_on_signals


def run(
    line: Annotated[Path, typer.Argument(help="Configuration of the line.", metavar="LINE.yaml")],
    build_if_missing: Annotated[
        bool,
        typer.Option("--build-if-missing", help="Build a missing TensorRT engine while a slower one serves."),
    ] = False,
    json_: JsonOption = False,
    log: Annotated[LogFormat, typer.Option(help="Form of the log on standard error.")] = LogFormat.TEXT,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="Least severity that is logged; by default warning, info with -v.")
    ] = None,
) -> None:
    """Run a line until its sources end, or SIGTERM or SIGINT asks it to stop; then score what was received.

    With --json: a line `{"event": "ready", …}` once frames are taken, and one `{"event": "stopped", …}` with
    the final accounts. Ends with 0 only if the accounts add up. Under systemd, with Type=notify, it reports
    when it is ready, and feeds the watchdog while it is well.
    """
    set_up(log, log_level)
    try:
        _run(line, json_, build_if_missing=build_if_missing)
    except AlganError as error:
        if log is LogFormat.TEXT:
            raise
        logging.getLogger(__name__).critical("%s", error)
        raise typer.Exit(error.exit_code) from error


def _run(line: Path, json_: bool, *, build_if_missing: bool) -> None:
    keep_large_messages()
    with placed(str(line)):
        service = Service(read_line(line), build_if_missing=build_if_missing, file=line)
    endpoints = [
        endpoint
        for part in (
            *service.sinks,
            *(source for _, source, _ in service.sources),
            service.http,
            service.control,
        )
        if (endpoint := getattr(part, "endpoint", None))
    ]
    try:
        with stop_on_signals(service), attending(service):
            _say(json_, "ready", {"engine": str(service.engine.identity), "endpoints": endpoints})
            service.run()
    finally:
        accounts, refused = service.accounts(), service.refusals()  # also when a part of the service broke
        if json_:
            more = {"refused": refused, "sink_errors": service.pipeline.out.errors}
            _say(json_, "stopped", {"cameras": accounts, **more, "deliveries": service.deliveries()})
        else:
            console().print(account_table(accounts))
            for sink, counts in service.deliveries().items():
                told = ", ".join(f"{name} {n}" for name, n in msgspec.structs.asdict(counts).items())
                typer.echo(f"{sink}: {told}")
            if refused:
                typer.echo("refused messages: " + ", ".join(f"{code} {n}" for code, n in refused.items()))


def account_table(accounts: dict[str, CameraAccount]) -> Table:
    """The ledger as a table: a row for each camera's frames, and one for its boxes if it has any."""
    table = Table(title="Ledger: received = scored + dropped + expired + failed + in flight")
    for column in (
        "camera",
        "what",
        "received",
        "scored",
        "dropped",
        "expired",
        "failed",
        "in flight",
        "missing",
    ):
        table.add_column(column, justify="left" if column in ("camera", "what") else "right")
    for camera, account in accounts.items():
        for what, tally, missing in (
            ("frames", account.frames, str(account.missing)),
            ("boxes", account.boxes, ""),
        ):
            if what == "frames" or tally.received:
                counts = (
                    tally.received,
                    tally.scored,
                    tally.dropped,
                    tally.expired,
                    tally.failed,
                    tally.in_flight,
                )
                table.add_row(camera, what, *map(str, counts), missing)
    return table


def _say(json_: bool, event: str, details: dict[str, object]) -> None:
    if json_:
        typer.echo(msgspec.json.encode({"event": event, **details}))
    else:
        typer.echo(f"{event}: " + ", ".join(f"{key} {value}" for key, value in details.items()))
