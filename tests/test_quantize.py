"""int8 is stored only if it judges as fp32 does, and whatever happens leaves a bundle that opens."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner

from algan_deploy.quantize import search as search_module
from algan_deploy.quantize.command import MARGIN, quantize_bundle
from algan_deploy.quantize.errors import QuantizationError
from algan_deploy.quantize.graph import calibration_of, layer_names, write_int8
from algan_deploy.quantize.measuring import Comparison, compare, int8_layers, score
from algan_deploy.quantize.samples import read_samples
from algan_deploy.quantize.search import MOST_GROUPS, Quantiser, Trial, faults
from algan_stream.bundle import (
    MANIFEST,
    QUANTIZED,
    Bundle,
    Quantization,
    read_bundle,
    replace_calibration,
    replace_quantized,
)
from algan_stream.calibration import with_raw_threshold
from algan_stream.cli import app
from algan_stream.demo.parts import render_part
from algan_stream.engines.gate import check_golden
from algan_stream.errors import BundleError, InputError, PluginError
from bundles import make_bundle
from fakes import FakeEngine
from vector_bundles import good_vectors, make_vector_bundle

needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None,
    reason="NNCF is not installed: pip install 'algan-stream[quantize]'",
)
Quantisers = Callable[[Bundle, Any], Quantiser]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good/` and `dark/`, 24 images each, which even random weights tell apart."""
    root = tmp_path_factory.mktemp("parts")
    for name, factor in (("good", 1.0), ("dark", 0.3)):
        (root / name).mkdir()
        for seed in range(24):
            pixels = (render_part(seed, size_px=48).image[..., ::-1] * factor).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{seed:02}.png")
    return root


@pytest.fixture
def judged(own_bundle: Bundle, parts: Path, tmp_path: Path) -> Bundle:
    """A bundle whose threshold parts its golden images, where no score is near."""
    found = score(own_bundle.model_path, read_samples(own_bundle, parts / "good", None, tmp_path))
    golden, scores = np.sort(found.golden["openvino"]), np.sort(found.everything)
    between = scores[(scores >= golden[0]) & (scores <= golden[-1])]
    widest = int(np.argmax(np.diff(between)))
    threshold = float(between[widest : widest + 2].mean())
    return replace_calibration(own_bundle, with_raw_threshold(found.good, threshold))


def _shifted(by: dict[str, float], made: list[tuple[str, tuple[str, ...]]]) -> Quantisers:
    """A quantiser that leaves the weights alone and moves every logit, less for each layer kept."""

    def for_bundle(bundle: Bundle, _: object) -> Quantiser:
        def write(path: Path, activations: str, kept: tuple[str, ...]) -> None:
            made.append((activations, kept))
            model = onnx.load(str(bundle.model_path))
            shift = sum(amount for layer, amount in by.items() if layer not in kept)
            last = model.graph.node[-2]
            model.graph.initializer.append(numpy_helper.from_array(np.array([shift], np.float32), "shift"))
            last.input.append("shift")  # the bias of the last convolution
            onnx.save(model, str(path))

        return write

    return for_bundle


def _refuse(*_: object) -> None:
    pytest.fail("nothing to note")


# ---- the real thing ----------------------------------------------------------------------------------------


@needs_nncf
def test_nncf_makes_a_graph_that_every_engine_reads_alike(judged: Bundle, parts: Path) -> None:
    trials: list[Trial] = []
    changed, decision = quantize_bundle(judged, parts / "good", parts, trials.append)
    assert decision.accepted
    assert decision.tried == len(trials)
    assert decision.calibration_images == 24
    assert decision.compared == 24 + 48 + 4
    assert decision.golden_flips == 0
    assert set(decision.golden_differences) == {"openvino", "onnxruntime"}
    assert read_bundle(judged.path) == changed
    assert changed.manifest.quantization == decision

    before, after = (onnx.load(str(path)) for path in (changed.model_path, changed.model_for("int8")))
    assert after.graph.input == before.graph.input  # N stays free
    assert after.graph.output == before.graph.output
    assert after.opset_import == before.opset_import
    weights = {t.name: t for t in after.graph.initializer}
    scales = [
        weights[n.input[1]]
        for n in after.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in weights
    ]
    assert len(scales) == decision.layers - len(decision.kept_layers)
    assert max(np.prod(scale.dims) for scale in scales) > 1  # one for each channel
    if decision.activations == "symmetric":
        zeros = [numpy_helper.to_array(t) for name, t in weights.items() if name.startswith("zero_point")]
        assert zeros
        assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)

    found = score(changed.model_for("int8"), read_samples(changed, parts / "good", None, parts))
    difference = np.abs(found.golden["openvino"] + changed.golden().logits).max()
    assert difference == pytest.approx(decision.golden_differences["openvino"], abs=1e-4)
    assert difference > 0  # it is not fp32
    assert np.abs(found.golden["openvino"] - found.golden["onnxruntime"]).max() < 0.05 * np.ptp(found.good)


