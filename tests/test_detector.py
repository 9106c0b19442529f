"""Any detector's outputs become boxes of the frame; what is not understood is said at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from algan_stream.boxes.base import find_boxes
from algan_stream.boxes.decoders import Found, decode, suppress
from algan_stream.boxes.detector import Config, Detector, create
from algan_stream.errors import ConfigError, EngineError, InputError
from algan_stream.plugins import load
from algan_stream.types import Frame

_SIZE, _CELLS = 64, 84  # 8² + 4² + 2² cells at strides 8, 16, 32


def blob_detector(path: Path, form: str = "yolov8", *, dtype: int = TensorProto.FLOAT) -> Path:
    """A tiny YOLO by hand: a cell of 8 px that is brighter than half fires with a box of 8 px.

    The mean of each cell (a convolution) is the score of class 0; the coarser grids never fire. Class 1 fires
    where the blue plane alone is bright.
    """
    stride, n = 8, _SIZE // 8
    weights = np.zeros((2, 3, stride, stride), np.float32)
    weights[0, 0] = 1 / stride**2  # red
    weights[1, 2], weights[1, 0] = 1 / stride**2, -1 / stride**2  # blue without red
    rows, columns = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    grid = np.zeros((1, 4, _CELLS), np.float32)
    grid[0, 0, : n * n], grid[0, 1, : n * n] = columns.ravel() * 8 + 4, rows.ravel() * 8 + 4
    grid[0, 2:, : n * n] = 8
    constants = {"w": weights, "grid": grid, "rest": np.zeros((1, 2, _CELLS - n * n), np.float32)}
    constants["flat"] = np.array([1, 2, n * n])  # type: ignore[assignment]
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["means"], strides=[stride, stride]),
        helper.make_node("Relu", ["means"], ["fired"]),
        helper.make_node("Reshape", ["fired", "flat"], ["fine"]),
        helper.make_node("Concat", ["fine", "rest"], ["scores"], axis=2),
    ]
    shape: list[Any] = [1, 6, _CELLS]
    if form == "yolov8":
        nodes.append(helper.make_node("Concat", ["grid", "scores"], ["output0"], axis=1))
    else:  # yolov5, with objectness 1
        constants["one"] = np.ones((1, 1, _CELLS), np.float32)
        nodes.append(helper.make_node("Concat", ["grid", "one", "scores"], ["wide"], axis=1))
        nodes.append(helper.make_node("Transpose", ["wide"], ["output0"], perm=[0, 2, 1]))
        shape = [1, _CELLS, 7]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("images", dtype, [1, 3, _SIZE, _SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _frame(image: np.ndarray[Any, Any], pixel_format: str = "rgb8") -> Frame:
    return Frame("cam", 0, image, pixel_format, captured_ns=0)  # type: ignore[arg-type]


def _scene(*cells: tuple[int, int], colour: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray[Any, Any]:
    """A frame of 128×64 where a cell of 16 px (8 px of the input, below a bar of 16) is bright."""
    image = np.zeros((64, 128, 3), np.uint8)
    for row, column in cells:
        image[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = colour
    return image


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("form", ["yolov8", "yolov5"])
def test_a_detector_finds_bright_squares_in_a_letterboxed_frame(tmp_path: Path, form: str, kind: str) -> None:
    if kind == "onnxruntime":
        pytest.importorskip("onnxruntime")
    path = blob_detector(tmp_path / "d.onnx", form)
    engine = {"kind": kind, "threads": 1}
    finder = create(Config(path=str(path), confidence=0.5, labels=("part",), pad_level=0, engine=engine))
    assert finder.form == form
    frame = _frame(_scene((0, 0), (2, 7)))
    found = finder.find(frame)
    assert found is not None
    assert sorted(found.tolist()) == [[0, 0, 16, 16], [112, 32, 128, 48]]
    assert frame.box_names == ("part", "part")
    nothing = finder.find(_frame(_scene()))
    assert nothing is not None
    assert nothing.shape == (0, 4)
    finder.close()
    finder.close()


def test_colours_classes_margin_and_number(tmp_path: Path) -> None:
    path = str(blob_detector(tmp_path / "d.onnx"))
    blue = _frame(_scene((1, 1), colour=(0, 0, 255)))
    finder = create(Config(path=path, pad_level=0, margin=0.25))
    found = finder.find(blue)
    assert found is not None
    assert found.tolist() == [[12, 12, 36, 36]]
    assert blue.box_names == ("1",)
    swapped = create(Config(path=path, pad_level=0, colour="bgr")).find(blue)
    assert swapped is not None
    assert len(swapped) == 1
    assert create(Config(path=path, pad_level=0, classes=(0,))).find(blue).tolist() == []  # type: ignore[union-attr]
    same = create(Config(path=path, pad_level=0)).find(_frame(blue.image[..., ::-1].copy(), "bgr8"))
    assert same is not None
    assert same.tolist() == [[16, 16, 32, 32]]
    crowded = _frame(_scene(*[(0, i) for i in range(8)]))
    with pytest.raises(InputError, match="expected at most 4 boxes, got 8"):
        create(Config(path=path, pad_level=0, max_boxes=4)).find(crowded)
    find_boxes(create(Config(path=path, max_boxes=4, pad_level=0)), crowded)
    assert crowded.fault == "boxes_failed: InputError: expected at most 4 boxes, got 8"


def test_bytes_go_in_as_they_are(tmp_path: Path) -> None:
    finder = create(
        Config(
            path=str(blob_detector(tmp_path / "d.onnx", dtype=TensorProto.UINT8)), confidence=0.5, pad_level=0
        )
    )
    frame = _frame(_scene((3, 3)))
    # The tiny net works on 0..255 then, so that its scores are 255; they are no shares, but above 0.5.
    found = finder.find(frame)
    assert found is not None
    assert found.tolist() == [[48, 48, 64, 64]]


def _constant(path: Path, outputs: dict[str, np.ndarray[Any, Any]], size: bool = False, rank: int = 4) -> str:
    """A detector that always says the same."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64][:rank])]
    if size:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    nodes = [helper.make_node("Identity", [f"{name}_"], [name]) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "constant",
        inputs,
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in outputs.items()
        ],
        [numpy_helper.from_array(value, f"{name}_") for name, value in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


_BOXES = np.array([[8, 16, 24, 32], [40, 16, 56, 32], [0, 0, 0, 0]], np.float32)
_SCORES = np.array([0.9, 0.6, 0.0], np.float32)
_LABELS = np.array([2, 1, 0])


def _end2end() -> np.ndarray[Any, Any]:
    return np.concatenate([_BOXES, _SCORES[:, None], _LABELS[:, None].astype(np.float32)], axis=1)


def _shares() -> np.ndarray[Any, Any]:
    return _end2end() * np.array([1 / 64] * 4 + [1, 1], np.float32)


@pytest.mark.parametrize(
    ("outputs", "form", "more"),
    [
        ({"output0": _end2end()[None]}, "end2end", {}),
        ({"output0": _end2end()}, "end2end", {}),
        ({"output": np.insert(_end2end()[:, [0, 1, 2, 3, 5, 4]], 0, 0, axis=1)}, "end2end", {}),
        ({"boxes": _BOXES, "labels": _LABELS, "scores": _SCORES}, "boxes_scores_labels", {}),
        (
            {"scores": _SCORES[None], "boxes": _BOXES[None], "labels": _LABELS[None]},
            "boxes_scores_labels",
            {"size": True},
        ),
        (
            {"b": _BOXES[None] / 64, "l": _LABELS.astype(np.int32)[None], "s": _SCORES[None]},
            "boxes_scores_labels",
            {"normalised": True},
        ),
    ],
)
def test_forms_that_end_in_boxes(tmp_path: Path, outputs: Any, form: str, more: dict[str, bool]) -> None:
    path = _constant(tmp_path / "d.onnx", outputs, size=more.pop("size", False))
    finder = create(Config(path=path, **more))  # type: ignore[arg-type]
    assert finder.form == form
    frame = _frame(np.zeros((128, 128, 3), np.uint8))
    found = finder.find(frame)
    assert found is not None
    assert found.tolist() == [[16, 32, 48, 64], [80, 32, 112, 64]]
    assert frame.box_names == ("2", "1")


def test_detr_is_told_by_name(tmp_path: Path) -> None:
    table = np.array([[[0.25, 0.5, 0.25, 0.25, 0.1, 0.9], [0.5, 0.5, 0.1, 0.1, 0.0, 0.0]]], np.float32)
    found = create(Config(path=_constant(tmp_path / "d.onnx", {"output0": table}), form="detr")).find(
        _frame(np.zeros((64, 64, 3), np.uint8))
    )
    assert found is not None
    assert found.tolist() == [[8, 24, 24, 40]]


@pytest.mark.parametrize(
    ("outputs", "more", "message"),
    [
        ({"o": np.zeros((1, 17, 3), np.float32)}, {}, r"not recognised; set `form`.* o float32 \[1,17,3\]"),
        ({"a": _BOXES, "b": _BOXES}, {}, "not recognised"),
        ({"o": np.zeros((1, 17, 3), np.float32)}, {"form": "end2end"}, "rows of 6 numbers or more"),
        ({"o": _end2end()[None]}, {"size": (32, 32)}, "expected that of the file"),
        ({"o": _end2end()[None]}, {"engine": {"kind": "openvino", "device": "NOPE"}}, "device"),
        ({"o": np.full((1, 3, 6), np.nan, np.float32)}, {}, "not finite"),
        ({"o": _shares()}, {}, "set `normalised: true`"),
    ],
)
def test_what_is_not_understood_is_said_at_the_start(
    tmp_path: Path, outputs: Any, more: dict[str, Any], message: str
) -> None:
    path = _constant(tmp_path / "d.onnx", outputs)
    with pytest.raises((EngineError, ConfigError), match=message):
        create(Config(path=path, **more))


def test_an_input_that_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"expected an input \[1,3,H,W\].*images float32 \[1,3\]"):
        create(Config(path=_constant(tmp_path / "d.onnx", {"o": _end2end()}, rank=2)))
    with pytest.raises(EngineError, match="there is no such file"):
        create(Config(path=str(tmp_path / "no.onnx")))
    (tmp_path / "bad.onnx").write_bytes(b"no onnx")
    with pytest.raises(EngineError, match="cannot compile"):
        create(Config(path=str(tmp_path / "bad.onnx")))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("confidence", 0),
        ("confidence", 1.5),
        ("nms_iou", 2),
        ("max_boxes", 0),
        ("margin", -1),
        ("form", "x"),
        ("z", 1),
    ],
)
def test_a_wrong_section_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        load("boxes", {"kind": "detector", "path": "d.onnx", key: value}, "cameras[0].boxes")


