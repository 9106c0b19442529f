"""`algan-stream bench`: ratios against peers, measured in one run on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from algan_stream.commands.options import Precision

app = typer.Typer(help="Measure against peers, in one run on this machine.", no_args_is_help=True)
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]


#: One comparison: case, subject, value, unit, peer, peer_value, ratio; a ratio above 1 means ours is better.
Row = dict[str, Any]


@app.command()
def preprocess(
    json_: JsonFile = None,
    repeats: Annotated[int, typer.Option(help="Times each is measured.", min=3)] = 31,
    fresh_frames: Annotated[
        bool, typer.Option("--fresh-frames", help="Write each frame just before it is used.")
    ] = False,
    warm_heap: Annotated[
        bool, typer.Option("--warm-heap", help="Spare the peers the page faults of their allocations.")
    ] = False,
) -> None:
    """Frames and boxes to network input: our core against OpenCV with NumPy; one thread."""
    from algan_stream.commands.bench_preprocess import rows

    _report(lambda: rows(repeats, fresh_frames=fresh_frames, warm_heap=warm_heap), json_)


@app.command()
def engine(
    json_: JsonFile = None,
    bundle: Annotated[str, typer.Option(help="Bundle to run, or `demo`.")] = "demo",
    seconds: Annotated[float, typer.Option(help="Time for each measurement.", min=0.1)] = 2.0,
) -> None:
    """Images per second of our engine wrapper against OpenVINO's own asynchronous queue."""
    from algan_stream.commands.bench_engine import rows

    _report(lambda: rows(bundle, seconds), json_)


@app.command()
def pipeline(
    json_: JsonFile = None,
    bundle: Annotated[str, typer.Option(help="Bundle to run, or `demo`.")] = "demo",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the engine.")] = Precision.FP32,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.", min=0.1)] = 3.0,
) -> None:
    """Frames per second of the whole service at saturation over those of the bare engine on ready tensors."""
    from algan_stream.commands.bench_pipeline import rows

    _report(lambda: rows(bundle, precision.value, seconds), json_)


def _report(measure: Callable[[], list[Row]], json_: Path | None) -> None:
    measured = measure()
    if json_ is not None:
        json_.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")
    table = Table("case", "subject", "value", "peer", "peer's value", "ratio")
    for row in measured:
        unit = row["unit"]
        table.add_row(
            row["case"],
            row["subject"],
            f"{row['value']:.4g} {unit}",
            row["peer"],
            f"{row['peer_value']:.4g} {unit}",
            f"{row['ratio']:.2f}×",
        )
    Console().print(table)
