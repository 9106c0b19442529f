"""Devices, providers and precisions that are not here are refused by name; nothing else takes their place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

from algan_stream import plugins
from algan_stream.bundle import QUANTIZED, Bundle, FileEntry
from algan_stream.engines import onnxruntime as ort_engine
from algan_stream.engines import onnxruntime_session, openvino_device
from algan_stream.engines.base import Engine
from algan_stream.engines.graph import open_graph
from algan_stream.engines.openvino import Config as OpenVinoConfig
from algan_stream.engines.openvino import create as create_openvino
from algan_stream.errors import ConfigError, EngineError, PluginError
from bundles import quantise


def _open(bundle: Bundle, **section: object) -> Engine:
    module, config = plugins.load("engines", {"threads": 1, "max_batch": 3, **section}, "engine")
    engine: Engine = module.create(bundle, config)
    return engine


class _Core:
    """OpenVINO's core on a machine with these devices."""

    def __init__(self, *devices: str, capabilities: tuple[str, ...] = ("FP32",)) -> None:
        self.available_devices = list(devices)
        self._capabilities = capabilities

    def get_property(self, device: str, name: str) -> Any:
        assert device in self.available_devices
        return list(self._capabilities)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "openvino", "device": "TPU"}, "device: expected CPU, GPU, GPU.n, NPU or AUTO, got 'TPU'"),
        (
            {"kind": "openvino", "precision": "fp8"},
            "engine.precision: expected one of fp32, bf16, fp16, int8",
        ),
        ({"kind": "onnxruntime", "provider": "rocm"}, "engine.provider: expected one of cpu, cuda, tensorrt"),
        ({"kind": "onnxruntime", "gpu": -1}, "gpu: expected 0 to 1023, got -1"),
        ({"kind": "onnxruntime", "max_batch": 0}, "max_batch: expected 1 to 1024, got 0"),
    ],
)
def test_what_cannot_be_meant(bundle: Bundle, section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _open(bundle, **section)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("here", "asked", "right"),
    [
        (("CPU",), "CPU", True),
        (("CPU",), "GPU", False),
        (("CPU", "GPU"), "GPU", True),
        (("CPU", "GPU"), "GPU.0", True),
        (("CPU", "GPU"), "GPU.1", False),
        (("CPU", "GPU.0", "GPU.1"), "GPU", True),
        (("CPU", "GPU.0", "GPU.1"), "GPU.1", True),
        (("CPU", "GPU.0", "GPU.1"), "NPU", False),
    ],
)
def test_a_device_is_one_of_those_that_are_here(here: tuple[str, ...], asked: str, right: bool) -> None:
    if right:
        assert openvino_device.choose(_Core(*here), asked, Path("m")) == asked
        return
    with pytest.raises(
        EngineError, match=rf"engine\.device: {asked} is not here \(found: {', '.join(here)}\)"
    ):
        openvino_device.choose(_Core(*here), asked, Path("m"))


def test_auto_settles_on_a_device_before_the_gate(bundle: Bundle) -> None:
    engine = _open(bundle, kind="openvino", device="AUTO")
    assert engine.identity.device in openvino_device.present(__import__("openvino").Core())
    engine.close()


def test_a_precision_is_looked_up_on_the_device_that_computes() -> None:
    core = _Core("GPU", capabilities=("FP32", "FP16", "INT8"))
    for precision in ("fp32", "fp16", "int8"):
        openvino_device.check_precision(core, "GPU", precision)
    with pytest.raises(EngineError, match=r"bf16 is not offered by GPU \(it offers fp32, fp16, int8\)"):
        openvino_device.check_precision(core, "GPU", "bf16")


