"""`algan-stream verify`: every engine before the gate, and the same verdicts here as on another machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from algan_deploy.verify_engines import everything, parse
from algan_stream.bundle import Bundle
from algan_stream.cli import app
from algan_stream.demo.parts import render_part
from algan_stream.errors import BundleError, ConfigError, InputError, PluginError
from bundles import make_bundle
from vector_bundles import good_vectors, make_vector_bundle

runner = CliRunner()
_HERE = ("openvino:fp32", "openvino:int8", "onnxruntime:fp32", "onnxruntime:int8")
_BOTH = ("--engine", "openvino", "--engine", "onnxruntime:fp32:cpu")


def call(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, ["verify", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def report(*arguments: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(*arguments, "--json", code=code))
    return found


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algan_deploy.verify_engines._SECONDS", 0.02)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("quantised") / "bundle", quantised=True)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("parts")
    (folder / "more").mkdir()
    for seed in range(6):
        name = f"more/{seed}.png" if seed % 2 else f"{seed}.png"
        Image.fromarray(render_part(seed, size_px=48).image[..., ::-1]).save(folder / name)
    return folder


def test_every_engine_is_asked_and_those_that_are_not_here_say_why(quantised: Bundle) -> None:
    found = report(quantised.path)
    assert found["ok"]
    engines = {trial["name"]: trial for trial in found["engines"]}
    assert next(iter(engines)) == "openvino:fp32:CPU"
    passed = {name.rpartition(":")[0] for name, trial in engines.items() if trial["state"] == "passed"}
    assert passed >= set(_HERE)
    for trial in engines.values():
        assert not trial["by_name"]
        if trial["state"] == "passed":
            assert trial["golden_images"] == 4
            assert 0 <= trial["max_score_difference"] <= trial["tolerance"]
            assert trial["flips"] == []
            assert trial["ms_per_image"] > 0
            assert trial["reason"] == ""
        else:
            assert trial["state"] == "unavailable"
            assert trial["reason"]
    assert engines["openvino:fp32:CPU"]["times_first"] == 1.0


def test_the_table_has_a_line_for_each(quantised: Bundle) -> None:
    shown = call(quantised.path, *_BOTH)
    assert shown.count("passed") == 2
    assert "golden gate of test" in shown


def test_one_that_was_asked_for_must_pass(quantised: Bundle) -> None:
    found = report(quantised.path, "--engine", "openvino", "--engine", "openvino:fp32:GPU.77", code=6)
    assert [trial["state"] for trial in found["engines"]] == ["passed", "unavailable"]
    assert "GPU.77 is not here" in found["engines"][1]["reason"]
    assert not found["ok"]


def test_without_any_that_passes_it_fails(own_bundle: Bundle) -> None:
    manifest = own_bundle.path / "manifest.json"
    stated = json.loads(manifest.read_text())
    stated["tolerance"] = {"fp32": 0.0}
    manifest.write_text(json.dumps(stated))
    found = report(own_bundle.path, code=6)
    refused = [trial for trial in found["engines"] if trial["state"] == "refused"]
    assert {trial["name"].split(":")[0] for trial in refused} == {"openvino", "onnxruntime"}
    for trial in refused:
        assert "differs from the bundle's golden logits" in trial["reason"] or "tolerance" in trial["reason"]
        assert trial["max_score_difference"] > 0
        assert trial["ms_per_image"] is None


def test_a_flip_is_counted(quantised: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from algan_stream.engines.onnxruntime import OnnxRuntimeEngine

    real = OnnxRuntimeEngine.infer
    monkeypatch.setattr(OnnxRuntimeEngine, "infer", lambda self, inputs: real(self, inputs) - 100)
    found = report(quantised.path, "--engine", "onnxruntime", code=6)
    golden = quantised.golden().logits
    assert quantised.manifest.calibration is not None
    passed = -golden <= quantised.manifest.calibration.threshold
    assert found["engines"][0]["flips"] == np.flatnonzero(passed).tolist() != []


def test_one_broken_engine_does_not_hide_the_others(
    quantised: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("algan_stream.engines.onnxruntime.create", broken)
    found = report(quantised.path)
    reasons = {t["reason"] for t in found["engines"] if t["name"].startswith("onnxruntime")}
    assert reasons == {"OSError: libcuda.so.1: cannot open shared object file"}
    assert found["ok"]


def test_what_may_stand_after_engine() -> None:
    assert parse("openvino").section == {"kind": "openvino"}
    assert parse("openvino::GPU.1").section == {"kind": "openvino", "device": "GPU.1"}
    assert parse("onnxruntime:fp16:tensorrt").section == {
        "kind": "onnxruntime",
        "precision": "fp16",
        "provider": "tensorrt",
    }
    assert parse("{kind: openvino, threads: 1}").section == {"kind": "openvino", "threads": 1}
    with pytest.raises(ConfigError, match="is not valid YAML"):
        parse("{kind: [openvino}")
    with pytest.raises(PluginError, match=r"--engine\.kind: .* got None"):
        parse("{}")
    with pytest.raises(PluginError, match=r"--engine\.kind: expected one of .*openvino.*, got 'tpu'"):
        parse("tpu:int8")
    names = [wanted.name for wanted in everything()]
    assert len(set(names)) == len(names)
    assert {name.split(":")[0] for name in names} >= {"openvino", "onnxruntime"}


def test_verdicts_on_images_are_compared_with_the_first_engines(quantised: Bundle, parts: Path) -> None:
    found = report(quantised.path, *_BOTH, "--engine", "openvino:int8", "--images", parts)
    first, second, rough = found["images"]
    assert first["reference"] == second["reference"] == rough["reference"] == first["engine"]
    assert (first["max_score_difference"], first["identical"], first["images"]) == (0.0, True, 6)
    assert 0 < second["max_score_difference"] < 1e-3 < rough["max_score_difference"]
    assert second["identical"]


def test_another_machine_must_give_the_same_verdicts(quantised: Bundle, parts: Path, tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    report(quantised.path, "--engine", "openvino", "--images", parts, "--save", file)
    saved = json.loads(file.read_text())
    assert set(saved["files"]) == {"0.png", "2.png", "4.png", "more/1.png", "more/3.png", "more/5.png"}
    again = ("--engine", "onnxruntime", "--images", parts, "--against", file)
    found = report(quantised.path, *again)
    assert found["ok"]
    assert [(one["identical"], one["images"]) for one in found["against"]] == [(True, 6)]
    answer = saved["engines"][0]["answers"]["more/3.png"]
    answer["verdict"] = {"pass": "reject", "reject": "pass"}[answer["verdict"]]
    file.write_text(json.dumps(saved))
    found = report(quantised.path, *again, code=6)
    assert found["against"][0]["flips"] == ["more/3.png"]
    assert [trial["state"] for trial in found["engines"]] == ["passed"]
    assert "more/3.png: another verdict than openvino" in call(quantised.path, *again, code=6)


def test_what_cannot_be_compared_is_refused(quantised: Bundle, parts: Path, tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    engine = ("--engine", "openvino")
    report(quantised.path, *engine, "--images", parts, "--save", file)
    saved = json.loads(file.read_text())
    again = (quantised.path, *engine, "--images", parts, "--against", file)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"model_sha256": "0" * 64}, BundleError, "about another model"),
        ({"threshold": saved["threshold"] + 1}, BundleError, "was judged at the threshold"),
        ({"files": {**saved["files"], "0.png": "0" * 64}}, InputError, r"other images: 0\.png"),
        ({"engines": []}, InputError, "holds no engine's verdicts"),
        ({"format_version": 2}, InputError, "expected a file that `algan-stream verify --save` wrote"),
    ]
    for change, kind, message in cases:
        file.write_text(json.dumps({**saved, **change}))
        with pytest.raises(kind, match=message):
            call(*again)
    file.unlink()
    with pytest.raises(InputError, match="No such file"):
        call(*again)
    with pytest.raises(ConfigError, match="need --images FOLDER"):
        call(quantised.path, *engine, "--save", file)
    uncalibrated = make_bundle(tmp_path / "uncalibrated", calibrated=False)
    with pytest.raises(InputError, match="has no calibration"):
        call(uncalibrated.path, *engine, "--images", parts)
    assert report(uncalibrated.path, *engine)["ok"]


def test_tables_of_vectors_too(tmp_path: Path) -> None:
    bundle = make_vector_bundle(tmp_path / "bundle")
    (tmp_path / "tables").mkdir()
    np.save(tmp_path / "tables" / "a.npy", np.concatenate([good_vectors(5), good_vectors(1) + 50]))
    found = report(bundle.path, *_BOTH, "--images", tmp_path / "tables")
    assert [one["images"] for one in found["images"]] == [6, 6]
    assert all(one["identical"] for one in found["images"])
