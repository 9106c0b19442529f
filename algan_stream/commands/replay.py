"""`algan-stream replay`: scores an archive again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from algan_stream import archive
from algan_stream.archive import Entry
from algan_stream.bundle import read_bundle
from algan_stream.commands.options import JsonOption, Precision, console
from algan_stream.engines.gate import open_engine
from algan_stream.errors import BundleError, InputError
from algan_stream.replay import Judge, Replayed, Status, Summary, replay, worst_first

#: Engines that need no more than their kind and precision; another one's entries are replayed by the first.
_PLAIN_ENGINES = ("openvino", "onnxruntime")


def replay_archive(
    folder: Annotated[
        Path, typer.Argument(help="Folder that a sink of kind `archive` wrote.", metavar="ARCHIVE")
    ],
    bundle: Annotated[
        str | None,
        typer.Option(help="Another model bundle, or `demo`; by default each entry's own, from the archive."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Kind of engine; by default the recorded one, where it can run here.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic of the engine; by default the recorded one.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of a score allowed; by default the bundle's own, for the precision."
        ),
    ] = None,
    show: Annotated[int, typer.Option(help="Most changed verdicts in the table.", min=0)] = 50,
    json_: JsonOption = False,
) -> None:
    """Score an archive again and prove the same scores, or see what another bundle would have said.

    Ends with 0 if every recorded verdict is given again by scores within the tolerance; with 1 if one is not,
    if an entry is damaged, or if there was nothing to compare. With --json: one object for each entry, then a
    summary.
    """
    if tolerance is not None and not tolerance >= 0:
        raise InputError(f"--tolerance: expected 0 or more, got {tolerance}")
    judges = _Judges(folder, bundle, engine, precision)
    summary, told = Summary(), []
    try:
        for one in replay(folder, judges.of):
            summary.add(one, judges.tolerance if tolerance is None else tolerance)
            if json_:
                typer.echo(msgspec.json.encode(one))
            elif one.status in (Status.CHANGED, Status.DAMAGED):
                told.append(one)
    finally:
        judges.close()
    if json_:
        typer.echo(msgspec.json.encode({"summary": summary, "proven": summary.proven}))
    else:
        _print(summary, told, show, judges)
    if not summary.proven:
        raise typer.Exit(1)


class _Judges:
    """Opens each bundle, and an engine for it, when the first entry needs it."""

    def __init__(
        self, folder: Path, bundle: str | None, engine: str | None, precision: Precision | None
    ) -> None:
        self._folder, self._bundle, self._engine, self._precision = folder, bundle, engine, precision
        self._open: dict[tuple[str, str], Judge] = {}
        self._missing: dict[str, BundleError] = {}
        #: The last judge's.
        self.tolerance = 0.0

    def of(self, entry: Entry) -> Judge:
        """Who is to judge an entry.

        Raises:
            BundleError: The archive does not hold what judged it.
        """
        section = self._section(entry.verdict.engine)
        where = self._bundle or self._own(entry)
        if where in self._missing:
            raise self._missing[where]
        key = where, str(sorted(section.items()))
        if key not in self._open:
            try:
                found = read_bundle(where)
            except BundleError as error:
                if self._bundle is not None:
                    raise InputError(f"--bundle: {error}") from error
                self._missing[where] = error
                raise
            self._open[key] = Judge(found, open_engine(found, section))
        self.tolerance = self._open[key].tolerance
        return self._open[key]

    def names(self) -> list[str]:
        """What judged."""
        return [
            f"{judge.bundle.manifest.name} ({judge.model}) on {judge.engine.identity}"
            for judge in self._open.values()
        ]

    def close(self) -> None:
        for judge in self._open.values():
            judge.engine.close()

    def _own(self, entry: Entry) -> str:
        if not entry.bundle or Path(entry.bundle).name != entry.bundle:
            raise BundleError("the archive does not say which bundle judged it; name one with --bundle")
        return str(self._folder / archive.BUNDLES / entry.bundle)

    def _section(self, recorded: str) -> dict[str, Any]:
        """The engine to use; the recorded one's name is kind, version, device, precision."""
        words = recorded.split()
        own = words[0] if words and words[0] in _PLAIN_ENGINES else _PLAIN_ENGINES[0]
        kind = self._engine or own
        known = {p.value for p in Precision} & set(words) if words and words[0] == kind else set()
        chosen = self._precision.value if self._precision else next(iter(known), "fp32")
        return {"kind": kind, "precision": chosen}


def _print(summary: Summary, told: list[Replayed], show: int, judges: _Judges) -> None:
    out = console()
    if told:
        title = f"{summary.changed} changed verdicts, {summary.damaged} damaged entries"
        table = Table(title=title + (f"; the first {show}" if len(told) > show else ""))
        for column in ("entry", "part", "was", "score", "now", "score ", "why"):
            table.add_column(
                column, justify="right" if column.startswith("score") else "left", overflow="fold"
            )
        for one in worst_first(told)[:show]:
            was, now = (pair[0].value if pair else "" for pair in (one.was, one.now))
            why = one.problem or (one.now[1] if one.now else "")
            table.add_row(
                one.entry, one.part_id, was, _number(one.was_score), now, _number(one.now_score), why
            )
        out.print(table)
    for line in _lines(summary, judges):
        out.print(line, markup=False)


def _lines(summary: Summary, judges: _Judges) -> Iterator[str]:
    yield f"judged by: {'; '.join(judges.names()) or 'nobody'}"
    yield (
        f"{summary.entries} entries: {summary.compared} compared, "
        f"{summary.identical} of them to the last bit; "
        f"{summary.unscored} without a score, {summary.damaged} damaged"
    )
    for count, what in (
        (summary.lossy, "lossy pixels: not what was scored"),
        (summary.other_model, "recorded by another model"),
        (summary.other_threshold, "recorded with another threshold"),
    ):
        if count:
            yield f"{count} {what}"
    if summary.max_difference is not None:
        beyond = (
            f"{summary.beyond} beyond what is allowed" if summary.beyond else "all within what is allowed"
        )
        yield f"same model, same pixels: scores differ by at most {summary.max_difference:.3g}, {beyond}"
    if summary.max_difference_others is not None:
        yield f"other model or lossy pixels: scores differ by at most {summary.max_difference_others:.3g}"
    if not summary.compared:
        yield "nothing to compare"
    else:
        yield f"{summary.changed} verdicts changed" if summary.changed else "no verdict changed"


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:+.5f}"
