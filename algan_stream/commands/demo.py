"""`algan-stream demo`: the real service on rendered parts, live in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from algan_stream.commands.options import BundleArgument
from algan_stream.commands.run import account_table
from algan_stream.config import CameraConfig, LineConfig
from algan_stream.demo.display import LiveDisplay
from algan_stream.service import Service, stop_on_signals


def demo(
    bundle: BundleArgument = "demo",
    seconds: Annotated[float, typer.Option(help="How long; 0 = until Ctrl-C.", min=0)] = 20.0,
    fps: Annotated[float, typer.Option(help="Frames per second of the camera.", min=1, max=1000)] = 25.0,
    defect_rate: Annotated[float, typer.Option(help="Share of defective parts.", min=0, max=1)] = 0.3,
    seed: Annotated[int, typer.Option(help="Another seed shows other parts.", min=0)] = 7,
) -> None:
    """Watch the service judge parts on a conveyor. The parts are rendered by this program, not photographed.

    It is the same pipeline, engine and ledger as `run`; only the camera is a renderer.
    """
    source = {
        "kind": "conveyor",
        "fps": fps,
        "frames": round(seconds * fps),
        "seed": seed,
        "defect_rate": defect_rate,
    }
    camera = CameraConfig(id="conveyor", source=source, deadline_ms=200.0)
    title = f"algan-stream demo: rendered parts at {fps:g} frames/s, bundle {bundle}"
    show(LineConfig(bundle=bundle, cameras=(camera,)), title, rendered_as)


def show(line: LineConfig, title: str, truth_of: Callable[[str], list[str]]) -> None:
    """Runs a line with its verdicts live in the terminal, and a summary at the end.

    Args:
        line: The line.
        title: Stands above the verdicts.
        truth_of: What a frame's parts really are, by its `part_id`: one word for each of its boxes.
    """
    console = Console()
    display = LiveDisplay(console, title, truth_of)
    try:
        service = Service(line, [display])
        display.ledger = service.pipeline.ledger
        with stop_on_signals(service):
            accounts = service.run()
    finally:
        display.close()
    console.print(account_table(accounts))
    console.print(display.summary())
    console.print(f"engine {service.engine.identity}; {display.latency_line()}", highlight=False)


def rendered_as(part_id: str) -> list[str]:
    """What the conveyor's parts were rendered as: "17 18:scratch" → ["good", "scratch"]."""
    return [part.partition(":")[2] or "good" for part in part_id.split()]
