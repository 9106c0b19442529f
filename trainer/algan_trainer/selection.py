"""Which of a training's checkpoints becomes the model.

The paper keeps the one with the best AUROC on validation images of both kinds (section 4.2). A line that has
never seen a defect has only good ones; then held-out good images are set against pseudo-anomalies made of the
very same images. Both are looked at in every validation, so that the rules can be compared afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from algan_trainer.evaluate import auroc_of
from algan_trainer.networks import anomaly_scores
from algan_trainer.pseudo import pseudo_anomalies
from algan_trainer.sections import PseudoConfig

Rule = Literal["labels", "label_free", "last"]
#: Seed of the pseudo-anomalies that checkpoints are judged by: the same in every run, never trained on.
_PROXY_SEED = 20_220_210
#: Pseudo-anomalies made of each held-out good image: the measure shall waver less than the checkpoints do.
_PROXIES_PER_IMAGE = 2


@dataclass(frozen=True)
class Trial:
    """What every checkpoint is tried on.

    Attributes:
        inputs: (N, …) float32: validation images, good ones first or in any order.
        anomalous: (N,) which of them show a defect.
        proxies: (K, …) float32: pseudo-anomalies of the good ones.
    """

    inputs: Tensor
    anomalous: npt.NDArray[np.bool_]
    proxies: Tensor

    def measure(self, network: nn.Module) -> dict[Rule, float | None]:
        """The value of each rule for a network, higher is better; None where it cannot be had."""
        scores = anomaly_scores(network, self.inputs)
        good, proxies = scores[~self.anomalous], anomaly_scores(network, self.proxies)
        apart = auroc_of(np.concatenate((good, proxies)), np.arange(len(good) + len(proxies)) >= len(good))
        return {"labels": auroc_of(scores, self.anomalous), "label_free": apart}


def new_trial(inputs: Tensor, anomalous: npt.NDArray[np.bool_]) -> Trial:
    """Prepares what checkpoints are tried on; `inputs` are (N, C, H, W) images or (N, F) vectors."""
    rng = torch.Generator().manual_seed(_PROXY_SEED)
    good = inputs[torch.from_numpy(~anomalous)]
    if not len(good):
        return Trial(inputs, anomalous, good)
    repeated = good.repeat(_PROXIES_PER_IMAGE, *[1] * (good.dim() - 1))
    return Trial(inputs, anomalous, pseudo_anomalies(repeated, PseudoConfig(), rng))


def rule_for(
    wanted: Literal["auto", "labels", "label_free", "last"], anomalous: npt.NDArray[np.bool_]
) -> Rule:
    """Settles `auto`: the paper's rule where validation holds both kinds, else the label-free one.

    Without labels `labels` falls back to the last checkpoint, as the paper has no other; and without a good
    sample to judge by, so does every rule.
    """
    if anomalous.all():
        return "last"
    if wanted == "auto":
        return "labels" if anomalous.any() else "label_free"
    return "last" if wanted == "labels" and not anomalous.any() else wanted
