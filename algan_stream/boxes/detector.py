"""Any ONNX detector, run in this process by one of our engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import BoxFinder, has_pixels, plain_pixels
from algan_stream.boxes.decoders import NEEDS_NMS, Form, Found, decode, recognise, suppress
from algan_stream.engines.any_graph import AnyGraph, empty_inputs, open_any
from algan_stream.errors import AlganError, EngineError, InputError
from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.types import Frame, InputSpec, PixelFormat

_SWAPPED: dict[PixelFormat, PixelFormat] = {"bgr8": "rgb8", "rgb8": "bgr8", "grey8": "grey8"}
#: More candidates than this are not joined one by one; the worst-scored of them could not matter.
_MAX_CANDIDATES = 8192
#: Corners as shares of the input go little beyond 1.
_LARGEST_SHARE = 2


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: detector`.

    Attributes:
        path: ONNX file.
        engine: `kind` names the plugin: `openvino` or `onnxruntime`.
        form: Of its outputs, see `decoders.py`; by default it is recognised by their shapes.
        normalised: Corners are shares of the input, 0 to 1, instead of its pixels (`boxes_scores_labels`).
        size: Width and height of the input, where the file leaves them open.
        confidence: Least score of a box, above 0 and up to 1.
        nms_iou: Of boxes that overlap by more than this the best-scored is kept; by default 0.5 for forms
            that need it (`yolov5`, `yolov8`), and none is dropped for the others.
        per_class: Boxes of different classes never hide each other.
        classes: Numbers of the classes that count; empty: all.
        labels: Names of the classes from 0 on; a box has its class's name, or else its number.
        max_boxes: A frame with more is `unknown(boxes_failed)`.
        margin: Added on every side of a box, as a share of that side's length; cut off at the frame's edge.
        colour: Order of the planes that the detector was trained with.
        mean: Subtracted from each plane after scaling to 0..1.
        std: Divisor after that; 1/255 = 0.00392156862745098 gives 0..255.
        fit: `letterbox` keeps proportions; `stretch` fills the input.
        pad_level: Grey beside a letterboxed frame.
    """

    kind: Literal["detector"] = "detector"
    path: str
    engine: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "openvino"})
    form: Form | None = None
    normalised: bool = False
    size: tuple[int, int] | None = None
    confidence: float = 0.25
    nms_iou: float | None = None
    per_class: bool = False
    classes: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    max_boxes: int = 300
    margin: float = 0.0
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fit: Literal["letterbox", "stretch"] = "letterbox"
    pad_level: float = 114.0

    def __post_init__(self) -> None:
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence: expected above 0 and up to 1, got {self.confidence}")
        if self.nms_iou is not None and not 0 <= self.nms_iou <= 1:
            raise ValueError(f"nms_iou: expected 0 to 1, got {self.nms_iou}")
        if not 1 <= self.max_boxes <= 4096:
            raise ValueError(f"max_boxes: expected 1 to 4096, got {self.max_boxes}")
        if not 0 <= self.margin <= 10:
            raise ValueError(f"margin: expected 0 to 10, got {self.margin}")
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            raise ValueError(f"size: expected 1 to 4096, got {list(self.size)}")


class Detector(BoxFinder):
    """Frame → the detector's input by `_core` → its outputs → boxes of the frame, best first.

    Raises:
        EngineError: It cannot be compiled or run, or has inputs or outputs that we do not know.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._graph = open_any(Path(config.path), config.engine)
        try:
            self._image, self._layout, height, width = _image_input(self._graph, config.size)
            self._spec = InputSpec(
                height_px=height,
                width_px=width,
                pooled_channels=False,
                mean=config.mean,
                std=config.std,
                fit=config.fit,
                pad_level=config.pad_level,
            )
            dtype: Any = np.dtype(self._graph.inputs[self._image][0]).type
            self._slot: npt.NDArray[Any] = empty_slots(1, self._spec, dtype=dtype, layout=self._layout)
            self._more = _other_inputs(self._graph, self._image, width, height)
            self._form: Form = config.form or recognise(self._graph, height, width)
            shapes = {self._image: self._slot.shape}
            self._decoded(self._graph.run({**empty_inputs(self._graph, shapes), **self._more}))
        except AlganError:
            self._graph.close()
            raise

    @property
    def form(self) -> Form:
        """Of the outputs, as configured or recognised."""
        return self._form

    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns the boxes found, and names them by their class.

        Raises:
            EngineError: The inference failed, or gave numbers that are not finite.
            InputError: The image cannot be used, or there are more boxes than `max_boxes`.
        """
        if not has_pixels(frame):
            return None
        config, spec = self._config, self._spec
        image, pixels = plain_pixels(frame)
        pixels = pixels if config.colour == "rgb" else _SWAPPED[pixels]
        preprocess_into(self._slot, image, spec, pixel_format=pixels, layout=self._layout)
        found = self._decoded(self._graph.run({self._image: self._slot, **self._more}))
        if len(found.scores) > config.max_boxes:
            raise InputError(f"expected at most {config.max_boxes} boxes, got {len(found.scores)}")
        frame.box_names = tuple(_name(config.labels, number) for number in found.classes.tolist())
        height, width = image.shape[:2]
        return _on_frame(found.xyxy, spec, width, height, config.margin)

    def close(self) -> None:
        """Frees the graph."""
        self._graph.close()

    def _decoded(self, outputs: dict[str, npt.NDArray[Any]]) -> Found:
        config, spec = self._config, self._spec
        found = decode(
            self._form,
            outputs,
            height_px=spec.height_px,
            width_px=spec.width_px,
            confidence=config.confidence,
        )
        if not config.normalised and _look_like_shares(self._form, found):
            raise EngineError(
                f"{self._form}: no corner lies beyond {_LARGEST_SHARE} px: they look like shares of the "
                "input; if they are, set `normalised: true`"
            )
        if config.normalised:
            scale = np.array([spec.width_px, spec.height_px] * 2, np.float32)
            found = Found(found.xyxy * scale, found.scores, found.classes)
        if config.classes:
            kept = np.isin(found.classes, config.classes)
            found = Found(found.xyxy[kept], found.scores[kept], found.classes[kept])
        iou = config.nms_iou if config.nms_iou is not None else 0.5 if self._form in NEEDS_NMS else None
        if len(found.scores) > _MAX_CANDIDATES:
            raise EngineError(
                f"{len(found.scores)} candidates above confidence {config.confidence:g}; raise it"
            )
        return found if iou is None else suppress(found, iou, per_class=config.per_class)


