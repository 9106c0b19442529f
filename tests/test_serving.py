"""Exports for inference servers, checked against Triton's own definition of a model configuration."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import openvino
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from algan_deploy.serving import export as export_module
from algan_deploy.serving.export import MARK, Options, export
from algan_deploy.serving.triton import config_pbtxt, quoted
from algan_stream.bundle import MODEL, QUANTIZED, Bundle, FileEntry
from algan_stream.engines.triton import PARAMETER_BUNDLE, PARAMETER_PRECISION, PARAMETER_SHA256
from algan_stream.errors import BundleError, ConfigError
from processes import algan_stream
from vector_bundles import make_vector_bundle

TRITON, OVMS = Options(to="triton", name="m"), Options(to="ovms", name="m")


def _config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_repository_for_triton(bundle: Bundle, tmp_path: Path) -> None:
    target = export(bundle, tmp_path / "repo", dataclasses.replace(TRITON, max_batch=16, instances=2))
    assert target == tmp_path / "repo" / "m"
    assert (target / "1" / "model.onnx").read_bytes() == bundle.model_path.read_bytes()
    assert sorted(_tree(target)) == ["1/model.onnx", MARK, "config.pbtxt"]
    config = _config(target)
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 16)
    assert config.default_model_filename == "model.onnx"
    (given,), (got,) = config.input, config.output
    assert (given.name, given.data_type, list(given.dims)) == (
        "input",
        model_config_pb2.TYPE_FP32,
        [5, 32, 32],
    )
    assert (got.name, got.data_type, list(got.dims)) == ("logit", model_config_pb2.TYPE_FP32, [1])
    assert got.HasField("reshape")
    assert list(got.reshape.shape) == []
    assert not given.HasField("reshape")
    assert list(config.version_policy.specific.versions) == [1]
    assert [(g.count, g.kind) for g in config.instance_group] == [
        (2, model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    ]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.default_queue_policy.allow_timeout_override
    warm = {w.batch_size: w.inputs["input"] for w in config.model_warmup}
    assert {size: (list(w.dims), w.zero_data) for size, w in warm.items()} == {
        1: ([5, 32, 32], True),
        16: ([5, 32, 32], True),
    }
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        PARAMETER_SHA256: bundle.model_sha256,
        PARAMETER_BUNDLE: "test",
        PARAMETER_PRECISION: "fp32",
    }


def test_one_batch_size_is_warmed_up_once(bundle: Bundle, tmp_path: Path) -> None:
    config = _config(export(bundle, tmp_path, dataclasses.replace(TRITON, max_batch=1)))
    assert [w.batch_size for w in config.model_warmup] == [1]


def test_a_bundle_for_vectors(tmp_path: Path) -> None:
    vectors = make_vector_bundle(tmp_path / "bundle")
    config = _config(export(vectors, tmp_path / "repo", TRITON))
    assert list(config.input[0].dims) == [vectors.manifest.spec.shape[0]]


def test_an_engine_file(bundle: Bundle, tmp_path: Path) -> None:
    plan = tmp_path / "a100.plan"
    plan.write_bytes(b"engine")
    target = export(bundle, tmp_path / "repo", dataclasses.replace(TRITON, plan=plan, precision="fp16"))
    config = _config(target)
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert (target / "1" / "model.plan").read_bytes() == b"engine"
    assert not (target / "1" / "model.onnx").exists()
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert config.optimization.cuda.graphs
    # the model that it was built from, not the file: that is what a bundle knows
    assert config.parameters[PARAMETER_SHA256].string_value == bundle.model_sha256
    assert config.parameters[PARAMETER_PRECISION].string_value == "fp16"


def test_the_quantised_graph(own_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no discriminator\.int8\.onnx"):
        export(own_bundle, tmp_path / "repo", dataclasses.replace(TRITON, precision="int8"))
    assert not (tmp_path / "repo").exists()
    shutil.copyfile(own_bundle.path / MODEL, own_bundle.path / QUANTIZED)
    files = {**own_bundle.manifest.files, QUANTIZED: FileEntry("1" * 64, 1)}
    with_it = Bundle(own_bundle.path, msgspec.structs.replace(own_bundle.manifest, files=files))
    config = _config(export(with_it, tmp_path / "repo", dataclasses.replace(TRITON, precision="int8")))
    assert config.parameters[PARAMETER_SHA256].string_value == "1" * 64


@pytest.mark.parametrize(
    "name", ['a "b" \\ c', "Zahnrad äöü 齿轮", "line\nbreak\t\x00\x7f", "demo flange", "'", ""]
)
def test_any_name_of_a_bundle_survives(bundle: Bundle, tmp_path: Path, name: str) -> None:
    named = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, name=name))
    target = export(named, tmp_path, Options(to="triton"))
    config = _config(target)
    assert config.parameters[PARAMETER_BUNDLE].string_value == name
    assert config.name == target.name
    assert target.parent == tmp_path
    assert target.name.replace("-", "").replace("_", "").isalnum()


def test_quoted_text_is_protobufs() -> None:
    text = "".join(map(chr, range(1, 0x250))) + "\u2028\U0001f600"
    assert text_format.Parse(f"name: {quoted(text)}", model_config_pb2.ModelConfig()).name == text


def test_the_writer_knows_no_field_that_triton_does_not(bundle: Bundle) -> None:
    """The parser refuses unknown fields: a typing error above would show."""
    text = config_pbtxt(bundle, "m", sha256="0", precision="fp32", max_batch=2, instances=1, is_plan=True)
    text_format.Parse(text, model_config_pb2.ModelConfig())
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text.replace("max_batch_size", "max_batch"), model_config_pb2.ModelConfig())


def test_a_repository_for_openvino(bundle: Bundle, tmp_path: Path) -> None:
    target = export(bundle, tmp_path, dataclasses.replace(OVMS, instances=3))
    assert sorted(_tree(target)) == ["1/model.onnx", MARK]
    (model,) = json.loads((tmp_path / "config.json").read_text())["model_config_list"]
    assert model["config"]["name"] == model["config"]["base_path"] == "m"  # relative to the configuration
    assert model["config"]["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert model["config"]["plugin_config"]["NUM_STREAMS"] == "3"
    compiled = openvino.Core().compile_model(
        target / "1" / "model.onnx", "CPU", model["config"]["plugin_config"]
    )
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_other_models_of_the_configuration_stay(bundle: Bundle, tmp_path: Path) -> None:
    theirs = {"config": {"name": "resnet", "base_path": "/models/resnet"}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_config_list": [theirs], "mediapipe_config_list": []}))
    for instances in (1, 2):
        export(bundle, tmp_path, dataclasses.replace(OVMS, instances=instances))
        config = json.loads(path.read_text())
        assert config["model_config_list"][0] == theirs
        assert config["mediapipe_config_list"] == []
        assert [m["config"]["plugin_config"]["NUM_STREAMS"] for m in config["model_config_list"][1:]] == [
            str(instances)
        ]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model_config_list": [{"name": "x"}]}', '{"model_config_list": 3}']
)
def test_a_configuration_that_is_none_stays(bundle: Bundle, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BundleError, match="is no configuration of OpenVINO Model Server"):
        export(bundle, tmp_path, OVMS)
    assert _tree(tmp_path) == {"config.json": text.encode()}


@pytest.mark.parametrize("options", [TRITON, OVMS])
def test_an_earlier_export_is_replaced_whole(bundle: Bundle, tmp_path: Path, options: Options) -> None:
    target = export(bundle, tmp_path, options)
    (target / "1" / "left over").write_text("x")
    export(bundle, tmp_path, options)
    assert "1/left over" not in _tree(target)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("make", ["folder", "file", "link", "other mark"])
def test_what_is_not_ours_is_not_overwritten(bundle: Bundle, tmp_path: Path, make: str) -> None:
    target = tmp_path / "repo" / "m"
    target.parent.mkdir()
    if make == "folder":
        (target / "1").mkdir(parents=True)
        (target / "1" / "model.onnx").write_text("theirs")
    elif make == "file":
        target.write_text("theirs")
    elif make == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        (target / MARK).write_text('{"to": "somewhere"}')
    before = _tree(tmp_path)
    for options in (TRITON, OVMS):
        with pytest.raises(BundleError, match="was not written by `algan-stream export`"):
            export(bundle, tmp_path / "repo", options)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("step", ["copyfile", "_put"])
def test_a_failure_half_way_leaves_the_old_export(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    export(bundle, tmp_path, TRITON)
    before = _tree(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        *((export_module.shutil, step) if step == "copyfile" else (export_module, step)), fails
    )
    with pytest.raises(BundleError, match="cannot be written: No space left on device"):
        export(bundle, tmp_path, dataclasses.replace(TRITON, max_batch=2))
    assert _tree(tmp_path) == before


def test_a_move_that_fails_puts_the_old_one_back(bundle: Bundle, tmp_path: Path) -> None:
    target = export(bundle, tmp_path, TRITON)
    before = _tree(target)
    aside = tmp_path / "aside"
    aside.mkdir()
    with pytest.raises(OSError, match="No such file"):
        export_module._put(tmp_path / "missing", target, aside)
    assert _tree(target) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "--max-batch: expected 1 to 1024, got 0"),
        ({"instances": 2000}, "--instances: expected 1 to 1024, got 2000"),
        ({"name": "../m"}, "--name: expected letters"),
        ({"name": ".m"}, "--name: expected letters"),
        ({"to": "ovms", "max_batch": 8}, "takes batches of any size; leave it out"),
        ({"to": "ovms", "plan": Path("x.plan")}, "cannot serve a TensorRT engine"),
        ({"precision": "fp16"}, "fp16 needs an engine file"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**{"to": "triton", **options})


def test_engine_files_that_are_none(bundle: Bundle, tmp_path: Path) -> None:
    empty = tmp_path / "empty.plan"
    empty.touch()
    for plan, message in ((empty, "is empty"), (tmp_path / "missing", "cannot be read: No such file")):
        with pytest.raises(ConfigError, match=message):
            export(bundle, tmp_path / "repo", dataclasses.replace(TRITON, plan=plan))
    assert not (tmp_path / "repo").exists()


def test_the_command(bundle: Bundle, tmp_path: Path) -> None:
    ended = algan_stream("export", bundle.path, "--to", "triton", "--out", tmp_path, "--json")
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["path"] == str(tmp_path / "test")
    assert said["model_sha256"] == said["file_sha256"] == bundle.model_sha256
    again = algan_stream("export", bundle.path, "--to", "ovms", "--out", tmp_path, "--max-batch", "4")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: --max-batch: OpenVINO Model Server takes batches of any size")
