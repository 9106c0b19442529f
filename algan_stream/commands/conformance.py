"""`algan-stream conformance`: does a service keep the wire protocol?"""

from __future__ import annotations

from typing import Annotated

import typer

from algan_stream.commands.options import SecretKeyOption, ServerKeyOption, client_keys
from algan_stream.conformance import Lab


def conformance(
    endpoint: Annotated[str, typer.Argument(help="Where the service's `zmq` source is bound.")],
    secret_key: SecretKeyOption = None,
    server_key: ServerKeyOption = None,
) -> None:
    """Check a running service against docs/protocol.md, with frames of the camera `conformance`.

    Ends with 0 only if every rule that could be tried holds, else with 7.
    """
    lab, failed, tried = Lab(endpoint, client_keys(secret_key, server_key)), 0, 0
    try:
        for verdict in lab.run():
            word = {True: "pass", False: "FAIL", None: "skip"}[verdict.holds]
            typer.echo(f"{word}  {verdict.rule}" + (f"\n      {verdict.why}" if verdict.why else ""))
            tried += verdict.holds is not None
            failed += verdict.holds is False
    finally:
        lab.close()
    typer.echo(f"{tried - failed} of {tried} rules hold")
    if failed:
        raise typer.Exit(7)