def _look_like_shares(form: Form, found: Found) -> bool:
    """Boxes that lie in the first pixel altogether would be cut out, scored, and mean nothing."""
    in_pixels = form in ("end2end", "boxes_scores_labels") and len(found.xyxy) > 0
    return in_pixels and bool(found.xyxy.max() <= _LARGEST_SHARE)


def _name(labels: tuple[str, ...], number: int) -> str:
    return labels[number] if 0 <= number < len(labels) else str(number)


def _image_input(
    graph: AnyGraph, size: tuple[int, int] | None
) -> tuple[str, Literal["nchw", "nhwc"], int, int]:
    """Name, layout, height and width of the input that takes the image."""
    for name, (dtype, shape) in graph.inputs.items():
        if len(shape) != 4 or dtype not in ("float32", "float16", "uint8") or shape[0] not in (1, None):
            continue
        for layout, planes, rows, columns in (("nchw", 1, 2, 3), ("nhwc", 3, 1, 2)):
            if shape[planes] == 3:
                width, height = size or (shape[columns] or 0, shape[rows] or 0)
                if not (shape[rows] in (height, None) and shape[columns] in (width, None)):
                    raise EngineError(
                        f"size: expected that of the file, got {width}×{height}: {graph.described()}"
                    )
                if width < 1 or height < 1:
                    raise EngineError(f"size: is needed, as the file leaves it open: {graph.described()}")
                return name, "nchw" if layout == "nchw" else "nhwc", height, width
    raise EngineError(
        f"{graph.name}: expected an input [1,3,H,W] or [1,H,W,3] of float32, float16 or uint8, got "
        f"{graph.described()}"
    )


def _other_inputs(graph: AnyGraph, image: str, width: int, height: int) -> dict[str, npt.NDArray[Any]]:
    """What else it wants to be told: RT-DETR and its kin ask for the image's size, (1, 2)."""
    others = {name: port for name, port in graph.inputs.items() if name != image}
    if any(len(shape) != 2 or shape[1] != 2 for _, shape in others.values()):
        raise EngineError(
            f"{graph.name}: expected no inputs but an image and its size, got {graph.described()}"
        )
    return {name: np.array([[width, height]], dtype) for name, (dtype, _) in others.items()}


def _on_frame(
    xyxy: npt.NDArray[np.float32], spec: InputSpec, width_px: int, height_px: int, margin: float
) -> npt.NDArray[np.float32]:
    """Boxes of the detector's input → boxes of the frame, with their margin, cut off at its edges."""
    filled_w, filled_h = spec.width_px, spec.height_px
    if spec.fit == "letterbox":  # as `_core` lays it: sides rounded half up, odd remainders below and right
        scale = min(spec.width_px / width_px, spec.height_px / height_px)
        filled_w = min(max(int(width_px * scale + 0.5), 1), spec.width_px)
        filled_h = min(max(int(height_px * scale + 0.5), 1), spec.height_px)
    left, top = (spec.width_px - filled_w) // 2, (spec.height_px - filled_h) // 2
    per_px = np.array([width_px / filled_w, height_px / filled_h] * 2)
    boxes = (xyxy.astype(np.float64) - np.array([left, top] * 2)) * per_px
    extra = (boxes[:, 2:] - boxes[:, :2]) * margin
    boxes = np.concatenate([boxes[:, :2] - extra, boxes[:, 2:] + extra], axis=1)
    return np.asarray(np.clip(boxes, 0, np.array([width_px, height_px] * 2)), np.float32)


def create(config: Config) -> Detector:
    """Compiles the detector and runs it once.

    Raises:
        EngineError: See `Detector`.
    """
    return Detector(config)