@needs_nncf
def test_openvino_runs_it_in_int8(judged: Bundle, parts: Path, tmp_path: Path) -> None:
    good = calibration_of(read_samples(judged, parts / "good", None, tmp_path).good)
    layers = layer_names(judged.model_path)
    assert layers == ("c32", "c16", "c8", "c")
    for kept in ((), layers[:1]):
        write_int8(judged.model_path, good, "symmetric", kept, tmp_path / "int8.onnx")
        assert int8_layers(tmp_path / "int8.onnx") == (4 - len(kept), 4)
    assert int8_layers(judged.model_path) == (0, 4)


@needs_nncf
def test_activations_of_one_sign_are_signed_too(tmp_path: Path, parts: Path, own_bundle: Bundle) -> None:
    model = onnx.load(str(own_bundle.model_path))
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            node.op_type = "Relu"
            del node.attribute[:]
    onnx.save(model, str(tmp_path / "relu.onnx"))
    good = read_samples(own_bundle, parts / "good", None, tmp_path).good
    scores = []
    for activations in ("symmetric", "asymmetric"):
        write_int8(tmp_path / "relu.onnx", good, activations, (), tmp_path / "int8.onnx")
        made = onnx.load(str(tmp_path / "int8.onnx"))
        zero = {n.input[2] for n in made.graph.node if n.op_type == "QuantizeLinear"}
        types = {numpy_helper.to_array(t).dtype.name for t in made.graph.initializer if t.name in zero}
        assert types == ({"int8"} if activations == "symmetric" else {"uint8"} | types)
        scores.append(_logits(tmp_path / "int8.onnx", good))
    expected = _logits(tmp_path / "relu.onnx", good)
    for found in scores:
        assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


