"""`bundle wrap`: other people's models score in a bundle what they score alone, or are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from PIL import Image
from typer.testing import CliRunner

import anomaly_models as models
from algan_deploy.wrap.bundling import Request, wrap
from algan_deploy.wrap.graph import Wish
from algan_deploy.wrap.spec import InputRange, make_spec
from algan_stream.bundle import MODEL, Bundle, read_bundle
from algan_stream.cli import app
from algan_stream.demo.parts import render_part
from algan_stream.engines.gate import open_engine
from algan_stream.errors import AlganError, BundleError, ConfigError, PluginError
from algan_stream.images import list_images, read_image
from algan_stream.preprocess import preprocess
from algan_stream.scoring import score_images
from anomaly_models import SIZE


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for seed in range(24):
        Image.fromarray(render_part(seed, size_px=40).image[..., ::-1]).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture(scope="module")
def defective(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("defective")
    for seed in range(5):
        white = render_part(seed, size_px=40).image[..., ::-1].copy()
        white[8:20, 8:20] = (255, 255, 255)
        Image.fromarray(white).save(folder / f"{seed:02}.png")
    return folder


def wrapped(model: onnx.ModelProto, folder: Path, good: Path, **wish: Any) -> Bundle:
    wish = {"input_range": InputRange.UNIT, "false_reject_rate": 0.05, **wish}
    path = models.save(model, folder / "model.onnx")
    return wrap(Request(path, folder / "bundle", good, **wish), lambda line: None)


def scores_alone(
    model: onnx.ModelProto, output: str, images: list[np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """By ONNX's own reference evaluator, one image at a time."""
    evaluator = onnx.reference.ReferenceEvaluator(model)
    name = model.graph.input[0].name
    return np.array([float(evaluator.run([output], {name: image})[0].reshape(-1)[0]) for image in images])


def scores_served(bundle: Bundle, folder: Path) -> np.ndarray[Any, Any]:
    engine = open_engine(bundle)
    try:
        lines = list(score_images(bundle, engine, list_images(folder)))
    finally:
        engine.close()
    return np.array([line.score for line in lines])


def unit(folder: Path) -> list[np.ndarray[Any, Any]]:
    """What `--input-range unit` promises: RGB, 0..1."""
    spec = make_spec(None, InputRange.UNIT, planes=3, height_px=SIZE, width_px=SIZE)
    read = [read_image(path) for path in list_images(folder)]
    return [preprocess(image, spec, pixel_format=kind) for image, kind in read]


@pytest.mark.parametrize("score_dims", [(), (1,), (1, 1, 1)])
@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_scores_are_the_models_own(
    batch: int | str, score_dims: tuple[int, ...], tmp_path: Path, good: Path
) -> None:
    bundle = wrapped(models.like_anomalib(batch=batch, score_dims=score_dims), tmp_path, good)
    expected = scores_alone(models.like_anomalib(), "pred_score", unit(good))
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(scores_served(bundle, good), expected, atol=1e-5)
    graph = onnx.load(bundle.path / MODEL).graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["logit"]
    assert not [node for node in graph.node if node.op_type == "Greater"]  # what makes no score is gone


def test_the_bundle_says_where_it_comes_from(tmp_path: Path, good: Path, defective: Path) -> None:
    bundle = wrapped(models.like_anomalib(), tmp_path, good, defective=defective, name="press 3")
    manifest = bundle.manifest
    assert (manifest.model_kind, manifest.name) == ("wrapped", "press 3")
    source = manifest.provenance["source"]
    assert source["producer"] == "someone"
    assert source["score_output"] == "pred_score"
    assert len(source["sha256"]) == 64
    assert manifest.provenance["images"]["good"] == 24
    assert manifest.provenance["images"]["auroc"] == 1.0
    assert max(manifest.provenance["parity"].values()) < 1e-5
    assert manifest.calibration is not None
    assert len(manifest.calibration.good_scores) == 24
    golden = bundle.golden()
    assert len(golden.logits) > 8
    assert (-golden.logits > manifest.calibration.threshold).any()  # defective ones are among them
    assert (-golden.logits < manifest.calibration.threshold).any()


