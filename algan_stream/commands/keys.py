"""`algan-stream keys`: keys for sockets that other hosts reach."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from algan_stream import curve

app = typer.Typer(no_args_is_help=True, help="Keys for sockets that other hosts reach; docs/security.md.")


@app.command("new")
def new(
    name: Annotated[
        Path,
        typer.Argument(
            help="Path of the new files without their endings, or a folder: then this host's name.",
            metavar="NAME|DIR",
        ),
    ],
) -> None:
    """Make a pair: NAME.key, to give away, and NAME.key_secret, which stays here. Overwrites nothing."""
    public, secret = curve.new_pair(name / socket.gethostname() if name.is_dir() else name)
    typer.echo(f"public key: {public} (give it to the other end)")
    typer.echo(f"secret key: {secret} (stays on this host; mode 0600)")


@app.command("allow")
def allow(
    public_key: Annotated[Path, typer.Argument(help="NAME.key of a client.", metavar="NAME.key")],
    folder: Annotated[Path, typer.Argument(help="The service's allow-list; made if it is missing.")],
) -> None:
    """Let a client connect, from now on and without a restart. To take it back, remove its file there."""
    typer.echo(f"allowed: {curve.allow(public_key, folder)}")
