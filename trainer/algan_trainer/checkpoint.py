"""Checkpoints: the whole training state in one file, written atomically and without pickle.

The file is an `.npz` of plain arrays; one of them holds the JSON of everything that is no array.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from algan_stream.errors import AlganError
from algan_trainer.algan import State

Arrays = dict[str, npt.NDArray[Any]]
#: Name of the array that holds the JSON.
_FACTS = "facts.json"
_LOCK = ".lock"


class CheckpointError(AlganError):
    """A checkpoint is damaged, missing, or belongs to another training."""

    exit_code = 9


@contextmanager
def exclusive(work_dir: Path) -> Iterator[None]:
    """Keeps a second training out of the same folder; released by the system even after a kill.

    Raises:
        CheckpointError: Another process trains there, or the folder cannot be made.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{work_dir}: cannot be made: {error.strerror}") from error
    with (work_dir / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"{work_dir}: another training is running there; wait for it, or name another --work-dir"
            ) from error
        yield


def write_checkpoint(path: Path, arrays: Arrays, facts: dict[str, Any]) -> None:
    """Writes all at once: a crash leaves either the old file or the new one, never half a file.

    Raises:
        CheckpointError: It cannot be written (disk full); the old file is untouched.
    """
    members: dict[str, Any] = {_FACTS: np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays}
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                np.savez(file, allow_pickle=False, **members)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Reads what `write_checkpoint` wrote.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(arrays.pop(_FACTS).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {error}") from error


def capture(state: State) -> tuple[Arrays, dict[str, Any]]:
    """Copies everything that training changes into arrays and JSON facts."""
    arrays = {name: _array(tensor) for name, tensor in _tensors(state).items()}
    for name, adam in (("adam_g", state.adam_g), ("adam_d", state.adam_d)):
        for index, parameter in enumerate(_parameters(adam)):
            for key, value in adam.state[parameter].items():
                arrays[f"{name}.{index}.{key}"] = _array(value)
    arrays["rng"] = state.rng.get_state().numpy()
    facts = {
        "epoch": state.epoch,
        "batch": state.batch,
        "losses": list(state.losses),
        "filled": state.buffer.filled,
    }
    return arrays, facts


@torch.no_grad()
def restore(state: State, arrays: Arrays, facts: dict[str, Any]) -> None:
    """Puts what `capture` copied into a fresh state of the same configuration.

    Raises:
        CheckpointError: An array is missing or of another shape.
    """
    try:
        for name, tensor in _tensors(state).items():
            tensor.copy_(_fitting(arrays[name], tensor, name))
        for name, adam in (("adam_g", state.adam_g), ("adam_d", state.adam_d)):
            for index, parameter in enumerate(_parameters(adam)):
                moments = {
                    key: torch.empty_like(parameter).copy_(
                        _fitting(arrays[f"{name}.{index}.{key}"], parameter, name)
                    )
                    for key in ("exp_avg", "exp_avg_sq")
                    if f"{name}.{index}.{key}" in arrays
                }
                if moments:  # absent before the first step
                    # The fused optimiser counts on its own device.
                    step = torch.from_numpy(arrays[f"{name}.{index}.step"].copy()).to(parameter.device)
                    adam.state[parameter] = {"step": step, **moments}
        state.rng.set_state(torch.from_numpy(arrays["rng"].copy()))
    except KeyError as error:
        raise CheckpointError(f"the checkpoint lacks {error}; it was written by another version") from error
    state.epoch, state.batch = int(facts["epoch"]), int(facts["batch"])
    state.losses = (float(facts["losses"][0]), float(facts["losses"][1]))
    state.buffer.filled = int(facts["filled"])


def discriminator_arrays(network: nn.Module) -> Arrays:
    """Copies D's weights and singular vectors: what the best checkpoint keeps."""
    return {f"discriminator.{name}": _array(tensor) for name, tensor in network.state_dict().items()}


@torch.no_grad()
def restore_discriminator(network: nn.Module, arrays: Arrays) -> None:
    """Puts what `discriminator_arrays` copied, or a whole checkpoint's D, into a network."""
    for name, tensor in network.state_dict().items():
        tensor.copy_(_fitting(arrays[f"discriminator.{name}"], tensor, name))


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor that training changes, besides the optimisers' own; shares memory with the state."""
    networks = {"generator": state.generator, "discriminator": state.discriminator}
    if state.average is not None:
        networks["average"] = state.average
    tensors = {f"{of}.{name}": t for of, net in networks.items() for name, t in net.state_dict().items()}
    buffer = {"buffer.images": state.buffer.images, "buffer.weights": state.buffer.weights}
    return tensors | buffer | {"z_d": state.z_d, "z_g": state.z_g, "order": state.order}


def _parameters(adam: torch.optim.Adam) -> list[Tensor]:
    return [parameter for group in adam.param_groups for parameter in group["params"]]


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    """A copy as numpy; bfloat16, which numpy lacks, as float32, which holds it exactly."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), order="C")


def _fitting(array: npt.NDArray[Any], like: Tensor, name: str) -> Tensor:
    if array.shape != tuple(like.shape):
        raise CheckpointError(
            f"{name}: expected shape {tuple(like.shape)}, got {array.shape}; it belongs to another training"
        )
    return torch.from_numpy(array)
