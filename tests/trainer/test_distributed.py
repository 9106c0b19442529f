"""Two gloo processes on the CPU against one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from algan_stream.errors import ConfigError, PluginError
from algan_trainer import distributed
from algan_trainer.checkpoint import read_checkpoint
from algan_trainer.config import Config, override
from algan_trainer.distributed import FabricTeam, Team, open_team
from algan_trainer.run import LAST, run
from algan_trainer.session import Request

#: Of any weight, loss or moment after three epochs: float32 sums in another order, which Adam with β₁ = 0
#: takes up to a full step where a gradient is next to nothing. Seen: 2e-6.
CLOSE = 1e-4
TIMEOUT_S = 120.0
TINY = ["--size", "32", "--width", "4", "--batch-size", "4", "--precision", "fp32", "--threads", "1"]

needs_fabric = pytest.mark.skipif(
    not distributed.fabric_is_installed(), reason="lightning-fabric is not installed"
)


def command(data: Path, out: Path, *options: str) -> list[str]:
    start = "from algan_stream.cli import main; main()"
    return [sys.executable, "-c", start, "train", str(data), "--out", str(out), *TINY, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "GOMP_SPINCOUNT": "0", "CUDA_VISIBLE_DEVICES": ""}


def checkpoint_of(out: Path) -> tuple[dict[str, np.ndarray], dict]:
    return read_checkpoint(out.with_name(out.name + ".training") / LAST)


def curve(facts: dict) -> list[tuple[float, float]]:
    return [(row["loss_d"], row["loss_g"]) for row in facts["journal"]["curve"]]


@needs_fabric
@pytest.mark.parametrize("norm", ["spectral", "batch"])
def test_two_processes_train_what_one_does(
    tiny: Config, good_folder: Path, tmp_path: Path, norm: str
) -> None:
    (tmp_path / "norm.toml").write_text(f'[network]\nnorm = "{norm}"\n')
    alone = Request(good_folder, tmp_path / "1", tmp_path / "1.training", threads=1, device="cpu")
    run(override(tiny, {"epochs": 3, "network.latent_dim": 100, "network.norm": norm}), {}, alone)
    options = ("--epochs", "3", "--devices", "2", "--config", str(tmp_path / "norm.toml"))
    done = subprocess.run(
        command(good_folder, tmp_path / "2", *options),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "2")]  # one bundle, said once
    assert "Warning" not in done.stderr
    (one, facts_of_one), (two, facts_of_two) = (checkpoint_of(tmp_path / count) for count in ("1", "2"))
    assert one.keys() == two.keys()
    assert any("running_var" in name for name in one)  # batch norm saw the whole batch in both
    for name, array in one.items():
        assert np.allclose(array, two[name], rtol=CLOSE, atol=CLOSE), name
    assert np.array_equal(one["rng"], two["rng"])
    assert np.allclose(curve(facts_of_one), curve(facts_of_two), rtol=CLOSE)


@needs_fabric
def test_sigterm_leaves_a_checkpoint_that_one_process_can_take_up(good_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    started = command(good_folder, out, "--epochs", "100000", "--devices", "2")
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, env=environment())
    last = out.with_name("b.training") / LAST
    deadline = time.monotonic() + TIMEOUT_S
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, said
    assert "--resume" in said
    epoch = read_checkpoint(last)[1]["epoch"]
    request = Request(good_folder, out, last.parent, resume=True, threads=1)
    assert run(None, {"epochs": epoch + 1}, request).manifest.provenance["epochs"] == epoch + 1


def two_processes(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Runs `body` in two processes that know `team`; AlganErrors are printed as the command would."""
    script = tmp_path / "script.py"
    lines = ["import sys", "import torch", "from algan_stream.errors import AlganError"]
    lines += ["from algan_trainer.distributed import open_team", "try:"]
    lines += ["    with open_team(torch.device('cpu'), 2) as team:"]
    lines += [f"        {line}" for line in body.splitlines()]
    lines += ["except AlganError as error:", "    sys.exit(f'{type(error).__name__}: {error}')"]
    script.write_text("\n".join(lines) + "\n")
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(),
        check=False,
    )


@needs_fabric
def test_an_error_in_one_process_stops_all_and_is_told(tmp_path: Path) -> None:
    done = two_processes(
        tmp_path, "if team.rank == 1:\n    raise ValueError('no such luck')\nteam.mean(torch.ones(2))"
    )
    assert done.returncode != 0
    assert "training process 1 ended with exit code 1" in done.stderr
    assert "no such luck" in done.stderr


@needs_fabric
def test_divergence_is_seen_by_all(tmp_path: Path) -> None:
    """Only one process's share of the batch holds the bad image; each says so by itself."""
    body = f"""
from algan_trainer.algan import DivergedError, new_state, train
from algan_trainer.config import Config, override
small = dict(epochs=1, batch_size=2, precision="fp32", average_decay=0.0)
small |= {{"network.size_px": 32, "network.width": 4, "pseudo.weight": 0.0}}
images = torch.rand(2, 5, 32, 32)
state = new_state(override(Config(), small), images)
images[1] = float("nan")
try:
    list(train(state, images, team))
except DivergedError as error:
    open({str(tmp_path)!r} + f"/seen-{{team.rank}}", "w").write(str(error))
    team.any(True)
    raise
"""
    done = two_processes(tmp_path, body.strip())
    assert done.stderr.startswith("DivergedError: the discriminator's loss is nan"), done.stderr
    assert all("diverged" in (tmp_path / f"seen-{rank}").read_text() for rank in (0, 1))


def test_batches_that_cannot_be_shared_evenly_are_refused(tiny: Config) -> None:
    team = Team()
    team.check(5)
    team.size = 3
    team.check(6)
    with pytest.raises(ConfigError, match=r"batch_size: 16 images .* by 3 processes; .* such as 18"):
        team.check(16)


def test_shares_make_up_the_batch() -> None:
    rows = torch.arange(12).reshape(6, 2)
    parts = []
    for rank in range(3):
        team = FabricTeam.__new__(FabricTeam)
        team.rank, team.size = rank, 3
        parts.append(team.share(rows))
    assert all(len(part) == 2 for part in parts)
    assert sorted(torch.cat(parts).flatten().tolist()) == list(range(12))


def test_alone_it_needs_no_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with open_team(torch.device("cpu"), 1) as team:
        assert (team.rank, team.size) == (0, 1)
    with (
        pytest.raises(PluginError, match=r"pip install 'algan-stream\[distributed\]'"),
        open_team(torch.device("cpu"), 2),
    ):
        pass


def test_compiling_takes_one_device() -> None:
    with pytest.raises(ConfigError, match="--compile"), open_team(torch.device("cpu"), 2, compiled=True):
        pass


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(PluginError, match="finds 1 GPUs"), open_team(torch.device("cuda"), 2):
        pass