def test_suppression_against_opencv() -> None:
    import cv2

    rng = np.random.default_rng(3)
    for _ in range(20):
        corner, size = rng.uniform(0, 80, (60, 2)), rng.uniform(5, 40, (60, 2))
        boxes = np.hstack([corner, corner + size]).astype(np.float32)
        scores = (rng.permutation(60).astype(np.float32) + 1) / 61
        classes = rng.integers(0, 3, 60)
        found = Found(boxes, scores, classes)
        wanted = np.ravel(cv2.dnn.NMSBoxes(np.hstack([corner, size]).tolist(), scores.tolist(), 0.0, 0.4))
        assert np.array_equal(suppress(found, 0.4, per_class=False).scores, scores[wanted])
        apart = suppress(found, 0.4, per_class=True)
        for number in range(3):
            rows = np.flatnonzero(classes == number)
            alone = suppress(Found(boxes[rows], scores[rows], classes[rows]), 0.4, per_class=False)
            assert np.array_equal(apart.scores[apart.classes == number], alone.scores)


def test_a_score_that_is_no_number_is_an_error_and_no_absence() -> None:
    table = np.zeros((1, 6, _CELLS), np.float32)
    table[0, 4, 7] = np.nan
    with pytest.raises(EngineError, match="scores that are not finite"):
        decode("yolov8", {"o": table}, height_px=64, width_px=64, confidence=0.5)
    table = _end2end()
    table[0, 0] = np.inf
    with pytest.raises(EngineError, match="boxes that are not finite"):
        decode("end2end", {"o": table}, height_px=64, width_px=64, confidence=0.5)


def test_frames_without_pixels_are_left_alone(tmp_path: Path) -> None:
    finder = Detector(Config(path=str(blob_detector(tmp_path / "d.onnx"))))
    frame = _frame(np.zeros((0, 0, 3), np.uint8))
    frame.fault = "bad_image"
    assert finder.find(frame) is None
