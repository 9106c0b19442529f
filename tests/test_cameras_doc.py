"""Every configuration in docs/cameras.md is one that the service takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from algan_stream import plugins
from algan_stream.errors import PluginError
from cameras import Opened

_DOC = Path(__file__).parents[1] / "docs" / "cameras.md"
_EXAMPLES = re.findall(r"```yaml\n(.*?)```", _DOC.read_text("utf-8"), re.DOTALL)


def test_each_new_kind_has_one() -> None:
    kinds = {yaml.safe_load(example)["source"]["kind"] for example in _EXAMPLES}
    assert kinds == {"stream", "v4l2", "pylon", "genicam", "aravis", "triggered"}


@pytest.mark.parametrize("example", _EXAMPLES)
def test_it_parses(example: str) -> None:
    section = yaml.safe_load(example)["source"]
    _, config = plugins.load("sources", section, "source")
    if section["kind"] == "triggered":
        plugins.load("sources", config.camera, "source.camera")


@pytest.mark.parametrize(
    ("section", "package", "extra"),
    [
        ({"kind": "stream", "url": "rtsp://127.0.0.1/x"}, "av", "stream"),
        ({"kind": "v4l2", "device": "/dev/video97"}, "linuxpy", "v4l2"),
        ({"kind": "pylon"}, "pypylon", "pylon"),
        ({"kind": "genicam"}, "harvesters", "genicam"),
        (
            {
                "kind": "triggered",
                "camera": {"kind": "conveyor"},
                "trigger": {"kind": "modbus", "host": "127.0.0.1"},
            },
            "pymodbus",
            "modbus",
        ),
    ],
)
def test_what_is_not_installed_is_said_with_the_extra_that_is(
    section: dict[str, Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PluginError, match=rf"{package}.*pip install 'algan-stream\[{extra}\]'"):
        Opened(section)


def test_all_kinds_are_in_the_table() -> None:
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", _DOC.read_text("utf-8"), re.M))))
    assert set(plugins.kinds("sources")) <= named
