from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from algan_stream.errors import PluginError
from algan_trainer import algan, planes
from algan_trainer.algan import new_state, train
from algan_trainer.config import Config, override
from algan_trainer.devices import choose_device
from algan_trainer.precision import resolve
from algan_trainer.run import run
from algan_trainer.session import Request

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is here")


def test_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@without_cuda
def test_auto_falls_back_to_the_cpu() -> None:
    assert choose_device("auto") == torch.device("cpu")


@without_cuda
def test_a_build_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(PluginError, match=r"PyTorch .* is built without CUDA; install .*--device cpu"):
        choose_device("cuda")


@without_cuda
def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(PluginError, match=r"built for CUDA 12\.8, but finds no GPU; .*nvidia-smi"):
        choose_device("cuda")


@without_cuda
def test_a_gpu_that_is_not_there_is_said_before_anything_is_read(tmp_path: Path, tiny: Config) -> None:
    request = Request(tmp_path / "absent", tmp_path / "b", tmp_path / "w", device="cuda")
    with pytest.raises(PluginError, match="--device cuda"):
        run(tiny, {}, request)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("in_hardware", "expected"), [(True, "bf16"), (False, "fp32")])
def test_precision_on_a_gpu(in_hardware: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: in_hardware)
    assert resolve("auto", device="cuda") == expected
    assert resolve("fp32", device="cuda") == "fp32"
    assert resolve("auto", device="cuda", convolutions=False) == "fp32"


@pytest.mark.parametrize("kind", ["image", "feature"])
@pytest.mark.parametrize("rotation", ["none", "any", "right_angles"])
def test_nothing_is_left_on_the_cpu(
    rotation: str, kind: str, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's `meta` device computes nothing, but refuses tensors of another device as CUDA does."""
    changes = {"network.kind": kind, "data.rotation": rotation, "pseudo.weight": 0.5, "epochs": 2}
    changes |= {"data.shift": 0.05, "data.brightness": 0.1, "average_decay": 0.9}
    samples = torch.empty((6, 5, 32, 32) if kind == "image" else (6, 12), device="meta")
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, fused: adam(*a, foreach=False))  # what needs values,
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: nullcontext())  # or knows real devices only
    monkeypatch.setattr(algan, "_finite", lambda losses, state: (0.0, 0.0))
    monkeypatch.setattr(planes, "painted_channels", lambda emits, images: 3)
    monkeypatch.setattr("algan_trainer.models.painted_channels", lambda emits, images: 3)
    state = new_state(override(tiny, changes), samples)
    assert sum(1 for _ in train(state, samples)) == 4
    assert {p.device.type for p in (*state.generator.parameters(), *state.scorer.parameters())} == {"meta"}
    assert {t.device.type for t in (state.z_d, state.z_g, state.buffer.images)} == {"meta"}
    assert state.order.device.type == "cpu"
