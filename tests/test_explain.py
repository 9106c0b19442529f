"""Explanations at run time: pictures on the original image, made only when asked for, of this model only."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image
from typer.testing import CliRunner

from algan_stream.bundle import EXPLAIN, MODEL, Bundle, read_bundle, write_bundle
from algan_stream.calibration import calibrate
from algan_stream.cli import app
from algan_stream.engines.graph import open_graph
from algan_stream.errors import BundleError, EngineError, GateError, InputError
from algan_stream.explain import Explainer, OverlayWriter, on_pixels, overlay, peak_xy_px
from algan_stream.types import BoxVerdict, VerdictKind
from bundles import make_bundle

SIZE = 32
runner = CliRunner()


def with_explanation(bundle: Bundle, path: Path, *, of: Path | None = None) -> Bundle:
    """A copy with a graph whose saliency is the largest |input| over channels, beside the model's logit."""
    model = onnx.load(of or bundle.model_path)
    model.graph.node.extend(
        [
            helper.make_node("Abs", ["input"], ["size"]),
            helper.make_node("ReduceMax", ["size"], ["saliency"], axes=[1], keepdims=0),
        ]
    )
    model.graph.output.append(
        helper.make_tensor_value_info("saliency", onnx.TensorProto.FLOAT, ["N", SIZE, SIZE])
    )
    staged = Path(tempfile.mkdtemp(dir=path.parent))
    shutil.copy(bundle.path / MODEL, staged)
    shutil.copy(bundle.path / "golden.npz", staged)
    onnx.save(model, staged / EXPLAIN)
    # Between the second and the third of the four golden images, so that some pass and some do not.
    middle = float(np.sort(-bundle.golden().logits)[1:3].mean())
    calibration = calibrate(np.linspace(middle - 1.0, middle, 99), 0.01)
    return write_bundle(path, staged, msgspec.structs.replace(bundle.manifest, calibration=calibration))


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("explained")
    return with_explanation(make_bundle(folder / "plain"), folder / "bundle")


@pytest.fixture(scope="module")
def explainer(explained: Bundle) -> Iterator[Explainer]:
    made = Explainer(explained, {"kind": "openvino", "threads": 1})
    yield made
    made.close()


@pytest.fixture
def spot() -> np.ndarray:
    """A map with one peak: row 8, column 24 of 32."""
    saliency = np.zeros((SIZE, SIZE), np.float32)
    saliency[8, 24] = 2.0
    return saliency


def test_saliency_is_the_graphs(explained: Bundle, explainer: Explainer) -> None:
    inputs = explained.golden().inputs
    maps = explainer.saliency(inputs)
    assert maps.dtype == np.float32
    assert np.abs(maps - np.abs(inputs).max(axis=1)).max() < 1e-6
    assert explainer.saliency(inputs[:0]).shape == (0, SIZE, SIZE)


def test_a_bundle_without_the_graph_loads_and_says_what_is_missing(bundle: Bundle) -> None:
    assert read_bundle(bundle.path).explain_path is None
    with pytest.raises(BundleError, match=r"holds no explain\.onnx.*add-explanation"):
        Explainer(bundle)


def test_kinds_without_places_say_so(explained: Bundle) -> None:
    manifest = msgspec.structs.replace(explained.manifest, model_kind="algan-feature", files={})
    with pytest.raises(BundleError, match="not available for a model of kind algan-feature"):
        Explainer(Bundle(explained.path, manifest))


def test_an_altered_graph_is_refused(explained: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(explained.path, path)
    with (path / EXPLAIN).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"explain\.onnx: has been altered"):
        read_bundle(path)


def test_a_missing_graph_that_the_manifest_lists_is_refused(explained: Bundle, tmp_path: Path) -> None:
    shutil.copytree(explained.path, tmp_path / "bundle")
    (tmp_path / "bundle" / EXPLAIN).unlink()
    with pytest.raises(BundleError, match=r"explain\.onnx: is missing from the bundle"):
        read_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("change", [{"fit": "letterbox"}, {"box_margin": 0.1}], ids=str)
def test_a_map_that_would_lie_in_the_wrong_place_is_refused(
    explained: Bundle, change: dict[str, Any]
) -> None:
    spec = msgspec.structs.replace(explained.manifest.image_spec, **change)
    manifest = msgspec.structs.replace(explained.manifest, input_spec=spec)
    with pytest.raises(BundleError, match="stretched, without a margin"):
        Explainer(Bundle(explained.path, manifest))


