"""ALGAN-feature on tables of vectors: data, standardisation, export, and the whole way in real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for processes.py

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.commands.calibrate import calibrate
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.errors import CalibrationError, ConfigError, InputError
from algan_trainer.config import Config, override
from algan_trainer.judge import judge
from algan_trainer.modality import default_config, open_modality
from algan_trainer.modality_vector import VectorModality, standardisation_of
from algan_trainer.networks import anomaly_scores, initialise
from algan_trainer.networks_vector import VectorDiscriminator
from algan_trainer.onnx_graph import write_vector_onnx
from algan_trainer.pseudo_vector import vector_pseudo_anomalies
from algan_trainer.run import TrainingInterruptedError, run
from algan_trainer.session import Request
from algan_trainer.vector_data import holds_vectors, list_vectors, read_vectors
from processes import Service, algan_stream

TINY = {
    "network.kind": "vector",
    "network.hidden": 16,
    "network.latent_dim": 4,
    "batch_size": 8,
    "epochs": 2,
}


def vectors(count: int, *, seed: int, anomalous: bool = False) -> np.ndarray:
    """(count, 6): five numbers that go together, far from 0, and a constant."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=(count, 1))
    parts = 5000 + size * np.array([[1, 2, -1, 0.5, 3]]) + rng.normal(0, 0.1, (count, 5))
    if anomalous:
        parts[:, 2] += 4.0
    return np.concatenate([parts, np.full((count, 1), 7.0)], axis=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    np.save(root / "good.npy", vectors(80, seed=1))
    np.save(root / "bent.npy", vectors(12, seed=2, anomalous=True))
    return root


@pytest.fixture
def config() -> Config:
    return override(Config(), TINY)


def train(config: Config | None, data: Path, out: Path, **changes: Any) -> Bundle:
    request = Request(data=data, out=out, work_dir=out.with_name("work"), threads=1, **changes)
    return run(config, {}, request)


# ---- data -----------------------------------------------------------------------------------------------


def _counts(root: Path, seed: int = 0) -> dict[str, tuple[int, int]]:
    dataset, _ = read_vectors(root, seed, 0.25)
    return {
        split: (sum(not s.anomalous for s in of), sum(s.anomalous for s in of))
        for split in ("train", "calibration", "validation", "test")
        if (of := dataset.of(split))
    }


def test_good_beside_anomalies_splits_as_mtd_does(folder: Path) -> None:
    assert _counts(folder) == {"train": (40, 0), "validation": (20, 6), "test": (20, 6)}
    dataset, found = read_vectors(folder, 0, 0.25)
    assert len({s.path for s in dataset.samples}) == 92
    assert dataset == read_vectors(folder, 0, 0.25)[0] != read_vectors(folder, 1, 0.25)[0]
    row = next(i for i, s in enumerate(found.samples) if s.path == "good.npy#7")
    assert np.array_equal(found.values[row], vectors(80, seed=1)[7].astype(np.float32))


def test_training_vectors_of_their_own(folder: Path) -> None:
    np.save(folder / "train.npy", vectors(30, seed=3))
    assert _counts(folder) == {"train": (30, 0), "validation": (40, 6), "test": (40, 6)}


def test_one_file_of_good_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "any.npy", vectors(20, seed=1))
    assert _counts(tmp_path / "any.npy") == {"train": (15, 0), "calibration": (5, 0)}
    np.save(tmp_path / "few.npy", vectors(3, seed=1))
    assert _counts(tmp_path / "few.npy") == {"train": (2, 0), "calibration": (1, 0)}


