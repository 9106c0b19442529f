from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.calibration import calibrate
from algan_stream.engines.gate import check_golden
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import CalibrationError
from algan_trainer import export
from algan_trainer.checkpoint import read_checkpoint, restore_discriminator
from algan_trainer.config import Config, override
from algan_trainer.evaluate import auroc_of
from algan_trainer.export import ExportError
from algan_trainer.networks import Discriminator, anomaly_scores, initialise
from algan_trainer.onnx_graph import write_onnx
from algan_trainer.report import read_split
from algan_trainer.run import run
from algan_trainer.session import Request


def train(config: Config, data: Path, out: Path, **changes: Any) -> Bundle:
    request = Request(data=data, out=out, work_dir=out.with_name("work"), threads=1, **changes)
    return run(config, {"epochs": 2}, request)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_onnx_reproduces_pytorch(size: int, tmp_path: Path) -> None:
    network = Discriminator(size, 4, 5)
    initialise(network, torch.Generator().manual_seed(0))
    write_onnx(network, (5, size, size), tmp_path / "d.onnx")
    inputs = torch.randn(3, 5, size, size, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):  # N is free
        logits = session.run(["logit"], {"input": inputs[:count].numpy()})[0]
        assert logits.shape == (count,)
        assert np.abs(logits + anomaly_scores(network, inputs[:count])).max() < 1e-5