@needs_nncf
def test_the_command_and_what_it_leaves(judged: Bundle, parts: Path) -> None:
    runner = CliRunner()
    called = ["quantize", str(judged.path), "--good", str(parts / "good")]
    done = runner.invoke(app, [*called, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said["accepted"]
    assert said["auroc_before"] is None
    with pytest.raises(BundleError, match="has an int8 graph already; replace it by --force"):
        runner.invoke(app, called, catch_exceptions=False)
    assert "No labels" in runner.invoke(app, [*called, "--force"], catch_exceptions=False).stdout
    shown = runner.invoke(app, ["bundle", "show", str(judged.path)], catch_exceptions=False).stdout
    assert "accepted" in shown
    assert QUANTIZED in shown


def test_good_images_that_are_rejects_are_questioned(
    judged: Bundle, parts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = replace_calibration(judged, with_raw_threshold([-2.0], -1000.0))
    quantize_bundle(bundle, parts / "good", None, lambda _: None, _shifted({}, []))
    assert "100 % of the images in" in caplog.text


@needs_nncf
def test_vectors_that_have_no_weights_are_refused(tmp_path: Path) -> None:
    bundle = make_vector_bundle(tmp_path / "bundle")
    np.save(tmp_path / "good.npy", good_vectors(40))
    with pytest.raises(QuantizationError, match="has no layer with weights"):
        quantize_bundle(bundle, tmp_path / "good.npy", None, _refuse)
    assert read_bundle(bundle.path) == bundle


def test_without_nncf_it_says_what_to_install(
    judged: Bundle, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    good = read_samples(judged, parts / "good", None, tmp_path).good
    with pytest.raises(PluginError, match=r"pip install 'algan-stream\[quantize\]'"):
        write_int8(judged.model_path, good, "symmetric", (), tmp_path / "int8.onnx")


# ---- the rule ----------------------------------------------------------------------------------------------


def _comparison(**change: Any) -> Comparison:
    same: dict[str, Any] = {
        "auroc_before": None, "auroc_after": None, "good_error": 0.0, "largest_difference": 0.0,
        "golden_differences": {}, "compared": 100, "flips": 0, "good_flips": 0, "good_share_flipped": 0.0,
        "golden_flips": 0,
    }  # fmt: skip
    return Comparison(**{**same, **change})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"auroc_before": 0.9, "auroc_after": 0.8985}, ""),
        ({"auroc_before": 0.9, "auroc_after": 0.95}, ""),
        ({"auroc_before": 0.9, "auroc_after": 0.8975}, "AUROC drops by 0.0025 to 0.8975"),
        ({"auroc_before": 0.9, "auroc_after": float("nan")}, "AUROC drops by nan"),
        ({"golden_flips": 1}, "turns 1 golden verdicts around"),
        ({"auroc_before": 0.9, "auroc_after": 0.9, "golden_flips": 1}, "golden"),
        ({"good_flips": 1, "good_share_flipped": 0.01}, ""),
        ({"good_flips": 2, "good_share_flipped": 0.02}, "turns 2 verdicts on good ones around, 2.0%"),
        ({"auroc_before": 0.9, "auroc_after": 0.9, "good_flips": 2, "good_share_flipped": 0.02}, ""),
        ({"flips": None, "good_flips": None, "golden_flips": None}, ""),
    ],
)
def test_what_is_good_enough(change: dict[str, Any], fault: str) -> None:
    found = faults(_comparison(**change))
    assert fault in " and ".join(found)
    assert bool(found) == bool(fault)


def test_flips_are_counted_on_both_runtimes(judged: Bundle, parts: Path, tmp_path: Path) -> None:
    samples = read_samples(judged, parts / "good", parts, tmp_path)
    before = score(judged.model_path, samples)
    threshold = judged.manifest.calibration.threshold
    same = compare(before, before, samples.golden.logits, threshold)
    assert (same.flips, same.golden_flips, same.largest_difference) == (0, 0, 0.0)
    other = {**before.golden, "onnxruntime": before.golden["onnxruntime"] * -1 + 2 * threshold}
    turned = compare(before, dataclasses.replace(before, golden=other), samples.golden.logits, threshold)
    assert turned.golden_flips == 4
    assert turned.flips == 0
    assert compare(before, before, samples.golden.logits, None).flips is None


# ---- refusals, and mixed precision before them -------------------------------------------------------------


def test_a_flipped_golden_verdict_is_refused_after_everything_was_tried(judged: Bundle, parts: Path) -> None:
    first, made = replace_old(judged), []
    far = dict.fromkeys(layer_names(judged.model_path), 100.0)
    changed, decision = quantize_bundle(first, parts / "good", parts, lambda _: None, _shifted(far, made))
    assert not decision.accepted
    assert "golden verdicts" in decision.reason
    assert decision.golden_flips
    assert decision.tried == len(made)
    assert {activations for activations, _ in made} == {"symmetric", "asymmetric"}
    keeping = [kept for activations, kept in made if activations == "symmetric"]
    assert keeping[:4] == [(), ("c32",), ("c",), ("c32", "c")]
    assert len(set(keeping)) == len(keeping)
    assert read_bundle(judged.path) == changed
    assert QUANTIZED not in changed.manifest.files
    assert not (judged.path / QUANTIZED).exists()  # the old one is gone with its entry
    assert "int8" not in changed.manifest.tolerance
    assert changed.manifest.quantization == decision
    with pytest.raises(BundleError, match=r"algan-stream quantize .* --good FOLDER"):
        changed.model_for("int8")


def replace_old(bundle: Bundle) -> Bundle:
    """With some int8 graph, as an earlier run might have left it."""
    return replace_quantized(bundle, b"old", _decision(), 1.0)


