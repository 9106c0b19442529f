"""A frame's way into an engine's slot: images through `_core`, vectors as they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.preprocess import preprocess_into
from algan_stream.types import Frame, InputSpec, Spec, VectorSpec


def misfit(frame: Frame, spec: Spec) -> str:
    """Why a frame cannot be an input of this kind: a reason for `unknown`; empty if it can.

    What is wrong with the pixels of an image or its boxes shows later, when they are read.
    """
    vector = frame.vector
    if isinstance(spec, InputSpec):
        return "" if vector is None else f"wrong_kind: expected an image, got {vector.size} numbers"
    if vector is None:
        return f"wrong_kind: expected a vector of {spec.features} numbers, got an image"
    return vector_fault(vector, spec)


def vector_fault(vector: npt.NDArray[np.float32], spec: VectorSpec) -> str:
    """Why a vector cannot be scored; empty if it can."""
    if vector.shape != spec.shape:
        return f"wrong_length: expected {spec.features} numbers, got {vector.size}"
    finite = np.isfinite(vector)
    if not finite.all():
        first = int(np.argmin(finite))
        return f"not_finite: number {first} is {vector[first]}, expected finite numbers"
    return ""


def write_inputs(
    out: npt.NDArray[np.float32],
    frame: Frame,
    spec: Spec,
    *,
    boxes: npt.NDArray[np.float32] | None,
    first_slot: int,
) -> None:
    """Writes a frame, or its boxes, into slots of `out` (max_batch, *spec.shape), from `first_slot` on.

    Raises:
        InputError: Image, boxes or vector cannot be used; nothing is written.
    """
    if isinstance(spec, InputSpec):
        preprocess_into(
            out, frame.image, spec, pixel_format=frame.pixel_format, boxes=boxes, first_slot=first_slot
        )
    elif reason := misfit(frame, spec):
        raise InputError(reason)
    else:
        out[first_slot] = frame.vector
