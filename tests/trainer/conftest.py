from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from algan_trainer.config import Config, override

#: What makes a training of a second or two.
TINY = {
    "network.size_px": 32,
    "network.width": 4,
    "network.latent_dim": 8,
    "batch_size": 4,
    "precision": "fp32",
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> Config:
    return override(Config(), TINY)


def write_images(folder: Path, count: int, *, seed: int, defect: bool = False, size: int = 40) -> None:
    """Smooth noisy greys as good parts; a dark square on them as a defect."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = rng.normal(128, 10, (size, size)).clip(0, 255).astype(np.uint8)
        if defect:
            image[5:20, 5:20] = 0
        Image.fromarray(image).save(folder / f"{i:03d}.png")


@pytest.fixture(name="write_images")
def _write_images() -> Callable[..., None]:
    return write_images


@pytest.fixture
def good_folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "good", 14, seed=1)
    return tmp_path / "good"


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    root = tmp_path / "mvtec"
    write_images(root / "train" / "good", 12, seed=1)
    write_images(root / "test" / "good", 8, seed=2)
    write_images(root / "test" / "hole", 6, seed=3, defect=True)
    write_images(root / "test" / "scratch", 4, seed=4, defect=True)
    write_images(root / "ground_truth" / "hole", 6, seed=5)
    return root


@pytest.fixture
def mtd(tmp_path: Path) -> Path:
    root = tmp_path / "mtd"
    rng = np.random.default_rng(7)
    for kind, count in (("MT_Free", 16), ("MT_Blowhole", 4), ("MT_Crack", 4)):
        folder = root / kind / "Imgs"
        folder.mkdir(parents=True)
        for i in range(count):
            image = Image.fromarray(rng.integers(90, 160, (30, 44), dtype=np.uint8))
            image.save(folder / f"{kind}_{i}.jpg")
            image.save(folder / f"{kind}_{i}.png")  # the mask: never to be taken for an image
    return root


@pytest.fixture
def images() -> Callable[[int], torch.Tensor]:
    """Makes (n, 5, 32, 32) images in −1..1."""

    def make(count: int) -> torch.Tensor:
        return torch.rand(count, 5, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1

    return make
