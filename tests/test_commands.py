"""The subcommands that no other test runs: demo, doctor, bundle, calibrate, bench; in-process."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from algan_stream.bundle import read_bundle
from algan_stream.cli import app
from algan_stream.demo.parts import render_part
from algan_stream.errors import BundleError, CalibrationError, ConfigError, InputError
from bundles import make_bundle

runner = CliRunner()


def call(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "parts"
    folder.mkdir()
    for seed in range(40):
        Image.fromarray(render_part(seed, size_px=48).image[..., ::-1]).save(folder / f"{seed:02}.png")
    return folder


def test_the_shipped_bundle_is_small_whole_and_good_enough_to_show() -> None:
    bundle = read_bundle("demo")
    size = sum(path.stat().st_size for path in bundle.path.rglob("*"))
    assert size <= 1_000_000
    assert bundle.manifest.provenance["metrics"]["test_auroc"] >= 0.85


def test_demo_judges_parts_and_its_ledger_adds_up() -> None:
    shown = call("demo", "--seconds", 2, "--fps", 50)
    assert "Ledger" in shown
    frames = next(line for line in shown.splitlines() if "frames" in line and "│" in line)
    received, scored, dropped, expired, failed, in_flight = (int(n) for n in frames.split("│")[3:9])
    assert received == 100
    assert scored + dropped + expired + failed == 100
    assert in_flight == 0


def test_doctor_finds_this_machine_able_to_serve() -> None:
    report = json.loads(call("doctor", "--json"))
    assert report["ok"]
    states = {finding["name"]: finding["state"] for finding in report["findings"]}
    assert states["simd"] == states["engine openvino"] == states["golden gate"] == "ok"


def test_bundle_show_prints_the_manifest() -> None:
    manifest = json.loads(call("bundle", "show", "demo", "--json"))
    assert manifest["model_kind"] == "algan-image"
    assert "discriminator.onnx" in manifest["files"]
    assert "threshold" in call("bundle", "show", "demo")


def test_calibrate_writes_a_threshold_that_rejects_the_wanted_share(tmp_path: Path, parts: Path) -> None:
    path = make_bundle(tmp_path / "bundle", calibrated=False).path
    said = json.loads(call("calibrate", path, parts, "--false-reject-rate", 0.1, "--json"))
    assert said["n"] == 40
    rejected = [
        line for line in call("score", path, parts, "--jsonl", code=10).splitlines() if '"reject"' in line
    ]
    assert 1 <= len(rejected) <= 4
    assert read_bundle(path).manifest.calibration is not None


def test_calibrate_refuses_what_the_images_cannot_support(tmp_path: Path, parts: Path) -> None:
    path = make_bundle(tmp_path / "bundle").path
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(CalibrationError, match="needs at least 999 good images, got 40"):
        call("calibrate", path, parts, "--false-reject-rate", 0.001)
    with pytest.raises(ConfigError, match="either --false-reject-rate or --threshold"):
        call("calibrate", path, parts)
    assert (path / "manifest.json").read_bytes() == before


def test_calibrate_takes_a_raw_threshold(tmp_path: Path, parts: Path) -> None:
    path = make_bundle(tmp_path / "bundle").path
    call("calibrate", path, parts, "--threshold", 1.5)
    calibration = read_bundle(path).manifest.calibration
    assert calibration is not None
    assert (calibration.method, calibration.threshold) == ("raw", 1.5)


@pytest.mark.parametrize(
    ("which", "peers"),
    [
        (
            ("preprocess", "--full", "--only", "VGA to 256 px, bilinear", "--seconds", 0.1),
            {"opencv+numpy", "blobfromimages", "floor"},
        ),
        (("pipeline", "--bundle", "demo", "--seconds", 0.5), {"bare-engine"}),
    ],
)
def test_bench_rows_have_what_other_tools_rely_on(
    tmp_path: Path, which: tuple[object, ...], peers: set[str]
) -> None:
    file = tmp_path / "rows.json"
    call("bench", *which, "--json", file)
    rows = json.loads(file.read_text())
    assert peers <= {row["peer"] for row in rows}  # others are measured where they are installed
    for row in rows:
        assert set(row) == {"case", "subject", "value", "unit", "peer", "peer_value", "ratio"}
        assert row["value"] > 0
        assert row["ratio"] > 0


def test_bench_engine_sets_every_engine_beside_the_first(
    tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("algan_stream.commands.bench_engine.TURNS", 1)
    monkeypatch.setattr("algan_stream.commands.bench_engines.TURNS", 1)
    path = make_bundle(tmp_path / "bundle", quantised=True).path
    labelled = tmp_path / "labelled"
    shutil.copytree(parts, labelled / "good")
    shutil.copytree(parts, labelled / "dent")
    file = tmp_path / "rows.json"
    call("bench", "engine", "--bundle", path, "--images", labelled, "--seconds", 0.1, "--json", file)
    found = json.loads(file.read_text())
    assert {row["peer"] for row in found["wrapper"]} == {"bare-engine", "benchmark_app"}
    assert all(row["ratio"] > 0 for row in found["wrapper"])
    by_name = {" ".join(line["engine"].split()[::3]): line for line in found["engines"]}
    assert {"openvino fp32", "openvino int8", "onnxruntime fp32", "onnxruntime int8"} <= set(by_name)
    for line in by_name.values():
        assert set(line["ms_per_image"]) == {"1", "8", "64"}
        assert all(ms > 0 for ms in line["ms_per_image"].values())
        assert line["auroc"] == 0.5  # both folders hold the same images
    assert found["engines"][0]["times_first"] == 1.0
    assert found["engines"][0]["max_score_difference"] == 0.0
    assert by_name["onnxruntime fp32"]["max_score_difference"] < 1e-3
    assert by_name["openvino int8"]["max_score_difference"] > 1e-3
    for refusal in found["refused"]:
        assert refusal["reason"]


def test_the_full_list_has_every_format_frame_box_count_and_output() -> None:
    from algan_stream.commands.bench_preprocess_cases import BOX_COUNTS, FORMATS, FRAMES, SIDES_PX, full_list

    cases = full_list()
    assert len({case.name for case in cases}) == len(cases)
    assert {(c.frame, c.pixel_format) for c in cases if not c.count} >= {
        (f, p) for f in FRAMES for p in FORMATS
    }
    assert {(c.frame, c.side_px) for c in cases if not c.count} == {(f, s) for f in FRAMES for s in SIDES_PX}
    assert {(c.count, c.side_px) for c in cases if c.count} == {(n, s) for n in BOX_COUNTS for s in SIDES_PX}


def test_the_shipped_bundle_is_not_calibrated_in_place(parts: Path) -> None:
    with pytest.raises(BundleError, match="copy its directory"):
        call("calibrate", "demo", parts, "--false-reject-rate", 0.1)


def test_calibrate_refuses_images_that_were_trained_on(tmp_path: Path, parts: Path) -> None:
    path = make_bundle(tmp_path / "bundle").path
    digest = hashlib.sha256((parts / "03.png").read_bytes()).hexdigest()[:32]
    (path / "report").mkdir()
    (path / "report" / "split.csv").write_text(f"path,split,kind,sha256\nx.png,train,good,{digest}\n")
    with pytest.raises(CalibrationError, match="1 of 40 images were trained on"):
        call("calibrate", path, parts, "--false-reject-rate", 0.1)


def test_a_conformal_threshold_cannot_be_changed_by_hand(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "bundle").path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["calibration"]["threshold"] += 5.0
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"calibration\.threshold: expected"):
        call("bundle", "show", path.parent)


def test_boxes_for_an_image_that_is_not_there_are_refused(tmp_path: Path, parts: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"typo.png": [[0, 0, 30, 30]]}')
    path = make_bundle(tmp_path / "bundle").path
    with pytest.raises(InputError, match=r"'typo\.png' is none of the 1 images"):
        call("score", path, parts / "00.png", "--boxes", boxes, "--jsonl")
