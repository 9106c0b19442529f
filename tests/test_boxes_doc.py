"""Every configuration in docs/boxes.md is one that a line takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from algan_stream import plugins
from algan_stream.config import CameraConfig
from algan_stream.plugins import convert

_DOC = (Path(__file__).parents[1] / "docs" / "boxes.md").read_text("utf-8")
_EXAMPLES = re.findall(r"```yaml\n(.*?)```", _DOC, re.DOTALL)


def test_each_new_kind_has_one() -> None:
    kinds = {yaml.safe_load(example)["boxes"]["kind"] for example in _EXAMPLES}
    assert kinds == {"detector", "blobs", "layout", "callable"}


def test_every_kind_is_named() -> None:
    for kind in plugins.kinds("boxes"):
        assert f"| `{kind}`" in _DOC


@pytest.mark.parametrize("example", _EXAMPLES)
def test_it_parses(example: str) -> None:
    camera = convert(yaml.safe_load(example), CameraConfig, "cameras[0]")
    plugins.load("boxes", camera.boxes, "cameras[0].boxes")
    plugins.load("sources", camera.source, "cameras[0].source")
