from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

from algan_stream.cli import app
from algan_stream.errors import ConfigError
from algan_trainer.backbone.file import INFO_KEY, BackboneError, backbone_hash, read_backbone
from algan_trainer.backbone.networks import Network, Tapped, load_network
from algan_trainer.config import Config, override
from algan_trainer.feature_graph import make_plan
from backbones import INFO, SIZE_PX, tiny_model, write_tiny

onnxscript = pytest.importorskip("onnxscript", reason="needs the extra `backbone`")
from algan_trainer.backbone.making import make_backbone  # noqa: E402


def small_network(taps: tuple[str, ...] = ("0", "2")) -> Network:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )
    return Network(Tapped(layers, taps, layers).eval(), taps, 40, SIZE_PX, (0.5,) * 3, (0.5,) * 3, "a test")


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    backbone = read_backbone(write_tiny(tmp_path / "b.onnx"))
    assert backbone.info == INFO
    assert {name: tap.channels for name, tap in backbone.taps.items()} == {"low": 4, "high": 6}
    assert backbone.size_px == SIZE_PX
    assert backbone.sha256 == backbone_hash(tmp_path / "b.onnx", "")
    assert (backbone.tap("low"), backbone.tap("last")) == ("low", "high")
    with pytest.raises(BackboneError, match="has no output 'middle'; expected low, high or last"):
        backbone.tap("middle")


def test_old_graphs_are_lifted(tmp_path: Path) -> None:
    assert read_backbone(write_tiny(tmp_path / "b.onnx", tiny_model(opset=11))).opset == 17


def broken(kind: str) -> onnx.ModelProto:
    if kind == "two inputs":
        return tiny_model(inputs=2)
    if kind == "fixed batch":
        return tiny_model(batch=1)
    model = tiny_model()
    if kind == "grey input":
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    elif kind == "token output":
        del model.graph.output[1].type.tensor_type.shape.dim[3]
    elif kind == "unknown channels":
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "C"
    elif kind == "weights elsewhere":
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    elif kind == "other taps":
        info = msgspec.structs.replace(INFO, taps={"low": 5, "high": 6})
        model.metadata_props[0].value = msgspec.json.encode(info).decode()
    elif kind == "torn metadata":
        model.metadata_props[0].value = "{"
    elif kind == "unknown operator":
        model.graph.node[1].op_type = "Relux"
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("two inputs", r"expected one input.*got 2: image, other"),
        ("fixed batch", "is for batches of 1 only; export it with a dynamic batch"),
        ("grey input", r"expected float32 \(N, 3, H, W\) with H = W, got float \(N, 1, 32, 32\)"),
        ("token output", r"output high: expected float32 \(N, C, h, w\) or \(N, C\)"),
        ("unknown channels", "output low: expected"),
        ("weights elsewhere", "keeps weights in other files"),
        ("other taps", "names other outputs than it has"),
        ("torn metadata", f"metadata {INFO_KEY}"),
        ("unknown operator", "is not a valid ONNX graph"),
    ],
)
def test_unusable_graphs_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=message):
        read_backbone(write_tiny(tmp_path / "b.onnx", broken(kind)))


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"\x80\x04pickle", bytes(range(256)) * 20])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(content)
    with pytest.raises(BackboneError, match=r"b\.onnx: is not an ONNX file"):
        read_backbone(tmp_path / "b.onnx")


def test_a_missing_or_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="No such file"):
        read_backbone(tmp_path / "b.onnx")
    with pytest.raises(BackboneError, match="--backbone FILE"):
        backbone_hash(None, "")
    with pytest.raises(BackboneError, match=r"expected 123412341234…, got"):
        backbone_hash(write_tiny(tmp_path / "b.onnx"), "1234" * 16)


def test_without_metadata_the_configuration_must_say_it(tmp_path: Path) -> None:
    backbone = read_backbone(write_tiny(tmp_path / "b.onnx", tiny_model(None)))
    config = Config()
    with pytest.raises(BackboneError, match=r"no metadata.*feature\.mean, feature\.std \(mean and std"):
        make_plan(backbone, config.feature, 65535)
    given = {"feature.mean": (0.1, 0.2, 0.3), "feature.std": (1.0, 1.0, 1.0)}
    plan = make_plan(backbone, override(config, given).feature, 65535)
    assert (plan.crop_px, plan.layers, plan.spec.mean) == (SIZE_PX, ("high",), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_px": 64}, "takes 32 px, but feature.crop_px is 64"),
        ({"resize_px": 20}, "feature.resize_px: expected 32"),
        ({"layers": ("high", "last")}, "expected different outputs"),
        ({"layers": ("nose",)}, "has no output 'nose'"),
    ],
)
def test_impossible_plans_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    backbone = read_backbone(write_tiny(tmp_path / "b.onnx"))
    config = override(Config(), {f"feature.{key}": value for key, value in changes.items()})
    with pytest.raises(BackboneError, match=message):
        make_plan(backbone, config.feature, 65535)


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", ()), ("pool", ("mean", "mean")), ("test_rotations", 0), ("std", (1.0, 0.0, 1.0))],
)
def test_impossible_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"feature.{key}"):
        override(Config(), {f"feature.{key}": value})