def test_what_only_cpus_know_is_only_told_to_cpus() -> None:
    def told(device: str, precision: str = "fp32", **more: Any) -> dict[str, Any]:
        given = {"threads": 3, "streams": 0, "cache_dir": "", **more}
        return openvino_device.properties(device, precision, "THROUGHPUT", **given)

    assert told("CPU", streams=2) == {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 3,
        "NUM_STREAMS": 2,
    }
    assert told("GPU.1") == {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    assert told("GPU", "int8", cache_dir="x") == {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f16",
        "CACHE_DIR": "x",
    }
    assert told("CPU", "int8")["INFERENCE_PRECISION_HINT"] == "f32"


def test_devices_of_fixed_shapes_run_whole_slots(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = np.random.default_rng(0).normal(size=(7, *bundle.manifest.spec.shape)).astype(np.float32)
    path = bundle.model_path
    wanted = ("logit", ()), {"kind": "openvino", "threads": 1, "max_batch": 3}
    dynamic = _open(bundle, kind="openvino").infer(inputs)
    graph = open_graph(path, inputs.shape[1:], dict([wanted[0]]), wanted[1]).infer(inputs)["logit"]
    monkeypatch.setattr("algan_stream.engines.openvino.FIXED_BATCH", ("CPU",))
    engine = _open(bundle, kind="openvino")
    fixed = open_graph(path, inputs.shape[1:], dict([wanted[0]]), wanted[1])
    assert engine.infer(inputs) == pytest.approx(dynamic, abs=1e-4)
    assert engine.infer(inputs[:1]) == pytest.approx(dynamic[:1], abs=1e-4)
    assert fixed.infer(inputs)["logit"] == pytest.approx(graph, abs=1e-4)
    engine.close()


def test_compiled_models_are_kept_only_where_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _open(bundle, kind="openvino").close()
    assert not list(tmp_path.iterdir())
    create_openvino(bundle, OpenVinoConfig(threads=1, max_batch=1, cache_dir=str(tmp_path / "kept"))).close()
    assert list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed(
    bundle: Bundle, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["AzureX", "CPUExecutionProvider"])
    with pytest.raises(
        EngineError, match=rf"engine\.provider: {provider} is not offered .*\(it offers cpu\)"
    ):
        _open(bundle, kind="onnxruntime", provider=provider)
    assert ort_engine.devices() == ["cpu"]


def test_a_provider_that_does_not_start_is_not_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the package for GPUs on a machine without one: ONNX Runtime itself warns and takes the CPU."""
    monkeypatch.setattr(onnxruntime_session, "offered", lambda: ["cpu", "cuda"])
    if "CUDAExecutionProvider" in onnxruntime_session.library().get_available_providers():
        pytest.skip("CUDA may start here")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(EngineError, match="cuda is installed but does not start"),
    ):
        _open(bundle, kind="onnxruntime", provider="cuda")


def test_fp16_is_for_providers_that_convert_the_graph(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"fp16 is not offered by provider cpu \(it offers fp32, int8\)"):
        _open(bundle, kind="onnxruntime", precision="fp16")


def test_tensorrt_builds_one_engine_for_all_sizes_of_batch() -> None:
    (tensorrt, options), (cuda, more) = onnxruntime_session._providers("tensorrt", "fp16", 1, (5, 8, 8), 4)
    assert (tensorrt, cuda) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options == {
        "device_id": "1",
        "trt_profile_min_shapes": "input:1x5x8x8",
        "trt_profile_opt_shapes": "input:4x5x8x8",
        "trt_profile_max_shapes": "input:4x5x8x8",
        "trt_fp16_enable": "1",
        "trt_int8_enable": "0",
    }
    assert more["use_tf32"] == "0"


def test_without_the_package_the_extra_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PluginError, match=r"pip install 'algan-stream\[onnxruntime\]'"):
        _open(bundle, kind="onnxruntime")


def test_a_failed_batch_of_onnxruntime_harms_no_other(bundle: Bundle) -> None:
    class Broken:
        def run_with_iobinding(self, _: object) -> None:
            raise RuntimeError("device lost")

    inputs = bundle.golden().inputs[:3]
    engine = _open(bundle, kind="onnxruntime")
    assert isinstance(engine, ort_engine.OnnxRuntimeEngine)
    expected = engine.infer(inputs)
    sessions = [place._session for place in engine._places]
    for place in engine._places:
        place._session = Broken()
    for _ in range(2 * len(engine.slots)):
        with pytest.raises(EngineError, match="inference failed: device lost"):
            engine.infer(inputs)
    for place, session in zip(engine._places, sessions, strict=True):
        place._session = session
    assert np.array_equal(engine.infer(inputs), expected)
    engine.close()


def test_onnxruntime_reads_the_slots_themselves(bundle: Bundle) -> None:
    engine = _open(bundle, kind="onnxruntime")
    assert isinstance(engine, ort_engine.OnnxRuntimeEngine)
    for slot, place in zip(engine.slots, engine._places, strict=True):
        assert {value.data_ptr() for _, value in place._bound} == {slot.inputs_nchw.ctypes.data}
    engine.close()


def test_onnxruntime_runs_graphs_beside_the_stream(bundle: Bundle) -> None:
    inputs = bundle.golden().inputs
    shape = bundle.manifest.spec.shape
    section = {"kind": "onnxruntime", "threads": 1, "max_batch": 3}
    graph = open_graph(bundle.model_path, shape, {"logit": ()}, section)
    assert graph.infer(inputs)["logit"] == pytest.approx(bundle.golden().logits, abs=1e-3)
    graph.close()
    graph.close()
    with pytest.raises(EngineError, match="and outputs"):
        open_graph(bundle.model_path, shape, {"saliency": shape[1:]}, section)


def test_int8_of_onnxruntime_is_exact_without_vnni_too(own_bundle: Bundle) -> None:
    """Weights of 8 bits saturate in processors' fast way without VNNI; ours is the slower, right one."""
    inputs = np.sign(own_bundle.golden().inputs).astype(np.float32)
    plain = onnx.load(own_bundle.model_path)
    first = next(w for w in plain.graph.initializer if w.name == plain.graph.node[0].input[1])
    kernel = onnx.numpy_helper.to_array(first)
    first.CopyFrom(onnx.numpy_helper.from_array(np.sign(kernel) * np.abs(kernel).mean(), first.name))
    model = quantise(plain, inputs, levels=127)
    path = own_bundle.path / QUANTIZED
    onnx.save(model, path)
    listed = msgspec.structs.replace(own_bundle.manifest, files={QUANTIZED: FileEntry("", 0)})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    floats = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    expected = floats.run(None, {"input": inputs})[0]  # as it is written: in floating point between Q and DQ
    engine = _open(Bundle(own_bundle.path, listed), kind="onnxruntime", precision="int8")
    assert engine.infer(inputs) == pytest.approx(expected, abs=1e-2)  # halves may be rounded either way
    engine.close()
