"""`algan-stream build`: real engines for GPUs that are not here, and what it refuses."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from algan_deploy.build import builder
from algan_deploy.build.request import Request
from algan_stream.bundle import MANIFEST, QUANTIZED, Bundle, read_bundle, write_bundle
from algan_stream.cli import app
from algan_stream.engines.cache import EngineCache
from algan_stream.errors import AlganError, BundleError, ConfigError, EngineError, PluginError

runner = CliRunner()
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")


def build(*arguments: object) -> list[dict[str, Any]]:
    result = runner.invoke(app, ["build", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    built: list[dict[str, Any]] = json.loads(result.stdout)
    return built


def request(bundle: Bundle, folder: Path, **more: Any) -> Request:
    values = {"precision": "fp32", "batch": (1, 4, 8), **more}
    return Request(bundle=bundle, cache=EngineCache(folder), **values)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Bundle:
    """The small bundle with an int8 graph in explicit Q/DQ, symmetric as TensorRT asks for."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    inputs = bundle.golden().inputs

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = list(inputs)

        def get_next(self) -> dict[str, Any] | None:
            return {"input": self.left.pop()[None]} if self.left else None

    folder = tmp_path_factory.mktemp("quantized")
    staged = folder / "staged"
    shutil.copytree(bundle.path, staged)
    (staged / MANIFEST).unlink()
    quantize_static(
        staged / "discriminator.onnx",
        staged / QUANTIZED,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        op_types_to_quantize=["Conv"],
    )
    return write_bundle(folder / "bundle", staged, bundle.manifest)


# ---- real engines ------------------------------------------------------------------------------------------


@needs_rtx
def test_the_demo_bundle_for_three_generations(tmp_path: Path) -> None:
    shutil.copytree(read_bundle("demo").path, tmp_path / "demo")
    target = "tensorrt-rtx:sm80,sm86,sm89"
    built = build(tmp_path / "demo", "--target", target)
    assert [engine["device"] for engine in built] == ["sm80", "sm86", "sm89"]
    assert all(not engine["found"] and engine["size_bytes"] > 100_000 for engine in built)
    entries = EngineCache(tmp_path / "demo" / "engines").entries()
    assert [entry.state for entry in entries] == ["ok"] * 3
    assert len({entry.info.payload_sha256 for entry in entries if entry.info}) == 3
    again = build(tmp_path / "demo", "--target", target)
    assert [{**engine, "found": True} for engine in built] == again
    read_bundle(tmp_path / "demo")  # is a bundle as before
    forced = build(tmp_path / "demo", "--target", "tensorrt-rtx:sm80", "--force")
    assert not forced[0]["found"]
    assert forced[0]["key"] == built[0]["key"]


@needs_rtx
def test_a_corrupt_engine_is_built_again(bundle: Bundle, tmp_path: Path) -> None:
    arguments = (bundle.path, "--target", "tensorrt-rtx:sm80", "--cache", tmp_path)
    (built,) = build(*arguments)
    next(tmp_path.glob("*.engine")).write_bytes(b"half of it")
    (again,) = build(*arguments)
    assert not again["found"]
    assert again["key"] == built["key"]
    assert sorted(entry.state for entry in EngineCache(tmp_path).entries()) == [
        "ok",
        "set aside",
        "set aside",
    ]
    assert build(*arguments)[0]["found"]


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_precisions(quantized: Bundle, tmp_path: Path, precision: str) -> None:
    (built,) = build(
        quantized.path, "--target", "tensorrt-rtx:sm89", "--precision", precision, "--cache", tmp_path
    )
    assert (built["precision"], built["device"], built["batch"]) == (precision, "sm89", [1, 8, 8])
    assert [entry.state for entry in EngineCache(tmp_path).entries()] == ["ok"]


@needs_rtx
def test_half_computes_in_half(bundle: Bundle, tmp_path: Path) -> None:
    """The weights of an fp16 engine take half the room."""
    sizes = {}
    for precision in ("fp32", "fp16"):
        (built,) = build(
            "demo", "--target", "tensorrt-rtx:sm80", "--precision", precision, "--cache", tmp_path
        )
        sizes[precision] = built["size_bytes"]
    assert sizes["fp16"] < 0.7 * sizes["fp32"]


