"""`algan-stream health`: a probe for container health checks and scripts."""

from __future__ import annotations

from typing import Annotated

import typer

from algan_stream.probe import DEFAULT_URL, probe


def health(
    url: Annotated[str, typer.Argument(help="`/readyz` or `/healthz` of a running line.")] = DEFAULT_URL,
    timeout: Annotated[float, typer.Option(help="Longest wait for the answer, in seconds.", min=0.1)] = 5.0,
) -> None:
    """Ask a running line whether it is ready: prints one line; exit code 0, or 1 if it is not.

    The line needs a section `http` in its configuration. `python -m algan_stream.probe URL` does the same and
    starts faster.
    """
    well, line = probe(url, timeout)
    typer.echo(line)
    if not well:
        raise typer.Exit(1)
