from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from algan_stream.errors import ConfigError
from algan_trainer.config import Config, differences, override, read_config
from algan_trainer.precision import resolve

PAPER = Path(__file__).parents[2] / "trainer" / "configs" / "paper.toml"


def test_paper_configuration_is_the_papers() -> None:
    config = read_config(PAPER)
    assert (config.epochs, config.batch_size, config.validate_every) == (512, 16, 8)
    assert (config.network.size_px, config.network.latent_dim) == (256, 100)
    algan, adam = config.algan, config.adam
    assert (algan.sigma, algan.alpha, algan.xi, algan.n_z, algan.n_dis) == (4.0, 0.75, 0.75, 2, 2)
    assert (adam.lr_generator, adam.lr_discriminator, adam.beta1, adam.beta2) == (2e-4, 1e-4, 0.0, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "epoch: unknown key"),
        ("[algan]\nsgima = 3", r"algan\.sgima: unknown key"),
        ("[algan]\nsigma = 'x'", r"algan\.sigma: Expected `float`"),
        ("[algan]\nalpha = 1.5", r"algan\.alpha: expected 0 to 1, got 1\.5"),
        ("[network]\nsize_px = 100", r"network\.size_px: expected one of 32, 64, 128, 256, 512, got 100"),
        ("precision = 'fp8'", "precision: expected one of auto, fp32, bf16, got 'fp8'"),
        ("epochs = ", "not valid TOML"),
    ],
)
def test_mistakes_name_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"c.toml: .*{message}"):
        read_config(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        read_config(tmp_path / "none.toml")


def test_command_line_wins_over_file_and_is_checked_alike() -> None:
    config = override(Config(), {"network.width": 7, "epochs": None})
    assert (config.network.width, config.epochs) == (7, Config().epochs)
    with pytest.raises(ConfigError, match="precision"):
        override(Config(), {"precision": "fp8"})
    with pytest.raises(ConfigError, match=r"network\.size_px"):
        override(Config(), {"network.size_px": 96})


@pytest.mark.parametrize("kind", ["feature", "vector"])
def test_batch_norm_is_refused_where_it_would_do_nothing(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"network\.norm: expected spectral for network\.kind"):
        override(Config(), {"network.norm": "batch", "network.kind": kind})


def test_differences_name_every_key() -> None:
    old = msgspec.to_builtins(Config())
    new = msgspec.to_builtins(override(Config(), {"algan.xi": 0.5, "seed": 4}))
    assert differences(old, new) == ["algan.xi was 0.75, now 0.5", "seed was 0, now 4"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu amx_bf16 sse", "bf16"), ("fpu avx512_bf16", "bf16"), ("fpu avx512f", "fp32")],
)
def test_auto_precision_follows_the_processor(flags: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert resolve("auto", tmp_path / "cpuinfo") == expected
    assert resolve("fp32", tmp_path / "cpuinfo") == "fp32"
    assert resolve("auto", tmp_path / "none") == "fp32"