def test_a_model_that_sees_no_colours_is_the_same_in_training_and_in_the_bundle(
    tiny: Config, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(14):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{i:02d}.png")
    bundle = train(override(tiny, {"data.grey": True}), folder, tmp_path / "b")  # parity is checked there
    engine = create(bundle, EngineConfig(threads=1))
    try:
        colours = rng.uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
        mixed = colours[:, ::-1]  # other colours of the same brightness
        pooled = [
            np.concatenate((c, c.max(1, keepdims=True), c.mean(1, keepdims=True)), 1)
            for c in (colours, mixed)
        ]
        first, second = (engine.infer(np.ascontiguousarray(p)) for p in pooled)
        assert first == pytest.approx(second, abs=1e-5)
        brighter = engine.infer(np.ascontiguousarray(pooled[0] * 0.5))
        assert np.abs(brighter - first).max() > 1e-5
    finally:
        engine.close()


def test_onnx_is_plain(tmp_path: Path) -> None:
    network = Discriminator(32, 4, 5)
    initialise(network, torch.Generator().manual_seed(0))
    write_onnx(network, (5, 32, 32), tmp_path / "d.onnx")
    model = onnx.load(tmp_path / "d.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "LeakyRelu"] * 3 + ["Conv", "Reshape"]
    assert model.opset_import[0].version == 17
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_bundle_is_complete(tiny: Config, mvtec: Path, tmp_path: Path) -> None:
    train(tiny, mvtec, tmp_path / "b", name="gear wheel")
    bundle = read_bundle(tmp_path / "b")
    manifest, golden = bundle.manifest, bundle.golden()
    assert manifest.name == "gear wheel"
    assert {name for name in manifest.files if not name.startswith("report/pictures/")} == {
        "discriminator.onnx",
        "explain.onnx",
        "golden.npz",
        "report/index.html",
        "report/report.json",
        "report/training_curve.csv",
        "report/scores.csv",
        "report/split.csv",
    }
    assert golden.images_rgb.shape == (len(golden.logits), 32, 32, 3)
    assert golden.images_rgb.dtype == np.uint8
    assert manifest.tolerance.keys() == {"fp32", "bf16", "fp16"}
    fp32, fp16, bf16 = (manifest.tolerance[name] for name in ("fp32", "fp16", "bf16"))
    assert 0 < fp32 <= fp16 <= bf16 < 1
    provenance = manifest.provenance
    assert provenance["data"]["counts"]["train"] == {"good": 12, "anomalous": 0}
    assert provenance["metrics"].keys() == {"validation_auroc", "test_auroc"}
    assert provenance["checkpoint"]["rule"] == "labels"
    assert provenance["checkpoint"]["best"].keys() == {"labels", "label_free"}
    assert "openvino fp32" in provenance["parity"]
    assert len(read_split(bundle.path / "report" / "split.csv")) == 30
    assert not list(tmp_path.glob(".b-new-*"))


def test_bundle_passes_its_gate_and_its_golden_images_stay_clear_of_the_threshold(
    tiny: Config, mvtec: Path, tmp_path: Path
) -> None:
    bundle = train(tiny, mvtec, tmp_path / "b")
    engine = create(bundle, EngineConfig(threads=1))
    try:
        assert check_golden(bundle, engine).max_input_difference == 0
    finally:
        engine.close()
    assert bundle.manifest.calibration is not None
    distance = np.abs(-bundle.golden().logits - bundle.manifest.calibration.threshold)
    assert distance.min() > 0


def test_calibration_is_by_images_not_trained_on(tiny: Config, good_folder: Path, tmp_path: Path) -> None:
    bundle = train(tiny, good_folder, tmp_path / "b")
    calibration = bundle.manifest.calibration
    assert calibration is not None
    assert len(calibration.good_scores) == 3
    assert calibration == calibrate(calibration.good_scores, 0.25)  # 1 / (n + 1): the least 3 images support
    rows = (bundle.path / "report" / "scores.csv").read_text().splitlines()[1:]
    assert all(",calibration,good," in row for row in rows)
    assert bundle.manifest.provenance["metrics"] == {"validation_auroc": None, "test_auroc": None}
    chosen = bundle.manifest.provenance["checkpoint"]
    assert chosen["rule"] == "label_free"
    assert chosen["best"].keys() == {"label_free"}  # no labels, so nothing else can be measured
    assert chosen["epoch"] == chosen["best"]["label_free"]["epoch"]


def test_the_last_checkpoint_is_exported_where_it_is_wanted(
    tiny: Config, mvtec: Path, tmp_path: Path
) -> None:
    bundle = train(override(tiny, {"selection": "last", "validate_every": 1}), mvtec, tmp_path / "b")
    chosen = bundle.manifest.provenance["checkpoint"]
    assert (chosen["rule"], chosen["epoch"]) == ("last", 2)
    # What the other rules would have chosen is tried on the test part; it changes nothing of the export.
    assert all(0.0 <= best["test_auroc"] <= 1.0 for best in chosen["best"].values())
    arrays, _ = read_checkpoint(tmp_path / "work" / "last.npz")
    kept = Discriminator(32, 4, 5)
    last = {name.replace("average.", "discriminator."): a for name, a in arrays.items() if "average." in name}
    restore_discriminator(kept, last)
    golden = bundle.golden()
    expected = -anomaly_scores(kept, torch.from_numpy(golden.inputs))
    assert golden.logits == pytest.approx(expected, abs=1e-6)


def test_unsupported_rate_is_refused_at_once(tiny: Config, good_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needs at least 99 good images"):
        train(tiny, good_folder, tmp_path / "b", false_reject_rate=0.01)
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob(".b-new-*"))
    assert not list((tmp_path / "work").glob("*.npz"))  # refused before training


def test_best_checkpoint_is_what_is_exported(tiny: Config, mvtec: Path, tmp_path: Path) -> None:
    bundle = train(tiny, mvtec, tmp_path / "b")
    with (bundle.path / "report" / "scores.csv").open() as file:
        rows = [line.strip().split(",") for line in file][1:]
    validation = [row for row in rows if row[1] == "validation"]
    by_file = auroc_of([float(r[3]) for r in validation], [r[2] != "good" for r in validation])
    assert by_file == pytest.approx(bundle.manifest.provenance["metrics"]["validation_auroc"])


def test_a_wrong_graph_is_not_exported(
    tiny: Config, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: Callable[..., Any] = export._openvino_scores
    monkeypatch.setattr(export, "_openvino_scores", lambda *arguments: scores(*arguments) + 0.5)
    with pytest.raises(ExportError, match=r"openvino fp32: logits differ from PyTorch's by 0\.5"):
        train(tiny, good_folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob(".b-new-*"))
