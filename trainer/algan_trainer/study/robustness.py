"""Section 5.7: what a trained model says to anomalies of kinds that it has never seen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from algan_stream.bundle import Bundle
from algan_stream.calibration import calibrate
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import BundleError, InputError
from algan_trainer.checkpoint import read_checkpoint
from algan_trainer.config import Config
from algan_trainer.modality import open_modality
from algan_trainer.models import new_networks
from algan_trainer.networks import append_pooled
from algan_trainer.pseudo import pseudo_anomalies
from algan_trainer.sections import PseudoConfig

#: The share of good images that may be rejected, and the σ of the fakes that the paper tries.
REJECTS = 0.05
SIGMAS = (5.0, 6.0, 7.0, 8.0)
#: Images of each kind, at least; CutPaste images are made of all good test images in turn.
_COUNT = 256
#: Section 5.7: the patch's share of the image, and its longest shape.
_AREA, _ASPECT = (0.2, 0.3), 3.0
#: Colour jitter, which the paper does not specify: brightness (of −1..1), contrast and saturation.
_JITTER = 0.4
_SEED = 57


def measure_robustness(bundle: Bundle, checkpoint: Path, data: Path, config: Config) -> dict[str, float]:
    """Shares called anomalous by a bundle, as it would be deployed, of each kind in `designs.ROBUSTNESS`.

    The threshold is set for a false-reject rate of 5 % from the bundle's calibration scores, or for the least
    rate that these support.

    Args:
        bundle: From a training with `config` on `data`.
        checkpoint: Its last one, which holds G.
        data: The same folder.
        config: The same configuration.

    Raises:
        InputError: These are not images, or no good test image is there.
        BundleError: The bundle has no calibration.
    """
    if config.network.kind != "image":
        raise InputError(
            f"{data}: robustness needs images, to cut and paste in; got network.kind {config.network.kind!r}"
        )
    if bundle.manifest.calibration is None:
        raise BundleError(f"{bundle.path}: has no calibration")
    scores = bundle.manifest.calibration.good_scores
    rate = max(REJECTS, 1.0 / (len(scores) + 1))
    threshold = calibrate(scores, rate).threshold
    modality = open_modality(data, config)
    test = modality.dataset.of("test")
    good = torch.from_numpy(modality.load([s for s in test if not s.anomalous]))
    if not len(good):
        raise InputError(f"{data}: expected good test images, found none")
    kinds = _fakes(checkpoint, torch.from_numpy(modality.training_inputs()), config)
    rng = torch.Generator().manual_seed(_SEED)
    repeated = good.repeat(math.ceil(_COUNT / len(good)), 1, 1, 1)
    kinds["cutpaste_large"] = _pasted(repeated, rng)
    for kind in ("cutpaste", "perlin"):
        kinds[kind] = pseudo_anomalies(repeated, PseudoConfig(kinds=(kind,)), rng)
    kinds["good"] = good
    anomalous = [s for s in test if s.anomalous]
    if anomalous:
        kinds["anomalous"] = torch.from_numpy(modality.load(anomalous))
    shares = _shares(bundle, threshold, kinds)
    return {**shares, "rejects_asked": rate}


def _shares(bundle: Bundle, threshold: float, kinds: dict[str, Tensor]) -> dict[str, float]:
    engine = create(bundle, EngineConfig(threads=torch.get_num_threads()))
    try:
        scores = {kind: -engine.infer(np.ascontiguousarray(x.numpy())) for kind, x in kinds.items()}
    finally:
        engine.close()
    return {kind: float((of > threshold).mean()) for kind, of in scores.items()}


@torch.no_grad()
def _fakes(checkpoint: Path, training: Tensor, config: Config) -> dict[str, Tensor]:
    """Fakes of the final G: of normal latents, of the σ trained with, and of larger ones; (n, C, H, W)."""
    arrays, _ = read_checkpoint(checkpoint)
    generator, _ = new_networks(config, training)
    prefix = "generator."
    generator.load_state_dict(
        {name[len(prefix) :]: torch.from_numpy(a) for name, a in arrays.items() if name.startswith(prefix)}
    )
    # With a batch's own statistics, the first batch norm would divide a common σ out again.
    generator.eval()
    rng = torch.Generator().manual_seed(_SEED)
    z = torch.randn(_COUNT, config.network.latent_dim, generator=rng)
    sigmas = {"fakes_normal": 1.0, "fakes_trained_sigma": config.algan.sigma}
    sigmas |= {f"fakes_sigma_{sigma:g}": sigma for sigma in SIGMAS}
    return {
        name: torch.cat([generator(part) for part in torch.chunk(sigma * z, _COUNT // 32)]).float()
        for name, sigma in sigmas.items()
    }


def _pasted(images: Tensor, rng: torch.Generator) -> Tensor:
    """CutPaste as section 5.7 describes it: one large patch of the image, its colours jittered, elsewhere."""
    rgb = images[:, :3].clone()
    side = rgb.shape[-1]
    draw = torch.rand(len(rgb), 9, generator=rng).numpy().astype(np.float64)
    for image, u in zip(rgb, draw, strict=True):
        area = _AREA[0] + (_AREA[1] - _AREA[0]) * u[0]
        aspect = _ASPECT ** (2.0 * u[1] - 1.0)
        height, width = (max(1, round(side * math.sqrt(area * a))) for a in (aspect, 1.0 / aspect))
        (top, to_top), (left, to_left) = _places(u[2:4], side - height), _places(u[4:6], side - width)
        patch = image[:, top : top + height, left : left + width].clone()
        image[:, to_top : to_top + height, to_left : to_left + width] = _jittered(patch, u[6:9])
    return append_pooled(rgb) if images.shape[1] == 5 else rgb


def _places(u: npt.NDArray[np.float64], room: int) -> tuple[int, int]:
    return round(u[0] * room), round(u[1] * room)


def _jittered(patch: Tensor, u: npt.NDArray[np.float64]) -> Tensor:
    """Brightness, contrast and saturation changed; a grey patch stays grey."""
    brightness, contrast, saturation = (float(x) for x in _JITTER * (2.0 * u - 1.0))
    grey = patch.mean(0, keepdim=True)
    patch = grey + (patch - grey) * (1.0 + saturation)
    middle = patch.mean()
    return ((patch - middle) * (1.0 + contrast) + middle + brightness).clamp(-1.0, 1.0)
