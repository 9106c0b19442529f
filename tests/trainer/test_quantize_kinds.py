"""int8 of the graphs that have more than convolutions: a backbone with its discriminator, and vectors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from algan_deploy.quantize.errors import QuantizationError
from algan_deploy.quantize.graph import Activations, layer_names, standardised_layers, write_int8
from algan_deploy.quantize.measuring import int8_layers
from algan_stream.engines.graph import open_graph
from algan_trainer.backbone.file import read_backbone
from algan_trainer.config import Config, override
from algan_trainer.feature_graph import make_plan, write_feature_onnx, write_features_onnx
from algan_trainer.networks import initialise
from algan_trainer.networks_vector import VectorDiscriminator
from algan_trainer.onnx_graph import write_vector_onnx
from backbones import write_tiny

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None,
    reason="NNCF is not installed: pip install 'algan-stream[quantize]'",
)


def _check(source: Path, inputs: np.ndarray, activations: Activations, target: Path) -> int:
    """Quantises a graph; both runtimes give about what fp32 gives,
    OpenVINO less closely, for it moves the rounding. Returns how many layers run in int8."""
    write_int8(source, inputs, activations, standardised_layers(source), target)
    found = {}
    for path in (source, target):
        graph = open_graph(path, inputs.shape[1:], {"logit": ()}, {"kind": "openvino", "threads": 1})
        found[path] = graph.infer(inputs)["logit"]
        graph.close()
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    witness = session.run(["logit"], {"input": inputs})[0]
    spread = np.ptp(found[source])
    assert 0 < np.abs(found[target] - found[source]).max() < 0.25 * spread
    assert np.abs(witness - found[source]).max() < 0.1 * spread
    return int8_layers(target)[0]


def _head(features: int) -> tuple[VectorDiscriminator, np.ndarray]:
    network = VectorDiscriminator(features, 32)
    initialise(network, torch.Generator().manual_seed(2))
    mean = np.random.default_rng(2).normal(size=features).astype(np.float32)
    return network.eval(), mean


def _merged(rotations: int, folder: Path) -> tuple[Path, np.ndarray]:
    """A backbone with its discriminator, and pictures of all contrasts for it."""
    backbone = read_backbone(write_tiny(folder / "backbone.onnx"))
    changes = {"feature.layers": ("low", "last"), "feature.resize_px": 40}
    plan = make_plan(backbone, override(Config(), changes).feature, 65535)
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(24, *plan.spec.shape)) * np.linspace(0.2, 2.0, 24)[:, None, None, None]
    inputs = inputs.astype(np.float32)
    write_features_onnx(plan, 1, folder / "features.onnx")
    graph = open_graph(folder / "features.onnx", plan.spec.shape, {"features": (1, plan.features)})
    features = graph.infer(inputs)["features"][:, 0]
    graph.close()
    network, _ = _head(plan.features)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    write_feature_onnx(plan, rotations, network, mean, scale, folder / "merged.onnx")
    return folder / "merged.onnx", inputs


def test_a_backbone_with_its_discriminator(tmp_path: Path) -> None:
    merged, inputs = _merged(1, tmp_path)
    assert len(layer_names(merged)) == 5
    assert standardised_layers(merged) == ("linear_0",)
    assert _check(merged, inputs, "symmetric", tmp_path / "int8.onnx") >= 2


def test_a_loop_over_rotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"its layers stand inside Loop.*feature.test_rotations = 1"):
        layer_names(_merged(4, tmp_path)[0])


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_vectors(activations: Activations, tmp_path: Path) -> None:
    """Far from 0 for their spread: standardisation must stay in fp32."""
    network, mean = _head(6)
    mean *= 1000
    write_vector_onnx(network, mean, np.ones(6, np.float32), tmp_path / "vector.onnx")
    inputs = (mean + np.random.default_rng(1).normal(size=(64, 6))).astype(np.float32)
    assert len(layer_names(tmp_path / "vector.onnx")) == 3
    assert len(standardised_layers(tmp_path / "vector.onnx")) == 1
    assert _check(tmp_path / "vector.onnx", inputs, activations, tmp_path / "int8.onnx") >= 1
