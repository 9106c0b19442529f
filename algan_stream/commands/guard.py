"""`algan-stream guard`: learns what a camera's good frames look like, and tries it out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from algan_stream.bundle import read_bundle
from algan_stream.commands.options import JsonOption, console
from algan_stream.guard.config import GuardConfig
from algan_stream.guard.frames import open_frames
from algan_stream.guard.guard import REASON, Guard
from algan_stream.guard.learn import learn as learn_profile
from algan_stream.guard.profile import LEARNED, Profile, write_profile

app = typer.Typer(help="Find camera faults: learn what good frames look like.", no_args_is_help=True)

_Frames = Annotated[
    Path,
    typer.Argument(
        metavar="FRAMES", help="Folder of images, a video, or a line's .yaml, whose camera is asked."
    ),
]
_Camera = Annotated[str, typer.Option(help="Which camera of the line.")]
_Most = Annotated[int, typer.Option("--frames", help="Frames taken from a line's camera.", min=1)]
_Bundle = Annotated[
    str, typer.Option(help="Bundle whose white level 16-bit image files are read with; a line has its own.")
]


@app.callback()
def group() -> None:
    """Find camera faults: learn what good frames look like."""


@app.command()
def learn(
    frames: _Frames,
    out: Annotated[Path, typer.Option(help="The profile to write, e.g. press.guard.json.")],
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good frames that may be called faulty, e.g. 0.01.")
    ] = 0.01,
    sequence: Annotated[
        bool,
        typer.Option(help="The images follow each other as the camera gave them (a video always does)."),
    ] = False,
    frozen_frames: Annotated[
        int, typer.Option(help="Repetitions after which a picture is frozen, where that is learned.")
    ] = 10,
    camera: _Camera = "",
    most: _Most = 1000,
    bundle: _Bundle = "",
    try_on: Annotated[
        int, typer.Option(help="Good frames that faults are simulated on, to tell which it finds.", min=0)
    ] = 16,
    seed: Annotated[int, typer.Option(help="Of the draw which frames the view is learned from.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Learn a camera's profile from good frames, for `guard: {profile: FILE}` in a line."""
    recording = open_frames(frames, camera, most, _white_level(bundle))
    profile = learn_profile(
        ((frame.image, frame.pixel_format) for frame in recording.frames),
        false_alarm_rate,
        sequence=sequence or recording.sequence,
        frozen_frames=frozen_frames,
        try_on=try_on,
        seed=seed,
        white_level=recording.white_level,
    )
    write_profile(profile, out)
    if json_:
        left_out = ("mean", "variance", "energies", "weights", "places")
        shown = {n: getattr(profile, n) for n in profile.__struct_fields__ if n not in left_out}
        typer.echo(msgspec.json.encode(shown))
        return
    _show(profile, out)


@app.command()
def check(
    profile: Annotated[Path, typer.Argument(help="What `guard learn` wrote.")],
    frames: _Frames,
    camera: _Camera = "",
    most: _Most = 1000,
    bundle: _Bundle = "",
    json_: JsonOption = False,
) -> None:
    """Say which frames a profile calls faulty, as a line would."""
    guard, kinds, count = Guard(GuardConfig(profile=str(profile))), Counter[str](), 0
    for frame in open_frames(frames, camera, most, _white_level(bundle)).frames:
        guard.check(frame)
        count += 1
        kind = frame.fault.removeprefix(f"{REASON}:")
        kinds[kind] += bool(kind)
        if json_:
            typer.echo(
                msgspec.json.encode({"frame": frame.frame_id, "path": frame.part_id, "fault": kind or None})
            )
        elif kind:
            typer.echo(f"{frame.part_id or f'frame {frame.frame_id}'}: {kind}")
    if not json_:
        found = ", ".join(f"{number} {kind}" for kind, number in sorted((+kinds).items())) or "none faulty"
        typer.echo(f"{count} frames: {found}")


def _white_level(bundle: str) -> int | None:
    return read_bundle(bundle).manifest.image_spec.white_level if bundle else None


def _show(profile: Profile, out: Path) -> None:
    on = ", ".join(check for check in LEARNED if check in profile.limits)
    still = profile.still
    frozen = f", frozen after {still.frames} repetitions" if still else ""
    typer.echo(
        f"{out}: {on}{frozen}; of good frames at most {profile.false_alarm_rate:g} called faulty on average, "
        f"from {profile.reference_images} + {profile.calibration_images} of them"
    )
    for note in profile.notes:
        typer.echo(f"note: {note}")
    if not profile.seen:
        return
    table = Table("simulated on good frames", "found", title="What it finds")
    for row in profile.seen:
        table.add_row(f"{row.fault}, {row.severity}", f"{row.share:.0%}")
    console().print(table)
