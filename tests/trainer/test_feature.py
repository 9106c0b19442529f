from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from PIL import Image

from algan_stream.engines.gate import check_golden
from algan_stream.engines.graph import open_graph
from algan_stream.engines.openvino import Config as EngineConfig
from algan_stream.engines.openvino import create
from algan_stream.errors import InputError
from algan_trainer.backbone.file import BackboneError, backbone_hash, read_backbone
from algan_trainer.checkpoint import CheckpointError
from algan_trainer.config import Config, override
from algan_trainer.feature_cache import FeatureCache, cache_key
from algan_trainer.feature_extraction import Extractor
from algan_trainer.feature_graph import (
    Plan,
    make_plan,
    rotation_grids,
    write_feature_onnx,
    write_features_onnx,
)
from algan_trainer.judge import judge
from algan_trainer.modality import open_modality
from algan_trainer.modality_feature import FeatureModality
from algan_trainer.networks import initialise
from algan_trainer.networks_vector import VectorDiscriminator
from algan_trainer.run import TrainingInterruptedError, run
from algan_trainer.session import Request
from backbones import SIZE_PX, tiny_maps, tiny_model, write_tiny

#: A resize to 40, cut to 32, both layers.
WIDE = {"resize_px": 40, "layers": ("low", "last"), "pool": ("mean", "max", "std")}
#: OpenVINO and ONNX Runtime against PyTorch, for features of about 1.
SAME = 2e-5


def plan_of(folder: Path, opset: int = 17, **feature: Any) -> Plan:
    path = write_tiny(folder / "backbone.onnx", tiny_model(opset=opset))
    changes = {f"feature.{key}": value for key, value in feature.items()}
    return make_plan(read_backbone(path), override(Config(), changes).feature, 65535)


def inputs_of(plan: Plan, count: int) -> np.ndarray:
    """Smooth pictures: a rotation that is off by a pixel shows, rounding of the angles does not."""
    rng = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 6, 6, generator=rng) * 4 - 2
    side = plan.spec.height_px
    return F.interpolate(coarse, (side, side), mode="bicubic").contiguous().numpy()


def expected_features(plan: Plan, inputs: np.ndarray, rotations: int) -> np.ndarray:
    """The same by PyTorch's own rotation and pooling, (N, rotations, features)."""
    first = (plan.spec.height_px - SIZE_PX) // 2
    images = torch.from_numpy(inputs)[:, :, first : first + SIZE_PX, first : first + SIZE_PX]
    found = []
    for k in range(rotations):
        angle = 2 * math.pi * k / rotations
        cos, sin = math.cos(angle), math.sin(angle)
        theta = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(images), 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        turned = F.grid_sample(images, grid, "bilinear", plan.fill, align_corners=False)
        maps, parts = tiny_maps(turned), []
        for layer in plan.layers:
            by_name = {
                "mean": maps[layer].mean((2, 3)),
                "max": maps[layer].amax((2, 3)),
                "std": maps[layer].std((2, 3), correction=0),
            }
            parts += [by_name[pool] for pool in plan.pool]
        found.append(torch.cat(parts, 1))
    return torch.stack(found, 1).numpy()


def by_openvino(path: Path, plan: Plan, inputs: np.ndarray, rotations: int) -> np.ndarray:
    shape = {"features": (rotations, plan.features)}
    graph = open_graph(path, plan.spec.shape_chw, shape, {"kind": "openvino", "threads": 1})
    try:
        return graph.infer(inputs)["features"]
    finally:
        graph.close()


