"""Boxes as other libraries give them → boxes as we take them; none of those libraries is imported.

Taken are `supervision.Detections`, ultralytics' `Results`, their `Boxes` and `OBB`, tensors of torch, and
what NumPy makes an array of: by `Client.send(…, boxes=…)`, and from functions of `boxes: {kind: callable}`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError

#: What the four numbers of a box are: corners; corner and size; centre and size.
Form = Literal["xyxy", "xywh", "cxcywh"]


def to_xyxy(
    found: Any, *, form: Form = "xyxy", normalised_wh: tuple[int, int] | None = None
) -> npt.NDArray[np.float32]:
    """Upright boxes.

    Args:
        found: An object of those above; a list or tuple of one ultralytics `Results`; or (N, 4) numbers. Of
            turned boxes (OBB) it is the upright ones around them.
        form: What the numbers of an array are; objects know theirs.
        normalised_wh: Width and height of the image where an array's numbers are shares of them, 0 to 1.

    Returns:
        (N, 4) float32: x_min, y_min, x_max, y_max in pixels; in the order of `found`.

    Raises:
        InputError: It holds no boxes, or numbers of another shape.

    Example:
        >>> to_xyxy([[10, 20, 30, 40]], form="xywh")
        array([[10., 20., 40., 60.]], dtype=float32)
    """
    held = _holder(found)
    if held is not None:
        if form != "xyxy" or normalised_wh is not None:
            raise InputError(f"form, normalised_wh: a {type(found).__name__} knows its own; leave them out")
        numbers = _array(held.xyxy)
    else:
        numbers = _array(found)
    if numbers.size == 0 and numbers.shape[-1:] in ((0,), (4,)):
        return np.empty((0, 4), np.float32)
    if numbers.ndim != 2 or numbers.shape[1] != 4:
        raise InputError(f"boxes: expected shape (N, 4), {form}, got {numbers.shape}")
    first, second = numbers[:, :2], numbers[:, 2:]
    if form == "xywh":
        second = first + second
    elif form == "cxcywh":
        first, second = first - second / 2, first + second / 2
    elif form != "xyxy":
        raise InputError(f"form: expected xyxy, xywh or cxcywh, got {form!r}")
    boxes = np.concatenate([first, second], axis=1)
    if normalised_wh is not None:
        if boxes.size and not np.abs(boxes).max() <= 2:
            raise InputError(
                f"normalised_wh: expected shares of the image, 0 to 1, got up to {np.abs(boxes).max():g}"
            )
        boxes = boxes * np.array([*normalised_wh, *normalised_wh], np.float64)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and then no usable box
        return boxes.astype(np.float32)


def to_turned(found: Any) -> npt.NDArray[np.float32]:
    """Turned boxes, as `preprocess` takes them.

    Args:
        found: ultralytics' `Results` or `OBB`, or `supervision.Detections` with corners of turned boxes.

    Returns:
        (N, 5) float32: x_centre, y_centre, width, height, angle in degrees, clockwise on the image.

    Raises:
        InputError: It holds no turned boxes.
    """
    held = _holder(found)
    if (xywhr := getattr(held, "xywhr", None)) is not None:
        turned = _array(xywhr).reshape(-1, 5).copy()
        turned[:, 4] = np.degrees(turned[:, 4])
        return turned.astype(np.float32)
    corners = (getattr(held, "data", None) or {}).get("xyxyxyxy") if _is_supervision(held) else None
    if corners is None:
        raise InputError(f"boxes: expected turned boxes (OBB), got a {type(found).__name__} without them")
    points = _array(corners).reshape(-1, 4, 2)
    along, across = points[:, 1] - points[:, 0], points[:, 2] - points[:, 1]
    size = np.stack([np.hypot(*along.T), np.hypot(*across.T)], axis=1)
    angle = np.degrees(np.arctan2(along[:, 1], along[:, 0]))[:, None]
    return np.concatenate([points.mean(axis=1), size, angle], axis=1).astype(np.float32)


def names_of(found: Any) -> tuple[str, ...] | None:
    """The class of each box in words, where the object has them; else None."""
    held = _holder(found)
    if held is None:
        return None
    if _is_supervision(held):
        names = (held.data or {}).get("class_name")
        return None if names is None else tuple(map(str, names))
    results = found[0] if isinstance(found, (list, tuple)) else found
    table = getattr(results, "names", None)
    if not table or getattr(held, "cls", None) is None:
        return None
    return tuple(str(table[int(number)]) for number in _array(held.cls).ravel())


def _holder(found: Any) -> Any:
    """The object that has `xyxy`; None for plain numbers."""
    if isinstance(found, (list, tuple)) and len(found) == 1 and hasattr(found[0], "orig_shape"):
        found = found[0]  # an ultralytics model answers one image with a list of one
    if hasattr(found, "xyxy"):
        return found
    if hasattr(found, "orig_shape"):  # Results: turned boxes stand in `obb`, and `boxes` is then None
        held = getattr(found, "obb", None)
        held = getattr(found, "boxes", None) if held is None else held
        if held is None:
            raise InputError(f"boxes: a {type(found).__name__} without boxes; is the model a detector?")
        return held
    return None


def _is_supervision(held: Any) -> bool:
    return isinstance(getattr(held, "data", None), dict) and hasattr(held, "xyxy")


def _array(numbers: Any) -> npt.NDArray[np.float64]:
    if hasattr(numbers, "detach"):  # a tensor of torch, perhaps on a device
        numbers = numbers.detach().cpu().numpy()
    try:
        return np.asarray(numbers, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"boxes: expected numbers of shape (N, 4), got {type(numbers).__name__}: {error}"
        ) from error
