"""Finds plugins by file name: `kind: video` in section `source` is `algan_stream/sources/video.py`.

A plugin is one module with `Config`, a msgspec Struct that refuses unknown keys, and `create`. Other packages
add theirs through an entry-point group of the same name (`algan_stream.sources`: `NAME = "module"`).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from algan_stream.errors import AlganError, ConfigError, PluginError

Group = Literal["sources", "boxes", "engines", "sinks"]
#: Modules of a group's folder that are no plugins.
_HELPERS = frozenset(
    {"base", "gate", "graph"}
    | {"cache", "cuda_device", "kserve", "onnxruntime_session", "openvino_device"}
    | {"tensorrt_common", "tensorrt_engine"}
    | {"backlog", "outlet"}
    | {"device", "features", "link", "live", "pixels", "trigger_modbus", "trigger_zmq", "triggers"}
    | {"backlog", "breaker", "buffers", "frames", "handshake", "opcua_security", "outlet", "retention"}
    | {"any_graph", "decoders", "tracking"}
)


def kinds(group: Group) -> list[str]:
    """Names of the plugins of a group that are installed, sorted."""
    package = importlib.import_module(f"algan_stream.{group}")
    own = {m.name for m in pkgutil.iter_modules(package.__path__)} - _HELPERS
    return sorted(own | {entry.name for entry in entry_points(group=f"algan_stream.{group}")})


def load(group: Group, section: dict[str, Any], path: str) -> tuple[ModuleType, Any]:
    """Imports the plugin that a configuration section names, and types the section.

    Args:
        group: Kind of plugin.
        section: The section as read from YAML, with the key `kind`.
        path: Where it stands in the file, for messages (`cameras[1].source`).

    Returns:
        The plugin's module and its typed configuration.

    Raises:
        PluginError: The kind is unknown, or a library that it needs is missing.
        ConfigError: A key is unknown, missing or out of range.
    """
    module = find(group, section.get("kind"), path)
    return module, convert(section, module.Config, path)


def find(group: Group, kind: object, path: str) -> ModuleType:
    """Imports a plugin.

    Raises:
        PluginError: The kind is unknown, or a library that it needs is missing.
    """
    if not isinstance(kind, str) or kind not in kinds(group):
        raise PluginError(f"{path}.kind: expected one of {', '.join(kinds(group))}, got {kind!r}")
    return _import(group, kind, path)


def convert(section: Any, to: type[Any], path: str) -> Any:
    """Types a configuration section strictly.

    Raises:
        ConfigError: A key is unknown, missing or out of range; the message starts with its path.
    """
    try:
        return msgspec.convert(section, to)
    except (msgspec.ValidationError, ConfigError) as error:
        raise ConfigError(_located(str(error), path, to)) from error


@contextmanager
def placed(path: str) -> Iterator[None]:
    """Says in every error of ours which part of a configuration it is about."""
    try:
        yield
    except AlganError as error:
        if not str(error).startswith(path):
            error.args = (f"{path}: {error}",)
        raise


def _import(group: Group, kind: str, path: str) -> ModuleType:
    try:
        for entry in entry_points(group=f"algan_stream.{group}", name=kind):
            return importlib.import_module(entry.value)
        return importlib.import_module(f"algan_stream.{group}.{kind}")
    except ModuleNotFoundError as error:
        raise PluginError(
            f"{path}.kind: {kind} needs the Python package {error.name}; install it and try again"
        ) from error
    except ImportError as error:
        raise PluginError(f"{path}.kind: {kind} cannot be loaded: {error}") from error


def _located(message: str, path: str, to: type[Any]) -> str:
    """Turns msgspec's `… - at `$.a[0].b`` and `unknown field `x`` into `a[0].b.x: …`."""
    text, _, where = message.partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    before, found, rest = text.partition("contains unknown field `")
    if found:
        key, text = rest.split("`")[0], "unknown key; remove it or correct its spelling"
        if known := _keys(to, where):
            text += f"; known are {', '.join(known)}"
        where = f"{where}.{key}" if where else key
    elif "missing required field `" in text:
        key, text = text.split("`")[1], "is required but missing"
        where = f"{where}.{key}" if where else key
    elif text.startswith("Invalid enum value ") and (choices := _choices(to, where)):
        text = f"expected one of {', '.join(choices)}, got {text.removeprefix('Invalid enum value ')}"
    full = f"{path}.{where}" if path and where and not where.startswith("[") else f"{path}{where}"
    return f"{full}: {text}" if full else f"{before if found else text}"


def _structs(to: Any) -> list[type[msgspec.Struct]]:
    return [t for t in (to, *get_args(to)) if isinstance(t, type) and issubclass(t, msgspec.Struct)]


def _type_at(to: Any, where: str) -> Any:
    """The type at a path such as `cameras[0].backpressure`; None where there is none."""
    for key in re.findall(r"[a-z_]+|\[", where):
        if key == "[":
            to = next(iter(get_args(to)), None)
            continue
        to = next((hints[key] for t in _structs(to) if key in (hints := get_type_hints(t))), None)
    return to


def _keys(to: Any, where: str) -> list[str]:
    """The keys of the section at a path, where it is one."""
    return [key for struct in _structs(_type_at(to, where))[:1] for key in struct.__struct_encode_fields__]


def _choices(to: Any, where: str) -> list[str]:
    """What a `Literal` at a path may be, or each value of a list of them; empty if it is none."""
    to = _type_at(to, where)
    literals = [t for t in (to, *get_args(to)) if get_origin(t) is Literal]
    return [str(value) for literal in literals for value in get_args(literal)]
