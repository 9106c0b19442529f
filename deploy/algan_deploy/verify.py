"""`algan-stream verify`: the golden gate as a command, for every engine on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from algan_deploy.verify_engines import Trial, attempt, everything, parse, with_ratios
from algan_deploy.verify_images import Agreed, EngineAnswers, Images, against, agreements, save
from algan_stream.bundle import read_bundle
from algan_stream.commands.options import BundleArgument, JsonOption, console
from algan_stream.errors import ConfigError, EngineError

_STYLE = {"passed": "green", "refused": "bold red", "unavailable": "yellow"}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found out.

    Attributes:
        bundle: Its name.
        ok: An engine passed, none that was asked for did not, and all verdicts are those of `against`.
        engines: Every engine that was tried.
        images: Verdicts on the images against those of the first engine that passed.
        against: Verdicts on the images against those of the other machine.
    """

    bundle: str
    ok: bool
    engines: list[Trial]
    images: list[Agreed] = []
    against: list[Agreed] = []


def verify(
    bundle: BundleArgument,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND[:precision[:device]] or a section `{kind: KIND, …}`; may be repeated. By default all."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Also compare the engines' verdicts on the images in this folder.")
    ] = None,
    save_: Annotated[
        Path | None, typer.Option("--save", help="Write scores and verdicts on --images to this file.")
    ] = None,
    against_: Annotated[
        Path | None,
        typer.Option("--against", help="Demand the verdicts in this file, saved on another machine."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Ask every engine on this machine for the bundle's golden answers; tell differences, flips and times.

    Ends with 0 if an engine passes, none named by --engine fails, and no verdict differs from --against;
    with 6 otherwise.
    """
    if images is None and (save_ or against_):
        raise ConfigError("--save and --against: need --images FOLDER, the images whose verdicts count")
    opened = read_bundle(bundle)
    wanted = [parse(name) for name in engine] if engine else everything()
    folder = Images(opened, images) if images else None
    trials, answered = [], []
    for one in wanted:
        trial, answers = attempt(opened, one, folder.ask if folder else None)
        trials.append(trial)
        if answers is not None:
            answered.append(EngineAnswers(engine=trial.engine, answers=answers))
    passed = any(t.state == "passed" for t in trials)
    ok = passed and not any(t.by_name and t.state != "passed" for t in trials)
    here = agreements(answered, answered[0]) if answered else []
    there: list[Agreed] = []
    if folder and answered and (save_ or against_):
        found = folder.saved(answered)
        if save_:
            save(save_, found)
        there = against(against_, found) if against_ else []
    if answered and (unread := [name for name, said in answered[0].answers.items() if said.score is None]):
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        typer.echo(f"{unread[0]}{more}: cannot be scored, and agree only in that", err=True)
    report = Report(
        bundle=opened.manifest.name,
        ok=ok and all(one.identical for one in there),
        engines=with_ratios(trials),
        images=here,
        against=there,
    )
    if json_:
        typer.echo(msgspec.json.encode(report))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(EngineError.exit_code)


def _print(report: Report) -> None:
    out = console()
    out.print(_gate_table(report))
    for trial in report.engines:
        if trial.reason:
            typer.echo(f"{trial.name}: {trial.reason}")
    if report.images:
        out.print(_agreement_table("verdicts on the images, against the first engine's", report.images))
    if report.against:
        out.print(_agreement_table("verdicts on the images, against the other machine's", report.against))
        for one in report.against:
            for name in one.flips:
                typer.echo(f"{one.engine}: {name}: another verdict than {one.reference}")


def _gate_table(report: Report) -> Table:
    table = Table(title=f"golden gate of {escape(report.bundle)}")
    for column in (
        "engine",
        "state",
        "golden",
        "score difference",
        "allowed",
        "flips",
        "ms/image",
        "× first",
    ):
        table.add_column(column)
    for trial in report.engines:
        table.add_row(
            escape(trial.engine or trial.name),
            f"[{_STYLE[trial.state]}]{trial.state}[/]",
            str(trial.golden_images or ""),
            _number(trial.max_score_difference, ".3g"),
            _number(trial.tolerance, ".3g"),
            str(len(trial.flips)) if trial.max_score_difference is not None else "",
            _number(trial.ms_per_image, ".3f"),
            _number(trial.times_first, ".2f"),
        )
    return table


def _agreement_table(title: str, found: list[Agreed]) -> Table:
    table = Table("engine", "images", "largest score difference", "flips", "identical verdicts", title=title)
    for one in found:
        identical = "[green]yes[/]" if one.identical else "[bold red]no[/]"
        difference = f"{one.max_score_difference:.3g}"
        table.add_row(escape(one.engine), str(one.images), difference, str(len(one.flips)), identical)
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
