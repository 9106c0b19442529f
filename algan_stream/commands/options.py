"""Options that several subcommands share."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from algan_stream.curve import ClientKeys
from algan_stream.errors import InputError

#: Characters in a line of a table that goes into a pipe or a file.
_PIPE_WIDTH = 160


class Precision(str, Enum):
    """Arithmetic of the engine, as far as processor and bundle have it."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


BundleArgument = Annotated[
    str, typer.Argument(help="Model bundle: a directory, or `demo`.", metavar="BUNDLE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic of the engine.")]
BoxesOption = Annotated[
    Path | None,
    typer.Option(help='JSON file {"image name or path": [[x_min, y_min, x_max, y_max], …]}, in pixels.'),
]

SecretKeyOption = Annotated[
    Path | None,
    typer.Option(help="NAME.key_secret of `algan-stream keys new`, for a service that asks for keys."),
]
ServerKeyOption = Annotated[Path | None, typer.Option(help="NAME.key of that service.")]


def console() -> Console:
    """Standard output, wide enough that no table is cut where it is no terminal but a pipe or a file."""
    free = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if free else _PIPE_WIDTH)


def engine_section(precision: Precision, **more: Any) -> dict[str, Any]:
    """The `engine` section of a line for these options."""
    return {"kind": "openvino", "precision": precision.value, **more}


def client_keys(secret_key: Path | None, server_key: Path | None) -> ClientKeys | None:
    """What these two options say.

    Raises:
        InputError: Only one is given.
    """
    if secret_key is None and server_key is None:
        return None
    if secret_key is None or server_key is None:
        raise InputError("--secret-key, --server-key: expected both or none")
    return ClientKeys(secret_key=secret_key, server_key=server_key)


def read_boxes(path: Path | None) -> dict[str, npt.NDArray[np.float32]] | None:
    """Reads a boxes file: (N, 4) float32 xyxy arrays by image.

    Raises:
        InputError: It cannot be read or does not have that form.
    """
    if path is None:
        return None
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[float, float, float, float]]])
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InputError(
            f'{path}: expected {{"image": [[x_min, y_min, x_max, y_max], …]}}: {error}'
        ) from error
    return {name: np.asarray(boxes, np.float32).reshape(-1, 4) for name, boxes in raw.items()}
