"""Any frame as people see it: blue, green, red, 8 bits. For pictures and videos, never for scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.types import BoxVerdict, CameraFormat, FrameVerdict, VerdictKind

#: Names of OpenCV's conversions; its Bayer patterns are named by their second row, ours by the first.
_TO_BGR = {
    "rgb8": "COLOR_RGB2BGR",
    "grey8": "COLOR_GRAY2BGR",
    "grey16": "COLOR_GRAY2BGR",
    "bgra8": "COLOR_BGRA2BGR",
    "rgba8": "COLOR_RGBA2BGR",
    "bayer_rggb8": "COLOR_BayerBG2BGR",
    "bayer_bggr8": "COLOR_BayerRG2BGR",
    "bayer_grbg8": "COLOR_BayerGB2BGR",
    "bayer_gbrg8": "COLOR_BayerGR2BGR",
    "nv12": "COLOR_YUV2BGR_NV12",
    "nv21": "COLOR_YUV2BGR_NV21",
    "i420": "COLOR_YUV2BGR_I420",
    "yuyv": "COLOR_YUV2BGR_YUY2",
    "uyvy": "COLOR_YUV2BGR_UYVY",
}
#: Green, red, yellow, as blue, green, red.
_COLOURS = {
    VerdictKind.PASS: (80, 200, 80),
    VerdictKind.REJECT: (60, 60, 230),
    VerdictKind.UNKNOWN: (0, 200, 230),
}


def to_bgr(image: npt.NDArray[Any], pixel_format: CameraFormat) -> npt.NDArray[np.uint8]:
    """A picture to look at, in memory of its own.

    Args:
        image: As `preprocess` takes it, in one array; of 16 bits the brightest becomes white.
        pixel_format: What the pixels are.

    Returns:
        (H, W, 3) uint8, blue, green, red.
    """
    import cv2

    if image.dtype == np.uint16:
        image = (image.astype(np.uint32) * 255 // max(1, int(image.max()))).astype(np.uint8)
    if pixel_format == "bgr8":
        return np.array(image, np.uint8)
    return np.asarray(
        cv2.cvtColor(np.ascontiguousarray(image), getattr(cv2, _TO_BGR[pixel_format])), np.uint8
    )


def annotate(picture_bgr: npt.NDArray[np.uint8], verdict: FrameVerdict) -> None:
    """Draws a verdict into a picture: each box in its verdict's colour with its score, and a line of text.

    Args:
        picture_bgr: (H, W, 3) uint8; changed in place.
        verdict: What is drawn.
    """
    import cv2

    height = picture_bgr.shape[0]
    scale = max(0.4, height / 1000)
    thick = max(1, round(height / 400))
    for box in verdict.boxes:
        if box.box is not None and all(map(_drawable, box.box)):
            x0, y0, x1, y1 = (round(edge) for edge in box.box)
            cv2.rectangle(picture_bgr, (x0, y0), (x1 - 1, y1 - 1), _COLOURS[box.verdict], thick)
            _text(picture_bgr, _score(box), (x0, max(y0 - 4, round(22 * scale))), scale, box.verdict)
    whole = next((box for box in verdict.boxes if box.box is None), None)
    said = [verdict.camera, f"#{verdict.frame_id}", verdict.part_id, verdict.verdict.value, verdict.reason]
    said += [_score(whole)] if whole else []
    line = " ".join(filter(None, said)).encode("ascii", "replace").decode()
    _text(picture_bgr, line, (8, height - round(10 * scale)), scale, verdict.verdict)
    cv2.rectangle(
        picture_bgr, (0, 0), (picture_bgr.shape[1] - 1, height - 1), _COLOURS[verdict.verdict], 2 * thick
    )


def _score(box: BoxVerdict) -> str:
    return box.reason if box.score is None else f"{box.score:+.2f}"


def _drawable(edge: float) -> bool:
    return abs(edge) < 1e6


def _text(
    picture: npt.NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, kind: VerdictKind
) -> None:
    import cv2

    for colour, thickness in (((0, 0, 0), 4), (_COLOURS[kind], 1)):  # dark around: readable on any ground
        cv2.putText(
            picture,
            text,
            at,
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            colour,
            max(1, round(thickness * scale)),
            cv2.LINE_AA,
        )