def test_the_explanation_of_another_model_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    mixed = with_explanation(bundle, tmp_path / "mixed", of=other.model_path)
    with pytest.raises(GateError, match="it explains another model"):
        Explainer(mixed)


def test_a_graph_of_other_shapes_is_refused(explained: Bundle) -> None:
    path = explained.path / EXPLAIN
    with pytest.raises(EngineError, match="expected one input"):
        open_graph(path, (3, SIZE, SIZE), {"saliency": (SIZE, SIZE)})
    with pytest.raises(EngineError, match="and outputs"):
        open_graph(path, (5, SIZE, SIZE), {"saliency": (SIZE, 2 * SIZE)})
    with pytest.raises(EngineError, match="and outputs"):
        open_graph(path, (5, SIZE, SIZE), {"heat": (SIZE, SIZE)})
    graph = open_graph(path, (5, SIZE, SIZE), {"saliency": (SIZE, SIZE)}, {"kind": "openvino", "threads": 1})
    with pytest.raises(EngineError, match="expected inputs float32"):
        graph.infer(np.zeros((1, 5, SIZE, SIZE)))
    graph.close()
    graph.close()


def test_peak_is_in_the_images_pixels(spot: np.ndarray) -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    assert peak_xy_px(spot, image) == (98.0, 17.0)  # (24.5, 8.5) × (4, 2)
    assert peak_xy_px(spot, image, (100.0, 0.0, 132.0, 32.0)) == pytest.approx(
        (100 + 24.5 * 28 / 32, 8.5), abs=0.01
    )


@pytest.mark.parametrize("box", [None, (10.0, 20.0, 42.0, 52.0), (10.5, 20.25, 40.75, 60.5)])
def test_a_map_lies_where_its_box_is(spot: np.ndarray, box: tuple[float, float, float, float] | None) -> None:
    image = np.zeros((90, 100), np.uint8)
    spread = cv2.GaussianBlur(spot, (0, 0), 2.0)
    heat = on_pixels(spread, image, box)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x, y = peak_xy_px(spread, image, box)
    assert abs(column + 0.5 - x) <= 2
    assert abs(row + 0.5 - y) <= 2
    if box is not None:
        outside = np.ones(image.shape, bool)
        outside[int(box[1]) : int(np.ceil(box[3])), int(box[0]) : int(np.ceil(box[2]))] = False
        assert (heat[outside] == 0).all()


def test_a_map_of_the_images_size_is_shown_as_it_is() -> None:
    saliency = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
    assert np.abs(on_pixels(saliency, np.zeros((SIZE, SIZE), np.uint8)) - saliency).max() < 1e-6


@pytest.mark.parametrize(
    ("shape", "pixel_format"), [((60, 80), "grey8"), ((60, 80, 3), "rgb8"), ((60, 80, 3), "bgr8")]
)
def test_overlay_shows_the_peak_and_leaves_the_rest(
    shape: tuple[int, ...], pixel_format: str, spot: np.ndarray
) -> None:
    image = np.full(shape, 90, np.uint8)
    if len(shape) == 3:
        image[..., 0] = 200
    before = image.copy()
    picture = overlay(image, 20.0 * cv2.GaussianBlur(spot, (0, 0), 2.0), pixel_format=pixel_format)  # type: ignore[arg-type]
    assert (image == before).all()
    assert picture.shape == (60, 80, 3)
    assert picture.dtype == np.uint8
    expected = {"grey8": (90, 90, 90), "rgb8": (90, 90, 200), "bgr8": (200, 90, 90)}[pixel_format]
    assert tuple(picture[50, 10]) == expected  # far from the peak: the image itself, in OpenCV's order
    assert np.abs(picture[15, 61].astype(int) - expected).max() > 40


def test_weak_saliency_stays_faint() -> None:
    image = np.full((SIZE, SIZE), 128, np.uint8)
    weak, strong = (
        overlay(image, np.full((SIZE, SIZE), level, np.float32), pixel_format="grey8") for level in (0.1, 1.0)
    )
    corner = (slice(20, 32), slice(20, 32))
    assert np.abs(weak[corner].astype(int) - 128).max() < 25
    assert np.abs(strong[corner].astype(int) - 128).max() > 60


def test_a_box_is_outlined_and_its_outside_left_alone() -> None:
    image = np.full((100, 100), 50, np.uint8)
    saliency = np.ones((8, 8), np.float32)
    saliency[4, 4] = 2.0  # the ring round the peak stays inside
    picture = overlay(image, saliency, pixel_format="grey8", box=(30, 40, 70, 90))
    assert (picture[:39] == 50).all()
    assert (picture[:, 72:] == 50).all()
    assert tuple(picture[40, 50]) == (255, 200, 0)