@needs_rtx
def test_what_a_line_says(bundle: Bundle, tmp_path: Path) -> None:
    line = tmp_path / "line.yaml"
    line.write_text(
        f"bundle: {bundle.path}\n"
        "engine: {kind: tensorrt_rtx, precision: fp16, max_batch: 32, opt_batch: 16, cache: kept}\n"
        "cameras: [{id: cam, source: {kind: folder, path: x}}]\n"
    )
    (built,) = build(bundle.path, "--target", "tensorrt-rtx:sm86", "--line", line)
    assert (built["precision"], built["batch"]) == ("fp16", [1, 16, 32])
    assert [entry.state for entry in EngineCache(tmp_path / "kept").entries()] == ["ok"]
    (built,) = build(bundle.path, "--target", "tensorrt-rtx:sm86", "--line", line, "--opt-batch", 8)
    assert built["batch"] == [1, 8, 32]
    with pytest.raises(ConfigError, match=r"expected tensorrt for this target, got 'tensorrt_rtx'"):
        build(bundle.path, "--target", "tensorrt", "--line", line)


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--target", "cuda"], ConfigError, r"--target: expected one of tensorrt, tensorrt-rtx"),
        (["--target", "tensorrt-rtx:sm80", "--precision", "fp8"], ConfigError, r"expected one of fp32, fp16"),
        (
            ["--target", "tensorrt-rtx:sm80", "--opt-batch", 9],
            ConfigError,
            r"in rising order, got \(1, 9, 8\)",
        ),
        (
            ["--target", "tensorrt-rtx:sm80", "--min-batch", 0],
            ConfigError,
            r"in rising order, got \(0, 8, 8\)",
        ),
        pytest.param(
            ["--target", "tensorrt-rtx:sm80,sm12"],
            EngineError,
            r"some of sm75, sm80, .*, got sm12",
            marks=needs_rtx,
        ),
        (
            ["--target", "tensorrt-rtx:sm80", "--dla", 0],
            EngineError,
            r"--dla: tensorrt-rtx has no accelerator",
        ),
        (["--target", "tensorrt-rtx:sm80", "--version-compatible"], EngineError, r"tensorrt-rtx offers none"),
        (["--target", "tensorrt:sm80"], EngineError, r"tensorrt builds on the device itself"),
        (["--target", "tensorrt", "--dla", 0], EngineError, r"the accelerator computes in fp16 or int8"),
        pytest.param(
            ["--target", "tensorrt-rtx:sm80", "--precision", "int8"],
            BundleError,
            r"has no discriminator.int8.onnx",
            marks=needs_rtx,
        ),
    ],
)
def test_what_is_refused(
    bundle: Bundle, tmp_path: Path, options: list[object], error: type[AlganError], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(bundle.path, *options, "--cache", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed here")
def test_without_the_library(bundle: Bundle) -> None:
    with pytest.raises(PluginError, match=r"needs the Python package tensorrt; install it by: pip install"):
        build(bundle.path, "--target", "tensorrt")


@needs_rtx
def test_a_graph_that_is_none_and_one_that_does_not_fit(own_bundle: Bundle, tmp_path: Path) -> None:
    import onnx
    import tensorrt_rtx
    from onnx import helper

    asked = request(own_bundle, tmp_path)
    model = onnx.load(own_bundle.model_path)
    model.graph.node[1].op_type, model.graph.node[1].name = "Frobnicate", "odd"
    own_bundle.model_path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"cannot parse it: node .*odd.*\(Frobnicate\)"):
        builder.compile_engine(tensorrt_rtx, asked, capability="sm80")
    own_bundle.model_path.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"cannot parse it"):
        builder.compile_engine(tensorrt_rtx, asked, capability="sm80")
    small = helper.make_model(
        helper.make_graph(
            [helper.make_node("ReduceMean", ["input"], ["logit"], axes=[1, 2, 3], keepdims=0)],
            "mean",
            [helper.make_tensor_value_info("input", 1, ["N", 5, 16, 16])],
            [helper.make_tensor_value_info("logit", 1, ["N"])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    own_bundle.model_path.write_bytes(small.SerializeToString())
    with pytest.raises(EngineError, match=r"got .*\(-1, 5, 16, 16\).* it does not fit the manifest"):
        builder.compile_engine(tensorrt_rtx, asked, capability="sm80")


def test_numbers_survive_half(bundle: Bundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from algan_deploy.build.half import to_half

    golden = bundle.golden()
    session = onnxruntime.InferenceSession(
        to_half(bundle.model_path.read_bytes()), providers=["CPUExecutionProvider"]
    )
    assert [session.get_inputs()[0].type, session.get_outputs()[0].type] == ["tensor(float)"] * 2
    logits = session.run(["logit"], {"input": golden.inputs})[0]
    difference = float(np.abs(logits - golden.logits).max())
    assert 0 < difference < bundle.manifest.tolerance["bf16"]


@needs_rtx
def test_doctor_tells_of_the_libraries_and_the_cache(own_bundle: Bundle) -> None:
    def lines(*more: object) -> list[dict[str, str]]:
        result = runner.invoke(app, ["doctor", *map(str, more), "--json"], catch_exceptions=False)
        found: list[dict[str, str]] = json.loads(result.stdout)["findings"]
        return [finding for finding in found if "engine" in finding["name"] or finding["name"] == "pycuda"]

    states = {line["name"]: line["state"] for line in lines()}
    assert states["engine tensorrt_rtx"] == "ok"
    assert {"engine tensorrt", "pycuda"} <= set(states)
    assert "engine cache" not in states
    assert lines("--bundle", own_bundle.path)[-1]["detail"].endswith("only TensorRT needs compiled engines")
    build(own_bundle.path, "--target", "tensorrt-rtx:sm80,sm86")
    told = [line for line in lines("--bundle", own_bundle.path) if line["name"] == "engine cache"]
    assert [line["state"] for line in told] == ["ok", "ok"]
    next(iter((own_bundle.path / "engines").glob("*.engine"))).write_bytes(b"")
    told = [line for line in lines("--bundle", own_bundle.path) if line["name"] == "engine cache"]
    (corrupt,) = [line for line in told if line["state"] != "ok"]
    assert "corrupt: size_bytes: expected" in corrupt["detail"]
    assert corrupt["mend"].startswith(f"algan-stream build {own_bundle.path} --target tensorrt-rtx:sm8")
    wrong = lines("--bundle", own_bundle.path / "nothing")[-1]
    assert (wrong["name"], wrong["state"]) == ("engine cache", "wrong")