def test_the_command_ends_with_its_own_code(
    judged: Bundle, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "faults", lambda _: ("is not to our liking",))
    far = _shifted(dict.fromkeys(layer_names(judged.model_path), 1.0), [])
    monkeypatch.setattr("algan_deploy.quantize.command._by_nncf", far)
    with pytest.raises(QuantizationError, match=r"after \d+ attempts: the closest is not to our") as caught:
        CliRunner().invoke(
            app, ["quantize", str(judged.path), "--good", str(parts / "good")], catch_exceptions=False
        )
    assert caught.value.exit_code == 9
    assert not read_bundle(judged.path).manifest.quantization.accepted


@pytest.mark.parametrize("sensitive", ["c32", "c16", "c"])
def test_the_sensitive_layer_alone_stays_in_fp32(judged: Bundle, parts: Path, sensitive: str) -> None:
    made: list[tuple[str, tuple[str, ...]]] = []
    changed, decision = quantize_bundle(
        judged, parts / "good", None, lambda _: None, _shifted({sensitive: 1000.0}, made)
    )
    assert decision.accepted
    assert decision.kept_layers == (sensitive,)
    assert decision.activations == "symmetric"
    assert changed.model_for("int8").is_file()


def test_layers_are_added_by_what_they_do_to_the_scores(judged: Bundle, parts: Path) -> None:
    made: list[tuple[str, tuple[str, ...]]] = []
    _, decision = quantize_bundle(
        judged, parts / "good", None, lambda _: None, _shifted({"c16": 900.0, "c8": 500.0}, made)
    )
    assert decision.accepted
    assert decision.kept_layers == ("c16", "c8")
    assert made[-1] == ("symmetric", ("c16", "c8"))


def test_a_drop_of_auroc_is_refused_and_the_closest_is_told(judged: Bundle, parts: Path) -> None:
    def spoilt(bundle: Bundle, _: object) -> Quantiser:
        def write(path: Path, activations: str, kept: tuple[str, ...]) -> None:
            model = onnx.load(str(bundle.model_path))
            for weight in model.graph.initializer:
                if weight.name == "w":  # all answers become the same
                    weight.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(weight), "w"))
            onnx.save(model, str(path))

        return write

    without = Bundle(judged.path, msgspec.structs.replace(judged.manifest, calibration=None))
    _, decision = quantize_bundle(without, parts / "good", parts, lambda _: None, spoilt)
    assert not decision.accepted
    assert decision.auroc_after == 0.5
    assert decision.auroc_before > 0.6
    assert "AUROC drops" in decision.reason
    assert decision.flips is None


def test_many_layers_are_kept_in_groups() -> None:
    names = [f"l{i}" for i in range(54)]
    groups = search_module._groups(names)
    assert [name for group in groups for name in group] == names
    assert len(groups) == MOST_GROUPS
    assert groups[0] == ("l0",)
    assert groups[-1] == ("l53",)
    assert list(search_module._choices(["only"], [])) == [()]


# ---- what it is given --------------------------------------------------------------------------------------


def test_there_must_be_something_to_judge_by(judged: Bundle, parts: Path) -> None:
    without = Bundle(judged.path, msgspec.structs.replace(judged.manifest, calibration=None))
    with pytest.raises(InputError, match="has no threshold and --labelled is not given"):
        quantize_bundle(without, parts / "good", None, _refuse)


def test_folders_that_will_not_do(judged: Bundle, parts: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "a.png").write_bytes((parts / "good" / "00.png").read_bytes())
    for good, labelled, message in (
        (few, None, "expected at least 16 good ones, got 1"),
        (parts / "good", few, "expected a subfolder `good` and at least one of defects, got none"),
        (parts / "good", parts / "nowhere", "expected a subfolder `good`"),
        (tmp_path / "nowhere", None, "no such folder"),
    ):
        with pytest.raises(InputError, match=message):
            quantize_bundle(judged, good, labelled, _refuse)


def test_the_demo_bundle_stays_as_it_is(parts: Path) -> None:
    with pytest.raises(BundleError, match="the shipped demo bundle is not changed"):
        CliRunner().invoke(app, ["quantize", "demo", "--good", str(parts / "good")], catch_exceptions=False)