def test_colours_rise_in_lightness() -> None:
    from algan_stream.explain import _colours_bgr

    lightness = cv2.cvtColor(_colours_bgr()[None], cv2.COLOR_BGR2Lab)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[-1] - lightness[0] > 150


def test_only_rejects_are_explained_unless_all_are_wanted(explainer: Explainer, tmp_path: Path) -> None:
    verdicts = {kind: BoxVerdict(verdict=kind, score=1.0) for kind in VerdictKind}
    wants = OverlayWriter(explainer, tmp_path).wants
    assert [kind for kind, verdict in verdicts.items() if wants(verdict)] == [VerdictKind.REJECT]
    wants = OverlayWriter(explainer, tmp_path, everything=True).wants
    assert all(wants(verdict) for verdict in verdicts.values())
    assert not wants(BoxVerdict(verdict=VerdictKind.UNKNOWN))  # nothing was scored


def test_a_folder_that_cannot_be_written_is_named(
    explainer: Explainer, explained: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    writer = OverlayWriter(explainer, tmp_path / "file")
    image = np.zeros((40, 40), np.uint8)
    with pytest.raises(InputError, match=r"a\.explained\.png: cannot be written"):
        writer.write(Path("a.png"), image, "grey8", explained.golden().inputs[:1], {0: None})


@pytest.fixture
def images(explained: Bundle, tmp_path: Path) -> Path:
    """The golden images, two of them under one name in different folders, and one grey."""
    first, second, third, fourth = explained.golden().images_rgb
    for name, image in {"a/x.png": first, "b/x.png": second, "c.png": third}.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / name)
    Image.fromarray(fourth).convert("L").resize((50, 40)).save(tmp_path / "images" / "grey.png")
    return tmp_path / "images"


def lines(*arguments: object, codes: tuple[int, ...] = (0, 10)) -> list[dict[str, Any]]:
    result = runner.invoke(app, ["score", *map(str, arguments), "--jsonl"], catch_exceptions=False)
    assert result.exit_code in codes, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_score_writes_a_picture_of_every_image_when_all_are_wanted(
    explained: Bundle, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "why"
    rows = lines(explained.path, images, "--explain", out, "--explain-all")
    assert len(rows) == 4
    names = [Path(str(row["explanation"])).name for row in rows]
    assert sorted(names) == ["c.explained.png", "grey.explained.png", "x.explained-2.png", "x.explained.png"]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    for row in rows:
        with Image.open(str(row["path"])) as image, Image.open(str(row["explanation"])) as picture:
            assert picture.size == image.size
            x, y = row["peak_xy_px"]
            assert 0 <= x <= image.size[0]
            assert 0 <= y <= image.size[1]


def test_score_explains_rejects_only_and_nothing_unasked(
    explained: Bundle, images: Path, tmp_path: Path
) -> None:
    plain = lines(explained.path, images)
    assert all("explanation" not in row and "peak_xy_px" not in row for row in plain)
    rows = lines(explained.path, images, "--explain", tmp_path / "why")
    assert {row["verdict"] for row in rows} == {"pass", "reject"}
    assert all(("explanation" in row) == (row["verdict"] == "reject") for row in rows)
    for row in rows:
        row.pop("explanation", None)
        row.pop("peak_xy_px", None)
    assert rows == plain


def test_boxes_are_explained_each_on_its_own(explained: Bundle, images: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"grey.png": [[0, 0, 20, 20], [70, 70, 80, 80], [25, 10, 60, 39]]}')
    arguments = ["--boxes", boxes, "--explain", tmp_path / "why", "--explain-all"]
    first, outside, last = lines(explained.path, images / "grey.png", *arguments, codes=(11,))
    assert Path(first["explanation"]).name == "grey.box0.explained.png"
    assert Path(last["explanation"]).name == "grey.box2.explained.png"
    assert "explanation" not in outside
    assert 25 <= last["peak_xy_px"][0] <= 50  # the box reaches beyond the image's right edge, 50


def test_explain_all_alone_is_refused(explained: Bundle, images: Path) -> None:
    with pytest.raises(InputError, match="needs --explain DIR"):
        lines(explained.path, images, "--explain-all")


def test_a_bundle_without_explanations_is_refused_before_anything_is_scored(
    bundle: Bundle, images: Path
) -> None:
    with pytest.raises(BundleError, match=r"holds no explain\.onnx"):
        lines(bundle.path, images, "--explain", images.parent / "why")
    assert not (images.parent / "why").exists()
