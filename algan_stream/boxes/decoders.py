"""What detectors put out → boxes, scores and classes, all in pixels of the detector's own input.

- `yolov5`, (1, N, 5 + C): centre, size, objectness, C class scores; YOLOv5, v7, YOLOX with decoded grid.
- `yolov8`, (1, 4 + C, N): centre, size, C class scores; YOLOv8, v9, v11, v12.
- `end2end`, (1, N, 6) or (N, 6): corners, score, class; YOLOv10, v26, exports with NMS. With 7 numbers: the
  image's number, corners, class, score; YOLOv7.
- `detr`, (1, N, 4 + C): centre, size, as shares of the input, C class scores; ultralytics' RT-DETR.
- `boxes_scores_labels`: corners (N, 4), scores (N) and labels (N), each with or without a leading 1;
  torchvision, SSD, RT-DETR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from algan_stream.engines.any_graph import AnyGraph, OpenShape
from algan_stream.errors import EngineError

Form = Literal["yolov5", "yolov8", "end2end", "detr", "boxes_scores_labels"]
Floats = npt.NDArray[np.float32]
Outputs = dict[str, npt.NDArray[Any]]

#: Strides of the grids that YOLO's rows come from.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
#: Forms whose detectors leave it to us to join boxes of the same object.
NEEDS_NMS = ("yolov5", "yolov8")


@dataclass(frozen=True)
class Found:
    """Boxes (N, 4), scores (N) and classes (N) of one image, in no particular order."""

    xyxy: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


def recognise(graph: AnyGraph, height_px: int, width_px: int) -> Form:
    """The form of a detector's outputs, from their shapes.

    Raises:
        EngineError: They fit none, or several; the message lists what came.
    """
    shapes = [shape for _, shape in graph.outputs.values()]
    if len(shapes) >= 3:
        if sum(shape[-1:] == (4,) for shape in shapes) == 1:
            return "boxes_scores_labels"
    elif len(shapes) == 1:
        shape = shapes[0][1:] if len(shapes[0]) == 3 and shapes[0][0] in (1, None) else shapes[0]
        form = _of_table(shape, height_px, width_px) if len(shape) == 2 else None
        if form is not None:
            return form
    raise EngineError(
        f"{graph.name}: the form of its outputs is not recognised; set `form` to one of "
        f"{', '.join(get_args(Form))}, or export it in one of them. It has {graph.described()}"
    )


def _of_table(shape: OpenShape, height_px: int, width_px: int) -> Form | None:
    first, last = shape
    cells = {sum((height_px // s) * (width_px // s) for s in strides) for strides in _STRIDES}
    if last in cells and first is not None and first >= 5:
        return "yolov8"
    if first in cells | {3 * n for n in cells} and last is not None and last >= 6:
        return "yolov5"
    if last in (6, 7) and (first is None or first <= 1000):
        return "end2end"
    return None


def decode(form: Form, outputs: Outputs, *, height_px: int, width_px: int, confidence: float) -> Found:
    """Boxes of one image whose score is `confidence` or more.

    Raises:
        EngineError: A number is not finite, or an output has another shape than its form.
    """
    if form == "boxes_scores_labels":
        found = _three(outputs)
    else:
        (table,) = outputs.values()
        rows = _rows(table, form)
        if form == "end2end":
            rows = rows[:, 1:] if rows.shape[1] == 7 else rows
            # With the image's number first, the class comes before the score.
            score, label = (5, 4) if table.shape[-1] == 7 else (4, 5)
            found = Found(rows[:, :4], rows[:, score], _whole(rows[:, label]))
        else:
            found = _with_classes(form, rows)
    if form == "detr":
        scale = np.array([width_px, height_px, width_px, height_px], np.float32)
        found = Found(found.xyxy * scale, found.scores, found.classes)
    if not np.isfinite(found.scores).all():
        raise EngineError(f"{form}: the detector gave scores that are not finite")
    kept = found.scores >= confidence
    found = Found(found.xyxy[kept], found.scores[kept], found.classes[kept])
    if not np.isfinite(found.xyxy).all():
        raise EngineError(f"{form}: the detector gave boxes that are not finite")
    return found


def _rows(table: npt.NDArray[Any], form: Form) -> Floats:
    if table.ndim == 3 and table.shape[0] == 1:
        table = table[0]
    least = {"yolov5": 6, "yolov8": 5, "detr": 5, "end2end": 6}[form]
    table = table.T if form == "yolov8" else table
    if table.ndim != 2 or table.shape[1] < least or (form == "end2end" and table.shape[1] > 7):
        raise EngineError(f"{form}: expected rows of {least} numbers or more, got an output {table.shape}")
    return np.asarray(table, np.float32)


def _with_classes(form: Form, rows: Floats) -> Found:
    first = 5 if form == "yolov5" else 4
    classes = rows[:, first:].argmax(axis=1).astype(np.int64)
    scores = rows[np.arange(len(rows)), first + classes]
    if form == "yolov5":
        scores = scores * rows[:, 4]
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    return Found(np.concatenate([centre - half, centre + half], axis=1), scores, classes)


def _three(outputs: Outputs) -> Found:
    corners = next((value for value in outputs.values() if value.ndim >= 2 and value.shape[-1] == 4), None)
    if corners is None:
        raise EngineError("boxes_scores_labels: none of the outputs has rows of 4 numbers")
    boxes = corners.reshape(-1, 4)
    others = {
        name: np.ravel(value)
        for name, value in outputs.items()
        if value is not corners and value.size == len(boxes) and not name.startswith("num")
    }
    labels = next((name for name in others if "label" in name or "class" in name), None) or next(
        (name for name, value in others.items() if value.dtype.kind in "iu"), None
    )
    scores = next((name for name in others if "score" in name or "conf" in name), None) or next(
        (name for name, value in others.items() if value.dtype.kind == "f" and name != labels), None
    )
    if scores is None or labels is None or scores == labels:
        shapes = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in outputs.items())
        raise EngineError(f"boxes_scores_labels: expected scores and labels beside boxes, got {shapes}")
    return Found(boxes.astype(np.float32), others[scores].astype(np.float32), _whole(others[labels]))


def _whole(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.rint(labels), np.int64)


def suppress(found: Found, iou: float, *, per_class: bool) -> Found:
    """Keeps the best-scored of boxes that overlap by more than `iou` (intersection over union); best first.

    Args:
        found: Of one image.
        iou: 0 to 1; 1 keeps all.
        per_class: Boxes of different classes never hide each other.
    """
    order = np.argsort(-found.scores, kind="stable")
    boxes, classes = found.xyxy[order].astype(np.float64), found.classes[order]
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    alive, kept = np.ones(len(boxes), bool), []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        low = np.maximum(boxes[i, :2], boxes[i + 1 :, :2])
        shared = np.prod(np.maximum(np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:]) - low, 0), axis=1)
        hidden = shared > iou * np.maximum(areas[i] + areas[i + 1 :] - shared, 1e-9)
        if per_class:
            hidden &= classes[i + 1 :] == classes[i]
        alive[i + 1 :] &= ~hidden
    chosen = order[kept]
    return Found(found.xyxy[chosen], found.scores[chosen], found.classes[chosen])
