"""Boxes from your own Python function."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.boxes.base import BoxFinder, has_pixels
from algan_stream.detections import names_of, to_xyxy
from algan_stream.errors import ConfigError, InputError
from algan_stream.types import Frame

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `boxes` with `kind: callable`.

    Attributes:
        function: `MODULE:FUNCTION`, called with each `Frame`, whose image it must not change; or
            `MODULE:CLASS`, which is made once, without arguments, and whose instance is then called. It
            returns whatever `detections.to_xyxy` takes, such as an array (N, 4) of x_min, y_min, x_max, y_max
            in pixels, or None for the whole frame.
        path: Folder to look for the module in, before where Python looks.
        max_boxes: A frame with more is `unknown(boxes_failed)`.
    """

    kind: Literal["callable"] = "callable"
    function: str
    path: str | None = None
    max_boxes: int = 4096

    def __post_init__(self) -> None:
        if not _TARGET.fullmatch(self.function):
            raise ValueError(f"function: expected MODULE:FUNCTION, got {self.function!r}")
        if not 1 <= self.max_boxes <= 1_000_000:
            raise ValueError(f"max_boxes: expected 1 to 1000000, got {self.max_boxes}")


class CallableBoxes(BoxFinder):
    """Asks the function; what it raises, and what is no boxes, is that frame's fault alone."""

    def __init__(self, function: Callable[[Frame], Any], max_boxes: int) -> None:
        self._function, self._max_boxes = function, max_boxes

    def find(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Returns what the function found.

        Raises:
            InputError: It returned no boxes, or too many.
        """
        if not has_pixels(frame):
            return None
        found = self._function(frame)
        if found is None:
            return None
        boxes = to_xyxy(found)
        if len(boxes) > self._max_boxes:
            raise InputError(f"expected at most {self._max_boxes} boxes, got {len(boxes)}")
        frame.box_names = names_of(found) or frame.box_names
        return boxes


def create(config: Config) -> CallableBoxes:
    """Imports the function.

    Raises:
        ConfigError: There is no such module or function, or it cannot be called.
    """
    if config.path is not None and config.path not in sys.path:
        sys.path.insert(0, config.path)
    module_name, _, name = config.function.partition(":")
    try:
        target = getattr(importlib.import_module(module_name), name)
        function = target() if isinstance(target, type) else target
    except Exception as error:
        raise ConfigError(
            f"function: {config.function} cannot be had: {type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise ConfigError(f"function: {config.function} cannot be called: it is a {type(function).__name__}")
    return CallableBoxes(function, config.max_boxes)