# ---- the bundle --------------------------------------------------------------------------------------------


def _decision(**change: Any) -> Quantization:
    decision = Quantization(
        accepted=True, activations="symmetric", layers=4, kept_layers=("c",), calibration_images=24,
        compared=52, auroc_before=0.9, auroc_after=0.899, flips=1, golden_flips=0, largest_difference=0.5,
        golden_differences={"openvino": 0.25}, tried=3, tool_versions={"nncf": "3"},
        date="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return msgspec.structs.replace(decision, **change)


def test_the_tolerance_lets_this_graph_pass_and_no_worse_one(judged: Bundle, parts: Path) -> None:
    changed, decision = quantize_bundle(
        judged, parts / "good", parts, lambda _: None, _shifted({"c": 0.002}, [])
    )
    measured = max(decision.golden_differences.values())
    assert measured == pytest.approx(0.002, rel=0.01)
    tolerance = changed.manifest.tolerance["int8"]
    assert tolerance == pytest.approx(MARGIN * measured + changed.manifest.tolerance["fp32"])
    golden = changed.golden().logits
    for shift, passes in ((0.002, True), (0.005, False)):
        engine = FakeEngine(
            max_batch=4, on_finish=lambda *_, by=shift: golden + by, spec=changed.manifest.input_spec
        )
        engine.identity = type(engine.identity)("fake", "1", "none", "int8", 1)
        if passes:
            check_golden(changed, engine)
        else:
            with pytest.raises(Exception, match="differs from the bundle's golden logits"):
                check_golden(changed, engine)


def test_decision_and_graph_are_read_again(own_bundle: Bundle) -> None:
    changed = replace_quantized(own_bundle, b"graph", _decision(), 0.5)
    assert read_bundle(own_bundle.path) == changed
    assert changed.model_for("int8").read_bytes() == b"graph"
    assert changed.model_for("fp32") == own_bundle.model_path
    assert changed.manifest.tolerance == {**own_bundle.manifest.tolerance, "int8": 0.5}
    refused = replace_quantized(changed, None, _decision(accepted=False, reason="bad"), None)
    assert read_bundle(own_bundle.path) == refused
    assert refused.manifest.files == own_bundle.manifest.files
    assert refused.manifest.tolerance == own_bundle.manifest.tolerance


def test_an_older_manifest_is_read(own_bundle: Bundle) -> None:
    path = own_bundle.path / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["quantization"]
    path.write_text(json.dumps(manifest))
    assert read_bundle(own_bundle.path).manifest.quantization is None


@pytest.mark.parametrize("had_one", [False, True])
@pytest.mark.parametrize("step", range(1, 5))
def test_whatever_interrupts_it_leaves_a_bundle_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, had_one: bool, step: int
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    if had_one:
        bundle = replace_quantized(bundle, b"old", _decision(), 1.0)
    replace, steps = Path.replace, iter(range(1, 100))

    def interrupted(self: Path, target: Path) -> Path:
        if next(steps) == step:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    renames = 3 if had_one else 2
    if step <= renames:
        with pytest.raises(KeyboardInterrupt):
            replace_quantized(bundle, b"new", _decision(), 0.5)
    else:
        replace_quantized(bundle, b"new", _decision(), 0.5)
    found = read_bundle(bundle.path)  # every file as its manifest says
    assert found.model_sha256 == bundle.model_sha256
    if step == 1:
        assert found == bundle
    elif step <= renames:
        assert QUANTIZED not in found.manifest.files
    else:
        assert found.model_for("int8").read_bytes() == b"new"
    assert not [path.name for path in bundle.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("syncs", [1, 3])
def test_a_full_disk_leaves_no_graph_that_no_manifest_lists(
    own_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, syncs: int
) -> None:
    """In the graph's file, or in the manifest's."""
    done: list[int] = []

    def full_disk(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == syncs:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        replace_quantized(own_bundle, b"new", _decision(), 0.5)
    assert read_bundle(own_bundle.path) == own_bundle
    assert not (own_bundle.path / QUANTIZED).exists()


def _logits(path: Path, inputs: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["logit"], {"input": inputs})[0]
    return found