def test_too_few_images_leave_it_uncalibrated_and_say_so(tmp_path: Path, good: Path) -> None:
    path, lines = models.save(models.like_anomalib(), tmp_path / "m.onnx"), []
    request = Request(path, tmp_path / "b", good, input_range=InputRange.UNIT, false_reject_rate=0.01)
    assert wrap(request, lines.append).manifest.calibration is None
    assert any("needs 99 good images, got 24" in line for line in lines)
    assert scores_served(read_bundle(tmp_path / "b"), good).size == 24  # and it serves all the same


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_in_a_reshape_is_opened(batch: int, tmp_path: Path, good: Path) -> None:
    bundle = wrapped(models.with_baked_batch(batch), tmp_path, good)
    assert bundle.manifest.provenance["source"]["rewritten"] == ["vector"]
    expected = scores_alone(models.with_baked_batch(), "logit", unit(good))
    np.testing.assert_allclose(scores_served(bundle, good), expected, atol=1e-5)


def test_clipped_scores_are_pointed_out(tmp_path: Path, good: Path) -> None:
    lines: list[str] = []
    model = models.of_its_brightness(scale=100.0, sign="Sigmoid")  # 0 or 1 for nearly every picture
    path = models.save(model, tmp_path / "m.onnx")
    wrap(
        Request(path, tmp_path / "b", good, input_range=InputRange.SYMMETRIC, false_reject_rate=0.05),
        lines.append,
    )
    assert any("seems to clip its scores" in line for line in lines)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("normal", [False, True])
def test_layout_colours_and_sign(layout: str, bgr: bool, normal: bool, tmp_path: Path) -> None:
    """By hand: the mean of red, green and blue of flat images is known without running anything."""
    folder = tmp_path / "flat"
    folder.mkdir()
    colours = np.array([[200, 30, 5], [3, 250, 90], [0, 10, 255]], np.uint8)
    for index, colour in enumerate(colours):
        Image.fromarray(np.broadcast_to(colour, (30, 50, 3)).copy()).save(folder / f"{index}.png")
    bundle = wrapped(
        models.of_its_brightness(layout), tmp_path, folder, wish=Wish(higher_is_normal=normal, bgr=bgr)
    )
    weights = np.array([1, 2, 4]) if bgr else np.array([4, 2, 1])
    expected = (colours / 255.0) @ weights * (-1 if normal else 1)
    np.testing.assert_allclose(scores_served(bundle, folder), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("input_range", "values"),
    [
        (InputRange.UNIT, lambda x: x / 255),
        (InputRange.SYMMETRIC, lambda x: x / 127.5 - 1),
        (InputRange.BYTE, lambda x: x * 1.0),
        (InputRange.IMAGENET, lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
    ],
)
def test_ranges_are_what_they_are_called(input_range: InputRange, values: Any) -> None:
    spec = make_spec(None, input_range, planes=3, height_px=2, width_px=2)
    colour = np.array([10, 128, 250], np.uint8)
    found = preprocess(np.broadcast_to(colour, (2, 2, 3)).copy(), spec, pixel_format="rgb8")
    np.testing.assert_allclose(found[0, :, 0, 0], values(colour.astype(np.float64)), rtol=1e-5, atol=1e-5)


def test_five_planes_grey_and_half_precision(tmp_path: Path, good: Path) -> None:
    for index, (model, wish) in enumerate(
        (
            (models.like_anomalib(planes=5), {"input_range": InputRange.OURS}),
            (models.like_anomalib(planes=1), {}),
            (models.like_anomalib(element=onnx.TensorProto.DOUBLE), {}),
        )
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert np.ptp(scores_served(wrapped(model, folder, good, **wish), good)) > 0.001


def test_a_second_input_can_be_fixed(tmp_path: Path, good: Path) -> None:
    bundle = wrapped(models.with_numbers_beside(), tmp_path, good, constants={"sensitivity": 0.25})
    expected = [float(image.mean()) - 0.25 for image in unit(good)]
    np.testing.assert_allclose(scores_served(bundle, good), expected, atol=1e-5)


def test_an_open_size_is_fixed_by_the_spec(tmp_path: Path, good: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"height_px": SIZE, "width_px": SIZE, "downscale": "bilinear"}))
    bundle = wrapped(models.like_anomalib(size=("h", "w")), tmp_path, good, spec_file=spec)
    assert bundle.manifest.image_spec.shape_chw == (3, SIZE, SIZE)
    assert bundle.manifest.image_spec.downscale == "bilinear"


