"""Parts on a belt, as what differs from the empty belt: background subtraction and contours, no training."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import BoxFinder, has_pixels, plain_pixels
from algan_stream.errors import ConfigError, InputError
from algan_stream.ranges import check_ranges
from algan_stream.types import Frame

#: Grey of a pixel that MOG2 takes for foreground; shadows, if it looks for them, are darker.
_FOREGROUND = 255


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: blobs`. Lengths and areas are in pixels of the frame.

    Attributes:
        background: What the empty belt looks like: `learned` from the stream itself (MOG2; a part that stays
            becomes background); `image`: the file at `path`; `threshold`: darker, or brighter, than `level`.
        path: Picture of the empty belt, as large as the frames.
        level: Difference from the background that counts, 1 to 255, or with `threshold` the grey level.
        parts: With `threshold`: whether parts are `brighter` or `darker` than the level.
        shadows: With `learned`: leave shadows out.
        warmup_frames: With `learned`: the first frames are `unknown(background_learning)`.
        history_frames: With `learned`: about so many frames are remembered.
        min_area: Least area of a part's box.
        max_area: Largest area of it; None: no limit. A larger blob is no part, but the frame is then
            `unknown(blob_too_large)`: light, hand or tool in the picture.
        max_boxes: A frame with more is `unknown(too_many_boxes)`.
        roi: Where parts are looked for: x_min, y_min, x_max, y_max; None: everywhere.
        margin: Added on every side of a box, in pixels; cut off at the frame's edge.
        merge: Pieces nearer to each other than this, up and down and sideways, are one part.
        whole_only: Leave out parts that touch the region's border: they are scored once they are whole.
        scale: The frame is searched at this share of its size, above 0 and up to 1; boxes are as coarse.
    """

    kind: Literal["blobs"] = "blobs"
    background: Literal["learned", "image", "threshold"] = "learned"
    path: str | None = None
    level: float = 40.0
    parts: Literal["brighter", "darker"] = "brighter"
    shadows: bool = False
    warmup_frames: int = 10
    history_frames: int = 500
    min_area: float = 400.0
    max_area: float | None = None
    max_boxes: int = 64
    roi: tuple[int, int, int, int] | None = None
    margin: float = 4.0
    merge: float = 8.0
    whole_only: bool = True
    scale: float = 0.5

    def __post_init__(self) -> None:
        if (self.background == "image") != (self.path is not None):
            raise ValueError("path: is needed with background: image, and with no other")
        check_ranges(
            ("level", self.level, 1, 255),
            ("warmup_frames", self.warmup_frames, 0, 100_000),
            ("history_frames", self.history_frames, 2, 1_000_000),
            ("min_area", self.min_area, 1, 1e9),
            ("max_area", self.min_area if self.max_area is None else self.max_area, self.min_area, 1e9),
            ("max_boxes", self.max_boxes, 1, 4096),
            ("margin", self.margin, 0, 10_000),
            ("merge", self.merge, 0, 10_000),
            ("scale", self.scale, 0.01, 1),
        )
        if self.roi is not None:
            x0, y0, x1, y1 = self.roi
            if not (0 <= x0 < x1 and 0 <= y0 < y1):
                raise ValueError(f"roi: expected x_min < x_max and y_min < y_max, got {list(self.roi)}")


