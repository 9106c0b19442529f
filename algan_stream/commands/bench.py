"""`algan-stream bench`: ratios against peers, measured in one run on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.commands.options import Precision, console

app = typer.Typer(help="Measure against peers, in one run on this machine.", no_args_is_help=True)
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]


BundleOption = Annotated[
    str | None,
    typer.Option(
        help="Bundle to run, or `demo`; by default a network of the paper's shape, 256 px, width 32."
    ),
]
#: One comparison: case, subject, value, unit, peer, peer_value, ratio; a ratio above 1 means ours is better.
Row = dict[str, Any]


@app.command()
def preprocess(
    json_: JsonFile = None,
    full: Annotated[
        bool, typer.Option("--full", help="All formats, frame, box and output sizes, not just the usual.")
    ] = False,
    only: Annotated[str, typer.Option(help="Cases whose name contains this.")] = "",
    seconds: Annotated[float, typer.Option(help="Time for each case.", min=0.1)] = 1.0,
    fresh_frames: Annotated[
        bool, typer.Option("--fresh-frames", help="Write each frame just before it is used.")
    ] = False,
    warm_heap: Annotated[
        bool, typer.Option("--warm-heap", help="Spare the peers the page faults of their allocations.")
    ] = False,
) -> None:
    """Frames and boxes to network input: our core against the libraries that are installed; one thread."""
    from algan_stream.commands.bench_preprocess import rows
    from algan_stream.commands.bench_preprocess_cases import full_list, short_list

    cases = [case for case in (full_list() if full else short_list()) if only in case.name]
    measured: list[Row] = []
    for row in rows(cases, seconds, fresh_frames=fresh_frames, warm_heap=warm_heap):
        measured.append(row)
        _write(measured, json_)  # as it grows: the full list takes a quarter of an hour
    console().print(_by_case(measured))


@app.command()
def engine(
    json_: JsonFile = None,
    bundle: BundleOption = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with `good` and others in it: AUROC and verdicts of every engine."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.", min=0.1)] = 3.0,
) -> None:
    """Every engine and precision side by side; and our wrapper against OpenVINO's own queue and benchmark."""
    from algan_stream.commands.bench_engine import rows
    from algan_stream.commands.bench_engines import lines, table

    with _bundle(bundle) as opened:
        found, refused = lines(opened, seconds, images)
        console().print(table(found, refused))
        for one in refused:
            typer.echo(f"{one.engine}: {one.reason}")
        wrapper = rows(opened, seconds)
    _write({"engines": found, "refused": refused, "wrapper": wrapper}, json_)
    console().print(_compared(wrapper))


@app.command()
def pipeline(
    json_: JsonFile = None,
    bundle: BundleOption = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the engine.")] = Precision.FP32,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.", min=0.1)] = 5.0,
) -> None:
    """Frames per second of the whole service at saturation over those of the bare engine on ready tensors."""
    from algan_stream.commands.bench_pipeline import rows

    with _bundle(bundle) as opened:
        _report(lambda: rows(opened, precision.value, seconds), json_)


@contextmanager
def _bundle(path: str | None) -> Iterator[Bundle]:
    if path is not None:
        yield read_bundle(path)
        return
    from algan_stream.commands.bench_model import reference_bundle

    with tempfile.TemporaryDirectory() as folder:
        yield reference_bundle(Path(folder))


def _write(measured: Any, json_: Path | None) -> None:
    if json_ is not None:
        json_.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")


def _by_case(measured: list[Row]) -> Table:
    """One row for each case, one column for each peer: how many times our time it takes."""
    peers = list(dict.fromkeys(row["peer"] for row in measured))
    subject = measured[0]["subject"] if measured else ""
    table = Table("case", subject, *peers)
    ratios = {(row["case"], row["peer"]): row["ratio"] for row in measured}
    for case, ours in {row["case"]: row["value"] for row in measured}.items():
        cells = [f"{ratios[case, peer]:.2f}×" if (case, peer) in ratios else "" for peer in peers]
        table.add_row(case, f"{ours:.4g} ms", *cells)
    return table


def _report(measure: Callable[[], list[Row]], json_: Path | None) -> None:
    measured = measure()
    _write(measured, json_)
    console().print(_compared(measured))


def _compared(measured: list[Row]) -> Table:
    """One row for each comparison."""
    table = Table("case", "subject", "value", "peer", "peer's value", "ratio")
    for row in measured:
        unit = row["unit"]
        table.add_row(
            row["case"],
            row["subject"],
            f"{row['value']:.4g} {unit}",
            row["peer"],
            f"{row['peer_value']:.4g} {unit}",
            f"{row['ratio']:.3f}×",
        )
    return table