def test_the_command_line(tmp_path: Path, good: Path) -> None:
    model = models.save(models.like_anomalib(), tmp_path / "m.onnx")
    spec = tmp_path / "spec.yaml"
    spec.write_text("mean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    arguments = ["bundle", "wrap", model, "--out", tmp_path / "b", "--good", good, "--input-spec", spec]
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "not calibrated" in result.output
    shown = CliRunner().invoke(app, ["bundle", "show", str(tmp_path / "b")], catch_exceptions=False)
    assert "wrapped" in shown.output
    assert str(tmp_path / "b") in shown.output
    again = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(again.exception, BundleError)
    assert "is a bundle already; name another place, or say --overwrite" in str(again.exception)
    result = CliRunner().invoke(app, [str(a) for a in (*arguments, "--overwrite")], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _too_new() -> onnx.ModelProto:
    model = models.like_anomalib()
    model.opset_import[0].version = 999
    return model


def _ir_too_new() -> onnx.ModelProto:
    model = models.like_anomalib()
    model.ir_version = 999
    return model


def _integers() -> onnx.ModelProto:
    model = models.like_anomalib()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return model


def _unknown_operation() -> onnx.ModelProto:
    model = models.of_one_operation("Mystery", domain="some.vendor")
    model.opset_import.append(onnx.helper.make_opsetid("some.vendor", 1))
    return model


def _two_scores() -> onnx.ModelProto:
    model = models.like_anomalib()
    model.graph.node[-2].output[0] = model.graph.output[2].name = "one"
    model.graph.node[-1].input[0] = "one"
    copy = onnx.helper.make_node("Identity", ["one"], ["another"])
    model.graph.node.append(copy)
    model.graph.output.append(onnx.helper.make_tensor_value_info("another", onnx.TensorProto.FLOAT, ["n", 1]))
    return model


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "two inputs": (models.with_numbers_beside, {}, r"got 2: image \(\?, 3, 24, 24\), sensitivity \(\)"),
    "no such constant": (models.like_anomalib, {"constants": {"beta": 1.0}}, "has no input beta"),
    "no such output": (models.like_anomalib, {"score_output": "score"}, "its outputs are pred_label"),
    "a map is no score": (models.like_anomalib, {"score_output": "anomaly_map"}, r"got \(1, 1, 6, 6\) for 1"),
    "a label is no score": (models.like_anomalib, {"score_output": "pred_label"}, "not one floating-point"),
    "map": (models.like_anomalib, {"score_output": "wide"}, "has no output wide"),
    "not an image": (models.of_vectors, {}, r"expected an image \(N, C, H, W\)"),
    "which score": (_two_scores, {}, "got 2 that may be it"),
    "open size": (lambda: models.like_anomalib(size=("h", "w")), {}, "no fixed height; say"),
    "channels": (models.like_anomalib, {"input_range": InputRange.OURS}, "takes 3 channels, but .* makes 5"),
    "not a number": (lambda: models.of_one_operation("Log"), {"input_range": InputRange.SYMMETRIC}, "as nan"),
    "the same for all": (models.of_nothing, {}, "gives the score 3 to every image"),
    "whole batch": (models.looking_at_the_whole_batch, {}, "differ by .* with a dynamic batch"),
    "opset too new": (_too_new, {}, "opset: expected 7 to .*, got 999"),
    "IR too new": (_ir_too_new, {}, "IR version 999 is newer"),
    "integers": (_integers, {}, "expected float32 or"),
    "unknown operation": (_unknown_operation, {}, "cannot be run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, good: Path) -> None:
    make, wish, message = REFUSED[case]
    with pytest.raises(BundleError, match=message) as raised:
        wrapped(make(), tmp_path, good, **wish)
    assert raised.value.exit_code == 4
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".bundle*"))  # nothing half done is left behind


def test_without_onnx_runtime_openvino_bears_witness(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bundle = wrapped(models.like_anomalib(batch=1), tmp_path, good)
    assert bundle.manifest.provenance["versions"]["reference"].startswith("openvino ")
    expected = scores_alone(models.like_anomalib(), "pred_score", unit(good))
    np.testing.assert_allclose(scores_served(bundle, good), expected, atol=1e-5)


def test_without_onnx_it_says_what_to_install(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.save(models.like_anomalib(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PluginError, match=r"algan-stream\[wrap\]"):
        wrap(Request(path, tmp_path / "b", good, input_range=InputRange.UNIT), print)


def test_files_that_are_no_models_are_refused(tmp_path: Path, good: Path) -> None:
    for name, content in (("empty.onnx", b""), ("text.onnx", b"not a model at all"), ("m.json", b"{}")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BundleError, match="is not a whole ONNX model"):
            wrap(Request(path, tmp_path / "b", good, input_range=InputRange.UNIT), print)
    with pytest.raises(BundleError, match="cannot be read"):
        wrap(Request(tmp_path / "none.onnx", tmp_path / "b", good, input_range=InputRange.UNIT), print)


def test_weights_beside_the_file_come_along_or_are_missed(tmp_path: Path, good: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        models.with_baked_batch(),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    request = Request(path, tmp_path / "b", good, input_range=InputRange.UNIT, overwrite=True)
    expected = scores_alone(models.with_baked_batch(), "logit", unit(good))
    np.testing.assert_allclose(scores_served(wrap(request, lambda line: None), good), expected, atol=1e-5)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx"):
        wrap(request, lambda line: None)


def test_a_batch_that_cannot_be_opened_is_refused(tmp_path: Path, good: Path) -> None:
    """Its score is the first image's, however many there are."""
    with pytest.raises(BundleError, match="exported for 1 at a time"):
        wrapped(models.of_the_first_image(), tmp_path, good)


def test_what_stands_there_is_kept(tmp_path: Path, good: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        wrapped(models.like_anomalib(), tmp_path, good)
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("content", "input_range", "error", "message"),
    [
        ("", None, ConfigError, "not said how the model's pixels are normalised"),
        ("mean: [0, 0, 0]\n", InputRange.UNIT, ConfigError, "say the same thing twice"),
        ("mean: [0, 0, 0]\nstd: [1, 1, 1]\nmeen: 1\n", None, ConfigError, "meen: unknown key"),
        ("height_px: 48\n", InputRange.UNIT, BundleError, "height_px: the model takes 24, got 48"),
        ("[1, 2]", InputRange.UNIT, ConfigError, "expected fields"),
        ("{mean: [", InputRange.UNIT, ConfigError, "neither YAML nor JSON"),
        ("std: [0, 1, 1]\nmean: [0, 0, 0]\n", None, ConfigError, "above 0"),
    ],
)
def test_input_specs_that_are_refused(
    content: str, input_range: InputRange | None, error: type[AlganError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(content)
    with pytest.raises(error, match=message):
        make_spec(path if content else None, input_range, planes=3, height_px=SIZE, width_px=SIZE)


def test_one_grey_channel_needs_one_mean(tmp_path: Path, good: Path) -> None:
    with pytest.raises(BundleError, match="one grey channel"):
        wrapped(models.like_anomalib(planes=1), tmp_path, good, input_range=InputRange.IMAGENET)


@pytest.mark.parametrize("setting", ["beta", "=1", "beta=high"])
def test_settings_are_name_and_number(setting: str, tmp_path: Path) -> None:
    arguments = ["bundle", "wrap", "m.onnx", "--out", "b", "--good", str(tmp_path), "--set", setting]
    with pytest.raises(ConfigError, match="expected NAME=NUMBER"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