class Blobs(BoxFinder):
    """Difference from the background → mask → pieces → parts."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._empty: dict[str, npt.NDArray[np.uint8]] = {}
        self._learned: dict[
            str, tuple[Any, list[int]]
        ] = {}  # by camera: MOG2, and how many frames it has seen
        self._belt = _read(config.path) if config.path is not None else None

    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns the parts, from the left; sets a fault where it cannot tell.

        Raises:
            InputError: The frame is smaller than the region, or of another size than the picture of the belt.
        """
        if not has_pixels(frame):
            return None
        config, (image, pixels) = self._config, plain_pixels(frame)
        seen = dataclasses.replace(frame, image=image, pixel_format=pixels)
        height, width = image.shape[:2]
        x0, y0, x1, y1 = config.roi or (0, 0, width, height)
        if x1 > width or y1 > height:
            raise InputError(f"roi: ends at ({x1}, {y1}), the frame at ({width}, {height})")
        region = self._shrunk(image[y0:y1, x0:x1])
        mask = self._mask(seen, region, (x0, y0, x1, y1))
        if mask is None:
            frame.fault = "background_learning"
            return None
        boxes = _merged(_pieces(mask), config.merge * config.scale)
        per_px = np.array([(x1 - x0) / mask.shape[1], (y1 - y0) / mask.shape[0]] * 2)
        border = (
            (boxes[:, :2] <= 0).any(axis=1) | (boxes[:, 2] >= mask.shape[1]) | (boxes[:, 3] >= mask.shape[0])
        )
        found = boxes * per_px + np.array([x0, y0] * 2)
        areas = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
        if config.max_area is not None and (areas > config.max_area).any():
            frame.fault = f"blob_too_large: {areas.max():.0f} px², expected up to {config.max_area:.0f}"
        kept = (areas >= config.min_area) & ~(border & config.whole_only)
        found = found[kept] + np.array([-1, -1, 1, 1]) * config.margin
        found = found[np.argsort(found[:, 0], kind="stable")]
        if len(found) > config.max_boxes:
            frame.fault = f"too_many_boxes: {len(found)}, expected up to {config.max_boxes}"
            return None
        return np.asarray(np.clip(found, 0, np.array([width, height] * 2)), np.float32)

    def _shrunk(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        import cv2

        if self._config.scale == 1:
            return image
        size = [max(1, round(side * self._config.scale)) for side in image.shape[1::-1]]
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _mask(
        self, frame: Frame, region: npt.NDArray[np.uint8], roi: tuple[int, int, int, int]
    ) -> npt.NDArray[np.uint8] | None:
        """255 where a part is; None while the background is still being learned."""
        import cv2

        config = self._config
        if config.background == "threshold":
            grey = region if region.ndim == 2 else cv2.cvtColor(region, _TO_GREY[frame.pixel_format])
            kind = cv2.THRESH_BINARY if config.parts == "brighter" else cv2.THRESH_BINARY_INV
            mask = cv2.threshold(grey, config.level, 255, kind)[1]
        elif config.background == "image":
            difference = cv2.absdiff(region, self._empty_region(frame, roi))
            strongest = difference if difference.ndim == 2 else difference.max(axis=2)
            mask = cv2.threshold(strongest, config.level, 255, cv2.THRESH_BINARY)[1]
        else:
            if frame.camera not in self._learned:
                # MOG2 compares squared distances with the threshold times the variance, which is 15 at first.
                model = cv2.createBackgroundSubtractorMOG2(
                    config.history_frames, config.level**2 / 15.0, config.shadows
                )
                self._learned[frame.camera] = model, [0]
            model, seen = self._learned[frame.camera]
            raw = model.apply(region)
            seen[0] += 1
            if seen[0] <= config.warmup_frames:
                return None
            mask = np.where(raw == _FOREGROUND, np.uint8(255), np.uint8(0))
        return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)

    def _empty_region(self, frame: Frame, roi: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        import cv2

        assert self._belt is not None
        if self._belt.shape[:2] != frame.image.shape[:2]:
            raise InputError(
                f"path: expected a picture as large as the frames, {frame.image.shape[1::-1]}, got "
                f"{self._belt.shape[1::-1]}"
            )
        if frame.pixel_format not in self._empty:
            to = {"rgb8": cv2.COLOR_BGR2RGB, "grey8": cv2.COLOR_BGR2GRAY}.get(frame.pixel_format)
            belt = self._belt if to is None else np.asarray(cv2.cvtColor(self._belt, to), np.uint8)
            x0, y0, x1, y1 = roi
            self._empty[frame.pixel_format] = self._shrunk(np.ascontiguousarray(belt[y0:y1, x0:x1]))
        return self._empty[frame.pixel_format]


#: OpenCV's COLOR_BGR2GRAY and COLOR_RGB2GRAY, without importing it for that.
_TO_GREY = {"bgr8": 6, "rgb8": 7}


def _pieces(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Boxes (N, 4) around what hangs together in a mask, in its pixels."""
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rects = np.array([cv2.boundingRect(contour) for contour in contours], np.float64).reshape(-1, 4)
    return np.concatenate([rects[:, :2], rects[:, :2] + rects[:, 2:]], axis=1)


def _merged(boxes: npt.NDArray[np.float64], reach: float) -> npt.NDArray[np.float64]:
    """Boxes nearer than `reach` become one around them, until none are."""
    boxes = boxes[np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))]
    i = 0
    while i < len(boxes):
        gap = np.maximum(boxes[i, :2] - boxes[:, 2:], boxes[:, :2] - boxes[i, 2:]).max(axis=1)
        near = gap < max(reach, 1e-9)
        if near.sum() == 1:
            i += 1
            continue
        joined = np.concatenate([boxes[near, :2].min(axis=0), boxes[near, 2:].max(axis=0)])
        boxes, i = np.concatenate([joined[None], boxes[~near]]), 0
    return boxes


def _read(path: str) -> npt.NDArray[np.uint8]:
    import cv2

    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"path: {path} is no picture that can be read")
    return np.asarray(image, np.uint8)


def create(config: Config) -> Blobs:
    """Makes the plugin.

    Raises:
        ConfigError: The picture of the belt cannot be read.
    """
    return Blobs(config)
