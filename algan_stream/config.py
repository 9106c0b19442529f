"""A line's configuration: one YAML file, checked as a whole before the first frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from algan_stream import endpoints
from algan_stream.batcher import BatchConfig
from algan_stream.errors import ConfigError
from algan_stream.intake import Backpressure
from algan_stream.plugins import convert

#: Keys of a source, sink or engine that name files or folders.
_PATHS = ("path", "spill", "cache", "secret_key", "allow")
#: Keys of them that are sections with such keys.
_SECTIONS = ("delivery", "curve")

#: Names of cameras: they stand in topics, file names and metrics.
CAMERA_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class CameraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `cameras`.

    Attributes:
        id: Name of the camera; letters, digits, `_`, `.`, `-`.
        source: Where frames come from; `kind` names the plugin.
        boxes: Which parts of a frame are scored; `attached`: the boxes that come with the frame, or the
            whole frame where none come; `whole`: always the whole frame.
        backpressure: What happens when the queue is full; by default `drop_oldest` for live sources and
            `block` for all others.
        queue_size: Most frames that wait for this camera.
        deadline_ms: A verdict later than this after the frame's arrival is `unknown`; None: no limit.
    """

    id: str
    source: dict[str, Any]
    boxes: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "attached"})
    backpressure: Backpressure | None = None
    queue_size: int = 16
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        if not CAMERA_NAME.fullmatch(self.id):
            raise ValueError(f"id: expected 1 to 64 letters, digits, '_', '.', '-', got {self.id!r}")
        if not 1 <= self.queue_size <= 10_000:
            raise ValueError(f"queue_size: expected 1 to 10000, got {self.queue_size}")
        if self.deadline_ms is not None and not 0 < self.deadline_ms <= 3_600_000:
            raise ValueError(f"deadline_ms: expected above 0 and up to 3600000, got {self.deadline_ms}")


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `http`: metrics and health for a monitoring system.

    Attributes:
        bind: `ADDRESS:PORT`; port 0 for any free one.
        insecure: Allow an address that other hosts reach; anyone there may read the metrics.
    """

    bind: str
    insecure: bool = False

    def __post_init__(self) -> None:
        host, colon, port = self.bind.rpartition(":")
        if not endpoints.is_host_and_port(self.bind) or not colon or not port.isdigit():
            raise ValueError(f"bind: expected ADDRESS:PORT, such as 127.0.0.1:9108, got {self.bind!r}")
        if not self.insecure and not endpoints.is_loopback(host.strip("[]")):
            raise ValueError(
                f"bind: {self.bind} can be reached from other hosts; bind to 127.0.0.1, or write "
                "`insecure: true` to accept that anyone may read the metrics"
            )


class LineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file.

    Attributes:
        bundle: Path of the model bundle, relative to the file, or `demo`.
        cameras: At least one.
        engine: `kind` names the plugin.
        batch: When batches leave.
        sinks: Where verdicts go.
        http: Where metrics and health are served; None: nowhere.
        drain_timeout_s: How long a stop waits for the verdicts on frames already received, 0 to 3600.
    """

    bundle: str
    cameras: tuple[CameraConfig, ...]
    engine: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "openvino"})
    batch: BatchConfig = BatchConfig()
    sinks: tuple[dict[str, Any], ...] = ()
    http: HttpConfig | None = None
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.drain_timeout_s <= 3600:
            raise ValueError(f"drain_timeout_s: expected 0 to 3600, got {self.drain_timeout_s}")
        names = [camera.id for camera in self.cameras]
        if not names:
            raise ValueError("cameras: expected at least one camera, got none")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"cameras: each id must be unique, got {', '.join(sorted(twice))} more than once"
            )


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one section, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_line(path: str | Path) -> LineConfig:
    """Reads and checks a line's YAML file; relative paths inside are taken from its folder.

    Raises:
        ConfigError: It cannot be read, or a key in it is unknown, missing or out of range.
    """
    file = Path(path)
    try:
        raw = yaml.load(file.read_text("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        got = "an empty file" if raw is None else f"a {type(raw).__name__}"
        raise ConfigError(f"{file}: expected keys like `bundle:` and `cameras:`, got {got}")
    try:
        line: LineConfig = convert(raw, LineConfig, "")
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return _with_absolute_paths(line, file.resolve().parent)


def _with_absolute_paths(line: LineConfig, folder: Path) -> LineConfig:
    def placed(section: dict[str, Any]) -> dict[str, Any]:
        files = {key: str(folder / value) for key in _PATHS if isinstance(value := section.get(key), str)}
        nested = {key: placed(value) for key in _SECTIONS if isinstance(value := section.get(key), dict)}
        return {**section, **files, **nested}

    bundle = line.bundle if line.bundle == "demo" else str(folder / line.bundle)
    cameras = tuple(msgspec.structs.replace(c, source=placed(c.source)) for c in line.cameras)
    return msgspec.structs.replace(
        line,
        bundle=bundle,
        cameras=cameras,
        engine=placed(line.engine),
        sinks=tuple(map(placed, line.sinks)),
    )
