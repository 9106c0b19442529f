"""Plugins are found by file name; what is missing is said in words."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from algan_stream import plugins
from algan_stream.errors import PluginError

_GROUPS: dict[plugins.Group, set[str]] = {
    "sources": {"folder", "video", "zmq"},
    "boxes": {"attached", "blobs", "callable", "detector", "layout", "tiles", "whole"},
    "engines": {"onnxruntime", "openvino"},
    "sinks": {"jsonl", "zmq_pub"},
}


@pytest.mark.parametrize("group", _GROUPS)
def test_the_built_in_ones_are_found_and_helpers_are_not(group: plugins.Group) -> None:
    found = plugins.kinds(group)
    assert found == sorted(found)
    assert _GROUPS[group] <= set(found)
    helpers = {"base", "gate", "graph", "any_graph", "onnxruntime_session", "openvino_device"}
    assert not (helpers | {"decoders", "tracking"}) & set(found)


@pytest.mark.parametrize("group", _GROUPS)
@pytest.mark.parametrize("kind", ["nope", "base", "", None, 3, "../os", "os", ["zmq"]])
def test_an_unknown_kind_is_answered_with_the_known_ones(group: plugins.Group, kind: Any) -> None:
    with pytest.raises(PluginError) as caught:
        plugins.load(group, {"kind": kind}, "here")
    assert str(caught.value) == f"here.kind: expected one of {', '.join(plugins.kinds(group))}, got {kind!r}"


@pytest.mark.parametrize("group", _GROUPS)
def test_every_plugin_refuses_unknown_keys_and_can_be_created(group: plugins.Group) -> None:
    for kind in _GROUPS[group]:
        module = plugins._import(group, kind, "here")
        assert issubclass(module.Config, msgspec.Struct)
        assert module.Config.__struct_config__.forbid_unknown_fields
        assert module.Config.__struct_config__.frozen
        assert module.Config.__doc__
        assert callable(module.create)


class _Entry:
    """An entry point of another package."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules, each offered as an engine of its own name."""
    names = ("good_plugin", "poor_plugin", "broken_plugin")

    def offered(group: str, name: str = "") -> list[_Entry]:
        return [_Entry(n, n) for n in names if group == "algan_stream.engines" and name in ("", n)]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "entry_points", offered)
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)


def test_other_packages_add_theirs(foreign: Path) -> None:
    (foreign / "good_plugin.py").write_text(
        "import msgspec\n"
        "class Config(msgspec.Struct, forbid_unknown_fields=True):\n    kind: str\n    size: int = 1\n"
    )
    module, config = plugins.load("engines", {"kind": "good_plugin", "size": 3}, "engine")
    assert isinstance(module, ModuleType)
    assert config.size == 3


def test_a_missing_library_is_named(foreign: Path) -> None:
    (foreign / "poor_plugin.py").write_text("import no_such_library.part\n")
    with pytest.raises(
        PluginError, match=r"engine\.kind: poor_plugin needs the Python package no_such_library;"
    ):
        plugins.load("engines", {"kind": "poor_plugin"}, "engine")


def test_a_plugin_that_is_broken_itself_says_how(foreign: Path) -> None:
    """An import that fails for another reason than a missing library must not send people to pip."""
    (foreign / "broken_plugin.py").write_text(
        "raise ImportError('libgpu.so.4: cannot open shared object file')\n"
    )
    with pytest.raises(PluginError, match=r"engine\.kind: broken_plugin cannot be loaded: libgpu\.so\.4"):
        plugins.load("engines", {"kind": "broken_plugin"}, "engine")
