from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from algan_trainer.algan import new_state, train
from algan_trainer.config import Config, override
from algan_trainer.distributed import Team


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what PyTorch itself looks at
@pytest.mark.parametrize(
    ("dtype", "close", "norm"),
    [(torch.float32, 1e-4, "spectral"), (torch.bfloat16, 5e-3, "spectral"), (torch.float32, 1e-4, "batch")],
)
def test_compiled_networks_train_as_plain_ones(
    dtype: torch.dtype,
    close: float,
    norm: str,
    tiny: Config,
    images: Callable[[int], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traced as `torch.compile` does, without the minutes that generating code takes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config, data = override(tiny, {"epochs": 2, "network.norm": norm}), images(6).to(dtype)
    plain, compiled = new_state(config, data), new_state(config, data)
    names = list(compiled.discriminator.state_dict())
    expected = [state.losses for state in train(plain, data)]
    seen = [state.losses for state in train(compiled, data, Team(compiled=True))]
    assert np.allclose(expected, seen, rtol=close)
    assert list(compiled.discriminator.state_dict()) == names  # checkpoints and export know no difference
    for a, b in zip(plain.discriminator.buffers(), compiled.discriminator.buffers(), strict=True):
        assert torch.allclose(a, b, atol=close)  # as many power iterations
    parameters = 8 if norm == "spectral" else 11
    assert [p.requires_grad for p in compiled.discriminator.parameters()] == [True] * parameters
