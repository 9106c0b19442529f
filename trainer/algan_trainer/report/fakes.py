"""What G makes, as D sees it (paper, Fig. 1). The only part of a report that needs torch."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from algan_stream.types import InputSpec
from algan_trainer.algan import State
from algan_trainer.latents import mixed_latents, normal_count
from algan_trainer.report.pictures import Images, to_rgb

#: The same latents in every report and every step of a log, so that pictures can be compared.
_SEED = 19
#: Most batches drawn for one sheet, where a batch holds few anomalous latents.
_MOST_BATCHES = 8


@dataclass(frozen=True)
class FakeImages:
    """Pictures (n, H, W, 3) by the latents they come from; n may be 0."""

    normal: Images
    anomalous: Images


def draw_fakes(state: State, spec: InputSpec, count: int) -> FakeImages:
    """Draws up to `count` fakes of each kind, and leaves `state` as it was.

    In batches mixed and normalised as in training (Algorithm 1, lines 3 and 9): G has batch norm, and other
    company would change its pictures.
    """
    config = state.config
    generator = copy.deepcopy(state.generator)  # a forward pass moves batch norm's running statistics
    device = next(generator.parameters()).device
    rng = torch.Generator().manual_seed(_SEED)
    z = mixed_latents(_MOST_BATCHES, config.batch_size, config.network.latent_dim, config.algan, rng)
    split = normal_count(config.batch_size, config.algan)
    normal: list[npt.NDArray[np.float32]] = []
    anomalous: list[npt.NDArray[np.float32]] = []
    with torch.no_grad():
        for batch in z:
            made = generator(batch.to(device)).float().cpu().numpy()
            normal += list(made[:split])
            anomalous += list(made[split:])
            if min(len(normal), len(anomalous)) >= count:
                break
    return FakeImages(_pictures(normal[:count], spec), _pictures(anomalous[:count], spec))


def _pictures(inputs: list[npt.NDArray[np.float32]], spec: InputSpec) -> Images:
    if not inputs:
        return np.empty((0, spec.height_px, spec.width_px, 3), np.uint8)
    return to_rgb(np.stack(inputs), spec)
