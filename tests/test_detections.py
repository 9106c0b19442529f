"""Other libraries' detections become boxes: supervision's own, and stand-ins for ultralytics'."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from algan_stream.client import _boxes
from algan_stream.detections import names_of, to_turned, to_xyxy
from algan_stream.errors import InputError
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec

_XYXY = np.array([[10, 20, 30, 60], [0, 0, 5.5, 5]], np.float32)


@pytest.mark.parametrize(
    ("array", "more"),
    [
        (_XYXY, {}),
        (_XYXY.tolist(), {}),
        (torch.from_numpy(_XYXY), {}),
        ([[10, 20, 20, 40], [0, 0, 5.5, 5]], {"form": "xywh"}),
        ([[20, 40, 20, 40], [2.75, 2.5, 5.5, 5]], {"form": "cxcywh"}),
        (_XYXY / (100, 50, 100, 50), {"normalised_wh": (100, 50)}),
    ],
)
def test_arrays(array: Any, more: dict[str, Any]) -> None:
    boxes = to_xyxy(array, **more)
    assert boxes.dtype == np.float32
    assert boxes == pytest.approx(_XYXY)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), np.zeros((0,)), torch.zeros((0, 4))])
def test_none_found_is_none(empty: Any) -> None:
    assert to_xyxy(empty).shape == (0, 4)
    assert _boxes(empty) == []


def test_supervision() -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    found = sv.Detections(
        xyxy=_XYXY, class_id=np.array([1, 0]), data={"class_name": np.array(["nut", "bolt"])}
    )
    assert to_xyxy(found) == pytest.approx(_XYXY)
    assert names_of(found) == ("nut", "bolt")
    assert _boxes(found) == [(10, 20, 30, 60), (0, 0, 5.5, 5)]
    assert to_xyxy(sv.Detections.empty()).shape == (0, 4)
    assert names_of(sv.Detections.empty()) is None
    assert len(to_xyxy(found[found.class_id == 0])) == 1
    corners = np.array([[[20, 10], [40, 30], [30, 40], [10, 20]]], np.float32)
    turned = sv.Detections(xyxy=np.array([[10, 10, 40, 40]], np.float32), data={"xyxyxyxy": corners})
    assert to_turned(turned)[0] == pytest.approx([25, 25, 800**0.5, 200**0.5, 45], abs=1e-4)
    with pytest.raises(InputError, match=r"expected turned boxes \(OBB\), got a Detections"):
        to_turned(found)


def _results(**more: Any) -> Any:
    """The interface of ultralytics' `Results` as far as it is used; the library is too large for tests."""
    boxes = SimpleNamespace(
        xyxy=torch.from_numpy(_XYXY), cls=torch.tensor([1.0, 0.0]), data=torch.zeros(2, 6)
    )
    fields = {"orig_shape": (100, 100), "boxes": boxes, "obb": None, "names": {0: "bolt", 1: "nut"}, **more}
    return SimpleNamespace(**fields)


def test_results_like_those_of_ultralytics() -> None:
    for found in (_results(), [_results()], _results().boxes):
        assert to_xyxy(found) == pytest.approx(_XYXY)
    assert names_of([_results()]) == ("nut", "bolt")
    with pytest.raises(InputError, match="without boxes; is the model a detector"):
        to_xyxy(_results(boxes=None))
    obb = SimpleNamespace(
        xyxy=torch.tensor([[10.0, 10, 40, 40]]),
        xywhr=torch.tensor([[25.0, 25, 28, 14, np.pi / 4]]),
        cls=torch.tensor([0.0]),
        data=torch.zeros(1, 7),
    )
    found = _results(boxes=None, obb=obb)
    assert to_xyxy(found).tolist() == [[10, 10, 40, 40]]
    assert to_turned(found)[0] == pytest.approx([25, 25, 28, 14, 45])
    assert names_of(found) == ("bolt",)


def test_turned_boxes_are_cut_out_as_they_lie() -> None:
    """A bar that lies at 30 degrees, clockwise, fills its turned box, and not one turned the other way."""
    import cv2

    image = np.zeros((100, 100), np.uint8)
    corners = cv2.boxPoints(((50, 50), (60, 20), 30))
    cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], 255)
    spec = InputSpec(height_px=8, width_px=8, pooled_channels=False)
    for sign, least, most in ((1, 0.95, 1.001), (-1, -1.0, 0.5)):
        xywhr = torch.tensor([[50.0, 50, 54, 15, sign * np.pi / 6]])
        boxes = to_turned(SimpleNamespace(xyxy=None, xywhr=xywhr))
        assert least <= preprocess(image, spec, pixel_format="grey8", boxes=boxes).mean() <= most


@pytest.mark.parametrize(
    ("found", "more", "message"),
    [
        ([1, 2, 3], {}, r"expected shape \(N, 4\), xyxy, got \(3,\)"),
        ([[1, 2, 3]], {}, "expected shape"),
        ("boxes", {}, "expected numbers"),
        ([[1, 2], [3]], {}, "expected numbers"),
        ([[1, 2, 3, 4]], {"form": "yxyx"}, "form"),
        ([[1, 2, 30, 4]], {"normalised_wh": (8, 8)}, "expected shares of the image"),
        (_results(), {"form": "xywh"}, "knows its own"),
    ],
)
def test_what_is_no_boxes(found: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_xyxy(found, **more)