def test_an_exported_network_gives_the_same_features(tmp_path: Path) -> None:
    network = small_network()
    backbone, difference = make_backbone(network, "small", tmp_path / "b.onnx", None)
    assert difference < 1e-5
    assert backbone.info is not None
    assert backbone.info.taps == {"0": 4, "2": 6}
    assert (backbone.info.crop_px, backbone.info.features) == (SIZE_PX, 6)
    assert b"site-packages" not in (tmp_path / "b.onnx").read_bytes()  # no traces of this machine
    assert [p.name for p in tmp_path.iterdir()] == ["b.onnx"]


def test_a_wrong_export_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from algan_trainer.backbone import making

    infer = making.open_graph

    def spoilt(*arguments: object) -> object:
        graph = infer(*arguments)  # type: ignore[arg-type]
        run = graph._run
        monkeypatch.setattr(graph, "_run", lambda x: {name: of + 0.01 for name, of in run(x).items()})
        return graph

    monkeypatch.setattr(making, "open_graph", spoilt)
    with pytest.raises(BackboneError, match="differ from PyTorch's by"):
        make_backbone(small_network(), "small", tmp_path / "b.onnx", None)
    assert not list(tmp_path.iterdir())


def test_taps_must_exist_and_give_features() -> None:
    with pytest.raises(BackboneError, match="has no module 'nose'; at its top are 0, 1, 2"):
        small_network(("nose",))


def test_unknown_networks_and_libraries_are_named() -> None:
    with pytest.raises(BackboneError, match=r"no_such_net: .*torchvision.*timm"):
        load_network("no_such_net", None, None, (), random=True)
    with pytest.raises(BackboneError, match="--library: expected one of"):
        load_network("no_such_net", "keras", None, (), random=True)


def test_weights_that_do_not_fit_or_could_run_code_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `backbone`")
    torch.save({"conv": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")  # a pickled object, not tensors
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name in ("other.pth", "module.pth", "torn.safetensors", "missing.pth"):
        with pytest.raises(BackboneError, match=f"{name}: are not weights of this network"):
            load_network("efficientnet-lite0", None, tmp_path / name, (), random=False)


def test_safetensors_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `backbone`")
    from safetensors.torch import save_file

    first = load_network("efficientnet-lite0", None, None, (), random=True)
    state = first.module.network.state_dict()
    state["_conv_stem.weight"] += 1.0
    save_file(state, tmp_path / "w.safetensors")
    second = load_network("efficientnet-lite0", None, tmp_path / "w.safetensors", ("block1",), random=False)
    assert torch.equal(second.module.network.state_dict()["_conv_stem.weight"], state["_conv_stem.weight"])
    assert second.source.endswith("weights w.safetensors")
    with torch.no_grad():
        maps = second.module(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 16, 16)]


def test_inspect_shows_a_backbone(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["backbone", "inspect", str(write_tiny(tmp_path / "b.onnx"))])
    assert shown.exit_code == 0
    assert "output: high, 6 channels" in shown.output
    assert "source: made in a test" in shown.output
    plain = write_tiny(tmp_path / "p.onnx", tiny_model(None))
    assert "no metadata" in CliRunner().invoke(app, ["backbone", "inspect", str(plain)]).output


def test_the_commands_need_no_torch_to_be_listed() -> None:
    code = "import algan_trainer.backbone.commands, sys; print('torch' in sys.modules, 'onnx' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_reading_a_backbone_needs_no_torch() -> None:
    code = "import algan_trainer.backbone.file, sys; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False"]


def test_a_vector_output_is_a_tap_too(tmp_path: Path) -> None:
    model = tiny_model(None)
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["high"], ["pooled"]))
    model.graph.node.append(helper.make_node("Flatten", ["pooled"], ["vector"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["N", 6]))
    backbone = read_backbone(write_tiny(tmp_path / "b.onnx", model))
    assert not backbone.taps["vector"].is_map
    given = {"feature.mean": (0.0,) * 3, "feature.std": (1.0,) * 3}
    assert make_plan(backbone, override(Config(), given).feature, 65535).features == 6
    config = override(Config(), given | {"feature.pool": ("mean", "max")})
    with pytest.raises(BackboneError, match="output vector is a vector already"):
        make_plan(backbone, config.feature, 65535)