def by_onnxruntime(path: Path, output: str, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([output], {"input": inputs})[0]
    return found


@pytest.mark.parametrize("fill", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("rotations", [1, 4, 5])
def test_features_are_pytorchs_in_both_runtimes(rotations: int, fill: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **WIDE, rotation_fill=fill)
    write_features_onnx(plan, rotations, tmp_path / "f.onnx")
    inputs = inputs_of(plan, 3)
    expected = expected_features(plan, inputs, rotations)
    assert expected.shape == (3, rotations, (4 + 6) * 3)
    assert np.abs(by_openvino(tmp_path / "f.onnx", plan, inputs, rotations) - expected).max() < SAME
    for count in (1, 3):  # N is free
        found = by_onnxruntime(tmp_path / "f.onnx", "features", inputs[:count])
        assert np.abs(found - expected[:count]).max() < SAME
    if rotations > 1:
        assert np.abs(expected[:, 1] - expected[:, 0]).max() > 0.01  # the rotations do something


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_every_opset_gives_the_same(opset: int, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, opset, **WIDE)
    network, mean, scale = head_of(plan)
    write_features_onnx(plan, 3, tmp_path / "f.onnx")
    write_feature_onnx(plan, 3, network, mean, scale, tmp_path / "l.onnx")
    inputs = inputs_of(plan, 2)
    expected = expected_features(plan, inputs, 3)
    assert np.abs(by_openvino(tmp_path / "f.onnx", plan, inputs, 3) - expected).max() < SAME
    logits = network(torch.from_numpy((expected - mean) / scale)).detach().numpy()
    assert np.abs(by_onnxruntime(tmp_path / "l.onnx", "logit", inputs) - logits).max() < SAME


def test_a_quarter_turn_is_counter_clockwise_and_exact() -> None:
    picture = np.arange(16, dtype=np.float32).reshape(4, 4)
    grids = torch.from_numpy(rotation_grids(4, 4))
    images = torch.from_numpy(picture).expand(4, 1, 4, 4)
    turned = F.grid_sample(images, grids, align_corners=False)[:, 0].numpy()
    for quarter in range(4):
        assert np.abs(turned[quarter] - np.rot90(picture, quarter)).max() < 1e-4


def head_of(plan: Plan) -> tuple[VectorDiscriminator, np.ndarray, np.ndarray]:
    network = VectorDiscriminator(plan.features, 8)
    initialise(network, torch.Generator().manual_seed(2))
    rng = np.random.default_rng(4)
    mean = rng.normal(0, 1, plan.features).astype(np.float32)
    return network.eval(), mean, rng.uniform(0.5, 2, plan.features).astype(np.float32)


@pytest.mark.parametrize("rotations", [1, 6])
def test_the_merged_graph_is_the_composed_computation(rotations: int, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **WIDE)
    network, mean, scale = head_of(plan)
    write_feature_onnx(plan, rotations, network, mean, scale, tmp_path / "l.onnx")
    inputs = inputs_of(plan, 3)
    with torch.no_grad():
        vectors = torch.from_numpy((expected_features(plan, inputs, rotations) - mean) / scale)
        each = [network(vectors[:, k]) for k in range(rotations)]
        assert torch.equal(network(vectors), torch.stack(each).mean(0)) or torch.allclose(
            network(vectors), torch.stack(each).mean(0), atol=1e-6
        )
    expected = torch.stack(each).mean(0).numpy()  # mean over rotations of D's logits
    assert np.abs(by_onnxruntime(tmp_path / "l.onnx", "logit", inputs) - expected).max() < SAME
    graph = open_graph(tmp_path / "l.onnx", plan.spec.shape_chw, {"logit": ()})
    assert np.abs(graph.infer(inputs)["logit"] - expected).max() < SAME
    graph.close()


@pytest.mark.parametrize("rotations", [1, 3])
def test_a_score_does_not_depend_on_the_rest_of_its_batch(rotations: int, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **WIDE)
    network = VectorDiscriminator(plan.features, 512)  # as wide as in practice
    initialise(network, torch.Generator().manual_seed(2))
    mean, scale = np.zeros(plan.features, np.float32), np.full(plan.features, 0.01, np.float32)
    write_feature_onnx(plan, rotations, network.eval(), mean, scale, tmp_path / "l.onnx")
    inputs = inputs_of(plan, 8)
    section = {"kind": "openvino", "threads": 1, "max_batch": 8}
    graph = open_graph(tmp_path / "l.onnx", plan.spec.shape_chw, {"logit": ()}, section)
    together = graph.infer(inputs)["logit"]
    alone = np.concatenate([graph.infer(inputs[i : i + 1])["logit"] for i in range(8)])
    graph.close()
    assert np.abs(together).max() > 1.0
    assert np.array_equal(together, alone)


def test_what_no_layer_needs_is_left_out(tmp_path: Path) -> None:
    write_features_onnx(plan_of(tmp_path, layers=("low",)), 1, tmp_path / "low.onnx")
    model = onnx.load(tmp_path / "low.onnx")
    assert [node.op_type for node in model.graph.node].count("Conv") == 1
    assert not any(t.name.endswith("w2") for t in model.graph.initializer)


class Counted:
    """Loads inputs, and counts them."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.inputs, self.asked = inputs_of(plan, count), 0

    def __call__(self, paths: list[str]) -> np.ndarray:
        self.asked += len(paths)
        return self.inputs[[int(path) for path in paths]]


def extract(plan: Plan, folder: Path, rotations: int = 3) -> tuple[np.ndarray, int, list[str]]:
    """Features of 5 images, how many were computed, and what was noted."""
    notes: list[str] = []
    load = Counted(plan, 5)
    paths = [str(i) for i in range(5)]
    extractor = Extractor(plan, FeatureCache(folder, notes.append), 1)
    hashes = {path: f"{int(path):064x}" for path in paths}
    features = extractor.of_files(paths, hashes, load, rotations)
    extractor.close()
    return features, load.asked, notes


def test_known_features_are_not_computed_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **WIDE)
    first, asked, _ = extract(plan, tmp_path / "cache")
    assert asked == 5
    again, asked, notes = extract(plan, tmp_path / "cache")
    assert asked == 0
    assert np.array_equal(first, again)
    assert not notes
    one = plan_of(tmp_path, **(WIDE | {"layers": ("last",)}))  # a layer of them is known as well
    of_one, asked, _ = extract(one, tmp_path / "cache")
    assert asked == 0
    assert np.array_equal(of_one, first[:, :, 12:])
    assert not list(tmp_path.rglob(".new-*"))


def test_other_plans_have_other_entries(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **WIDE)
    keys = {cache_key(plan, "low", 3), cache_key(plan, "high", 3), cache_key(plan, "low", 4)}
    for change in ({"resize_px": 41}, {"pool": ("mean",)}, {"mean": (0.0,) * 3}, {"rotation_fill": "zeros"}):
        keys.add(cache_key(plan_of(tmp_path, **(WIDE | change)), "low", 3))
    other = tiny_model()
    other.doc_string = "another file"
    backbone = read_backbone(write_tiny(tmp_path / "other.onnx", other))
    config = override(Config(), {f"feature.{key}": value for key, value in WIDE.items()})
    keys.add(cache_key(make_plan(backbone, config.feature, 65535), "low", 3))
    keys.add(cache_key(make_plan(backbone, config.feature, 4095), "low", 3))
    assert len(keys) == 9


@pytest.mark.parametrize("damage", ["torn", "flipped", "other shape", "not finite"])
def test_a_damaged_entry_is_named_and_computed_again(damage: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **WIDE)
    first, _, _ = extract(plan, tmp_path / "cache")
    entry = tmp_path / "cache" / cache_key(plan, "high", 3) / f"{2:064x}.npz"
    data = bytearray(entry.read_bytes())
    if damage == "torn":
        entry.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 0x40
        entry.write_bytes(data)
    else:
        shape = (3, 17) if damage == "other shape" else (3, 18)
        np.savez(entry, features=np.full(shape, np.nan if damage == "not finite" else 1.0, np.float32))
    again, asked, notes = extract(plan, tmp_path / "cache")
    assert asked == 1
    assert len(notes) == 1
    assert str(entry) in notes[0]
    assert np.array_equal(first, again)
    assert extract(plan, tmp_path / "cache")[1:] == (0, [])  # mended


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="name another --feature-cache"):
        extract(plan_of(tmp_path), tmp_path / "cache")


@pytest.fixture
def featured(tiny: Config) -> Config:
    changes = {
        "network.kind": "feature",
        "network.hidden": 16,
        "epochs": 4,
        "validate_every": 2,
        "feature.layers": ("low", "last"),
        "feature.resize_px": 40,
        "feature.train_rotations": 3,
        "feature.test_rotations": 2,
    }
    return override(tiny, changes)


@pytest.fixture
def coloured(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    """MVTec's layout, small."""
    root = tmp_path / "data"
    write_images(root / "train" / "good", 10, seed=1)
    write_images(root / "test" / "good", 6, seed=2)
    write_images(root / "test" / "hole", 6, seed=3, defect=True)
    return root


def request_for(data: Path, out: Path, backbone: Path | None, **changes: Any) -> Request:
    work = out.with_name(out.name + ".training")
    return Request(data=data, out=out, work_dir=work, threads=1, backbone=backbone, **changes)


def test_training_gives_one_bundle_that_judges_images(
    featured: Config, coloured: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = write_tiny(tmp_path / "b.onnx")
    bundle = run(featured, {}, request_for(coloured, tmp_path / "bundle", backbone))
    manifest = bundle.manifest
    assert manifest.model_kind == "algan-feature"
    assert manifest.image_spec.shape_chw == (3, 40, 40)
    assert manifest.provenance["data"]["backbone"]["sha256"] == backbone_hash(backbone, "")
    assert manifest.provenance["config"]["feature"]["backbone_sha256"] == backbone_hash(backbone, "")
    assert manifest.provenance["data"]["features"] == 10
    assert manifest.provenance["parity"]["openvino fp32"] < 1e-4
    assert manifest.tolerance.keys() == {"fp32"}  # bfloat16 would round where turned pixels come from
    log = capfd.readouterr().err
    assert "tiny: low, high: 10 features, 3 rotations in training and 2 in judging" in log
    assert "features of 10 images, 3 rotations each" in log
    engine = create(bundle, EngineConfig(threads=1, max_batch=2))
    assert check_golden(bundle, engine).max_input_difference == 0
    engine.close()
    judged = judge(bundle, coloured, "all", EngineConfig(threads=1))
    modality = open_modality(coloured, featured, backbone, tmp_path / "bundle.training" / "features")
    rows = {row["path"]: row["score"] for row in judged["scores"]}
    csv = (bundle.path / "report" / "scores.csv").read_text().splitlines()
    columns = csv[0].split(",")
    for line in csv[1:]:  # the trainer's scores, from cached features, are the served ones
        row = dict(zip(columns, line.split(","), strict=True))
        assert float(row["score"]) == pytest.approx(rows[row["path"]], abs=1e-5)
    training = modality.training_inputs()
    assert training.shape == (30, 10)
    assert np.abs(training.mean(0)).max() < 1e-4
    assert np.abs(training.std(0) - 1).max() < 1e-3


def test_without_rotations_bf16_is_offered(featured: Config, coloured: Path, tmp_path: Path) -> None:
    config = override(featured, {"epochs": 1, "feature.test_rotations": 1, "feature.train_rotations": 1})
    bundle = run(config, {}, request_for(coloured, tmp_path / "bundle", write_tiny(tmp_path / "b.onnx")))
    assert bundle.manifest.tolerance.keys() == {"fp32", "bf16", "fp16"}


def test_common_scaling_keeps_the_features_in_proportion(
    featured: Config, coloured: Path, tmp_path: Path
) -> None:
    backbone, cache = write_tiny(tmp_path / "b.onnx"), tmp_path / "cache"
    config = override(featured, {"feature.scaling": "all"})
    modality = open_modality(coloured, config, backbone, cache)
    assert isinstance(modality, FeatureModality)
    inputs, raw = modality.training_inputs(), modality._training_features
    assert np.sqrt(np.square(inputs).mean()) == pytest.approx(1.0, abs=1e-4)
    assert np.allclose(inputs * (raw.max() / inputs.max()), raw, atol=1e-5)


def test_resuming_needs_the_same_backbone(featured: Config, coloured: Path, tmp_path: Path) -> None:
    backbone, out = write_tiny(tmp_path / "b.onnx"), tmp_path / "bundle"
    with pytest.raises(TrainingInterruptedError):
        run(featured, {}, request_for(coloured, out, backbone, stop_after_epochs=1))
    with pytest.raises(BackboneError, match="--backbone FILE"):
        run(None, {}, request_for(coloured, out, None, resume=True))
    other = write_tiny(tmp_path / "other.onnx", tiny_model(opset=18))
    with pytest.raises(BackboneError, match="is not the backbone that"):
        run(None, {}, request_for(coloured, out, other, resume=True))
    with pytest.raises(CheckpointError, match="backbone_sha256 was"):
        run(featured, {}, request_for(coloured, out, other, resume=True))
    assert run(None, {}, request_for(coloured, out, backbone, resume=True)).path == out


def test_damaged_images_are_named_before_features_are_computed(
    featured: Config, coloured: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(coloured / "train" / "good" / "100.png")
    (coloured / "train" / "good" / "101.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"101\.png"):
        run(featured, {}, request_for(coloured, tmp_path / "b", write_tiny(tmp_path / "b.onnx")))
    assert not list((tmp_path / "b.training").rglob("*.npz"))