def test_a_table_that_says_all_itself(tmp_path: Path) -> None:
    rows = [("good", "train")] * 4 + [("good", "validation"), ("bent", "validation"), ("bent", "test")]
    lines = [f"{i},{i % 3},{label},{split}" for i, (label, split) in enumerate(rows)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,label,split", *lines]))
    assert _counts(tmp_path / "t.csv") == {"train": (4, 0), "validation": (1, 1), "test": (0, 1)}
    found = list_vectors(tmp_path / "t.csv")
    assert found.names == ("x", "y")
    assert found.samples[5].kind == "bent"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.npy": vectors(2, seed=0)}, "expected at least 3 good vectors, .* got 2"),
        ({"a.npy": vectors(1, seed=0)}, "expected at least 3 good vectors, .* got 1"),
        ({"a.npy": np.zeros((0, 3))}, "holds no rows"),
        (
            {"a.npy": np.full((5, 2), [1.0, np.nan])},
            r"row 0, column 1: expected a finite number, got nan \(5 of 5",
        ),
        (
            {"good.npy": np.zeros((5, 2)), "bad.npy": np.zeros((5, 3))},
            "expected 3 features as in bad.npy, got 2",
        ),
        ({"good.csv": "a,b\n1,2\n", "bad.csv": "b,a\n1,2\n"}, "named or ordered otherwise"),
        (
            {"test.npy": np.ones((5, 2)), "train.npy": np.ones((5, 2))},
            "row 0: label: expected `good` or a kind",
        ),
        ({"a.csv": "x,label\n1,good\n2,\n"}, "row 1: label: expected `good` or a kind of anomaly, got none"),
        ({"a.csv": "x,label\n1,0\n2,1\n"}, "expected `good` for good vectors, got only 0, 1"),
        ({"a.csv": "x,split\n1,train\n2,later\n"}, "row 1: split: expected train, .* got 'later'"),
        (
            {"a.csv": "x,label,split\n1,good,train\n2,bent,train\n"},
            "a.csv#1 is `bent` but listed for training",
        ),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    for name, content in files.items():
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
        else:
            np.save(tmp_path / name, content)
    root = tmp_path if len(files) > 1 else tmp_path / next(iter(files))
    with pytest.raises(InputError, match=message):
        read_vectors(root, 0, 0.2)


def test_tables_are_told_from_images(folder: Path, good_folder: Path, tmp_path: Path) -> None:
    assert holds_vectors(folder)
    assert holds_vectors(folder / "good.npy")
    assert not holds_vectors(good_folder)
    (tmp_path / "manifest.csv").write_text("path,kind\na.png,good\n")
    assert not holds_vectors(tmp_path / "manifest.csv")
    assert default_config(folder).network.kind == "vector"
    assert default_config(good_folder) == Config()
    with pytest.raises(ConfigError, match=r'set network\.kind = "vector"'):
        open_modality(folder, Config())
    with pytest.raises(InputError, match="holds no table"):
        open_modality(good_folder, override(Config(), {"network.kind": "vector"}))


# ---- standardisation and graph --------------------------------------------------------------------------


def test_standardisation_and_its_rule_for_constants() -> None:
    good = vectors(50, seed=1).astype(np.float32)
    good = np.concatenate([good, np.zeros((50, 1), np.float32)], axis=1)
    standardise = standardisation_of(good)
    assert standardise.constant.tolist() == [False] * 5 + [True, True]
    inside = standardise(good)
    assert np.abs(inside[:, :5].mean(axis=0)).max() < 1e-2
    assert np.abs(inside[:, :5].std(axis=0) - 1).max() < 1e-2
    assert (inside[:, 5:] == 0).all()
    changed = good[:1].copy()
    changed[0, 5:] = [14.0, 1.0]
    assert standardise(changed)[0, 5:].tolist() == [1.0, 1.0]  # by its own size; by 1 where it was 0


def test_values_that_only_rounding_moves_are_constant() -> None:
    good = np.full((10, 1), 1e6, np.float32) + np.linspace(0, 0.0625, 10, dtype=np.float32)[:, None]
    assert standardisation_of(good).constant.all()
    assert not standardisation_of(good * np.linspace(1, 1.001, 10, dtype=np.float32)[:, None]).constant.any()


def test_onnx_takes_raw_vectors_and_reproduces_pytorch(tmp_path: Path) -> None:
    network = VectorDiscriminator(6, 16)
    initialise(network, torch.Generator().manual_seed(0))
    raw = vectors(9, seed=4).astype(np.float32)
    standardise = standardisation_of(vectors(50, seed=1).astype(np.float32))
    write_vector_onnx(network, standardise.mean, standardise.scale, tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    expected = -anomaly_scores(network, torch.from_numpy(standardise(raw)))
    for count in (1, 9):
        logits = session.run(["logit"], {"input": raw[:count]})[0]
        assert logits.shape == (count,)
        assert np.abs(logits - expected[:count]).max() < 1e-5


def test_pseudo_anomalies_change_some_features_of_each_vector() -> None:
    rng = torch.Generator().manual_seed(0)
    good = torch.randn(200, 30, generator=rng)
    made = vector_pseudo_anomalies(good, torch.Generator().manual_seed(1))
    changed = (made != good).sum(1)
    assert made.shape == good.shape
    assert made.isfinite().all()
    assert (changed >= 1).float().mean() > 0.98  # a feature may be dealt its own value
    assert changed.float().min() < 4
    assert changed.float().max() > 25
    assert torch.equal(made, vector_pseudo_anomalies(good, torch.Generator().manual_seed(1)))
    assert vector_pseudo_anomalies(good[:1, :1], rng).shape == (1, 1)


# ---- training -------------------------------------------------------------------------------------------


def test_bundle_is_complete(config: Config, folder: Path, tmp_path: Path) -> None:
    bundle = train(config, folder, tmp_path / "b")
    manifest, golden = bundle.manifest, bundle.golden()
    assert manifest.model_kind == "algan-vector"
    assert manifest.spec.shape == (6,)
    assert manifest.tolerance.keys() == {"fp32"}
    assert golden.images_rgb is None
    assert golden.inputs.mean() > 1000  # raw, not standardised
    assert manifest.provenance["data"]["constant_features"] == 1
    assert manifest.provenance["data"]["counts"]["train"] == {"good": 40, "anomalous": 0}
    assert manifest.calibration is not None
    assert len(manifest.calibration.good_scores) == 20


def test_training_tells_vectors_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    config = override(default_config(folder), {"network.hidden": 32, "epochs": 60, "batch_size": 8})
    bundle = train(config, folder, tmp_path / "b")
    assert bundle.manifest.provenance["metrics"]["test_auroc"] > 0.9


def test_resumed_training_is_bitwise_the_same(config: Config, folder: Path, tmp_path: Path) -> None:
    config = override(config, {"epochs": 3})
    straight = train(config, folder, tmp_path / "one" / "b")
    with pytest.raises(TrainingInterruptedError):
        train(config, folder, tmp_path / "two" / "b", stop_after_epochs=1)
    halves = train(None, folder, tmp_path / "two" / "b", resume=True)  # the configuration is the checkpoint's
    assert straight.model_sha256 == halves.model_sha256


def test_options_that_say_nothing_about_vectors_are_refused(folder: Path, tmp_path: Path) -> None:
    request = Request(data=folder, out=tmp_path / "b", work_dir=tmp_path / "work", threads=1)
    with pytest.raises(ConfigError, match=r"network\.size_px: only for images, but the data are vectors"):
        run(None, {"network.size_px": 64, "network.width": None}, request)


def test_auto_precision_is_fp32(config: Config, folder: Path, tmp_path: Path) -> None:
    bundle = train(config, folder, tmp_path / "b")
    assert bundle.manifest.provenance["config"]["precision"] == "fp32"
    modality = open_modality(folder, config)
    assert isinstance(modality, VectorModality)


def test_evaluate_knows_its_vectors_again(config: Config, folder: Path, tmp_path: Path) -> None:
    bundle = train(config, folder, tmp_path / "b")
    result = judge(bundle, folder, None, EngineConfig(threads=1))
    assert (result["n_normal"], result["n_anomalous"]) == (20, 6)  # the test split
    assert (result["left_out_trained_on"], result["left_out_held_out"]) == (40, 26)
    everything = judge(bundle, folder, "all", EngineConfig(threads=1))
    assert len(everything["scores"]) == 92
    np.save(tmp_path / "copy.npy", vectors(80, seed=1)[::-1])  # other rows, another file
    assert judge(bundle, tmp_path / "copy.npy", None, EngineConfig(threads=1))["n_normal"] == 20


def test_calibration_on_training_vectors_is_refused(config: Config, folder: Path, tmp_path: Path) -> None:
    bundle = train(config, folder, tmp_path / "b")
    with pytest.raises(
        CalibrationError, match=r"40 of 80 vectors were trained on, .*good\.npy row \d+ for one"
    ):
        calibrate(str(bundle.path), folder / "good.npy", false_reject_rate=0.05)
    np.save(tmp_path / "fresh.npy", vectors(40, seed=9))
    calibrate(str(bundle.path), tmp_path / "fresh.npy", false_reject_rate=0.05)
    again = read_bundle(bundle.path).manifest.calibration
    assert again is not None
    assert len(again.good_scores) == 40


def test_trained_streamed_and_scored_in_processes(folder: Path, tmp_path: Path) -> None:
    done = algan_stream(
        "train", folder, "--out", tmp_path / "b", "--epochs", 1, "--batch-size", 8, "--threads", 1
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "run").mkdir()
    with Service(tmp_path / "run", tmp_path / "b") as service:
        sent = algan_stream("send", folder / "bent.npy", "--to", service.endpoint, "--fps", 200, "--json")
        assert sent.returncode == 0, sent.stderr
        assert service.stop() == 0, service.errors
    assert service.frames() == {**service.frames(), "received": 12, "scored": 12, "in_flight": 0}
    offline = algan_stream("score", tmp_path / "b", folder / "bent.npy", "--jsonl")
    scores = {line["row"]: line["score"] for line in map(json.loads, offline.stdout.splitlines())}
    live = {int(v["part_id"]): v["boxes"][0]["score"] for v in service.verdicts()}
    assert live == pytest.approx(scores, abs=1e-5)
    assert len(set(scores.values())) == 12
