"""A line's configuration: one YAML file, checked as a whole before the first frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from algan_stream import endpoints
from algan_stream.batcher import BatchConfig
from algan_stream.drift import DriftConfig
from algan_stream.errors import ConfigError
from algan_stream.guard.config import GuardConfig
from algan_stream.intake import Backpressure
from algan_stream.plugins import convert
from algan_stream.ranges import check_ranges
from algan_stream.types import Rule, WhenEmpty

#: Keys of a source, boxes, a sink or an engine that name files or folders, as do those that end in `_file`.
_PATHS = ("path", "spill", "cache", "secret_key", "allow")
#: Keys of a source or sink whose sections may name such files.
_NESTED = ("camera", "delivery", "curve")

#: Names of cameras: they stand in topics, file names and metrics.
CAMERA_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class TrackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Key `track` of a camera: a part that is seen in several frames gets one verdict, see `parts.py`.

    Attributes:
        conclude: When: once it is `lost`, when its centre crosses a `line`, or after so many `frames`; at the
            latest when it is lost.
        axis: Along which the line is crossed: `x`: it stands upright; `y`: it lies level.
        at_px: Where the line is on that axis, in pixels.
        frames: With `conclude: frames`: in so many frames the part must have been found.
        lost_frames: A part that is not found for so many frames is gone.
        reach: A box may be so far from where its part is expected, in sides of the box.
        verdict: `mean`: the mean of its scores against the threshold; `max`: the worst frame stands for it;
            `vote`: half of the frames reject; `count`: `reject_frames` do.
        reject_frames: See there.
        min_frames: With fewer frames that have a verdict it is `unknown(too_few_frames)`, unless rejected.
        max_unknown: With a larger share of frames without one it is `unknown(too_many_unknown)`, likewise.
    """

    conclude: Literal["lost", "line", "frames"] = "lost"
    axis: Literal["x", "y"] = "x"
    at_px: float | None = None
    frames: int = 10
    lost_frames: int = 5
    reach: float = 0.7
    verdict: Literal["mean", "max", "vote", "count"] = "mean"
    reject_frames: int = 2
    min_frames: int = 3
    max_unknown: float = 0.5

    def __post_init__(self) -> None:
        if (self.conclude == "line") != (self.at_px is not None):
            raise ValueError("at_px: is needed with conclude: line, and with no other")
        check_ranges(
            ("frames", self.frames, 1, 100_000),
            ("lost_frames", self.lost_frames, 1, 10_000),
            ("reach", self.reach, 0.01, 100),
            ("reject_frames", self.reject_frames, 1, 100_000),
            ("min_frames", self.min_frames, 1, 100_000),
            ("max_unknown", self.max_unknown, 0, 0.99),
        )
        if self.conclude == "frames" and self.frames < self.min_frames:
            raise ValueError(f"frames: expected min_frames, {self.min_frames}, or more, got {self.frames}")


class CameraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `cameras`.

    Attributes:
        id: Name of the camera; letters, digits, `_`, `.`, `-`.
        source: Where frames come from; `kind` names the plugin.
        boxes: Which parts of a frame are scored; `attached`: the boxes that come with the frame, or the
            whole frame where none come; `whole`: always the whole frame.
        rule: The verdict on a frame from those on its boxes; by default the worst stands for it.
        when_empty: What it means that no box was found: `unknown`; `ignore`: the frame is in the accounts,
            but no sink gets a verdict on it; `pass`: there is nothing that could be bad.
        track: How parts are tracked over frames; None: they are not.
        backpressure: What happens when the queue is full; by default `drop_oldest` for live sources and
            `block` for all others.
        queue_size: Most frames that wait for this camera.
        deadline_ms: A verdict later than this after the frame's arrival is `unknown`; None: no limit.
        guard: Finds camera faults; None: does not look for them.
        drift: Tests its scores for drift; None: as the line does.
    """

    id: str
    source: dict[str, Any]
    boxes: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "attached"})
    rule: Rule | None = None
    when_empty: WhenEmpty = "unknown"
    track: TrackConfig | None = None
    backpressure: Backpressure | None = None
    queue_size: int = 16
    deadline_ms: float | None = None
    guard: GuardConfig | None = None
    drift: DriftConfig | None = None

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


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `control`: the socket for `algan-stream ctl`. Who reaches it commands the line.

    Attributes:
        bind: `ipc://PATH`; the file is its owner's alone (0600).
    """

    bind: str

    def __post_init__(self) -> None:
        if not self.bind.startswith("ipc://"):
            raise ValueError(f"bind: expected ipc://PATH, which is its owner's alone, got {self.bind!r}")


class SwapConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `swap` of a line: the trial of a model that took over.

    Attributes:
        trial_s: How long its outcomes are compared with those of the model before it.
        keep_s: How long the model before is kept after that, for `ctl rollback`.
        window: Frames that are looked back on.
        least_frames: Frames that either model must have judged before shares are compared.
        unknown_rise: Rolls back when the share of unknown verdicts has risen by more.
        reject_change: Rolls back when the share of rejects has risen or fallen by more.
        engine_faults: Rolls back when the engine has failed on more frames than this.
    """

    trial_s: float = 600.0
    keep_s: float = 3600.0
    window: int = 1000
    least_frames: int = 200
    unknown_rise: float = 0.05
    reject_change: float = 0.1
    engine_faults: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            ("trial_s", self.trial_s, 0, 604_800),
            ("keep_s", self.keep_s, 0, 604_800),
            ("window", self.window, 1, 1_000_000),
            ("least_frames", self.least_frames, 1, self.window),
            ("unknown_rise", self.unknown_rise, 0, 1),
            ("reject_change", self.reject_change, 0, 1),
            ("engine_faults", self.engine_faults, 0, 1_000_000),
        )


class LineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file.

    Attributes:
        bundle: Path of the model bundle, relative to the file, or `demo`.
        cameras: At least one.
        engine: `kind` names the plugin.
        batch: When batches leave.
        sinks: Where verdicts go.
        drift: Tests the cameras' scores for drift since the calibration.
        http: Where metrics and health are served; None: nowhere.
        control: Where `algan-stream ctl` reaches the line; None: nowhere.
        swap: The trial of a model that takes over.
        drain_timeout_s: How long a stop waits for the verdicts on frames already received, 0 to 3600.
    """

    bundle: str
    cameras: tuple[CameraConfig, ...]
    engine: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "openvino"})
    batch: BatchConfig = BatchConfig()
    sinks: tuple[dict[str, Any], ...] = ()
    drift: DriftConfig = DriftConfig()
    http: HttpConfig | None = None
    control: ControlConfig | None = None
    swap: SwapConfig = SwapConfig()
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.drain_timeout_s <= 3600:
            raise ValueError(f"drain_timeout_s: expected 0 to 3600, got {self.drain_timeout_s}")
        names = [camera.id for camera in self.cameras]
        if not names:
            raise ValueError("cameras: expected at least one camera, got none")
        if taken := {f"{camera.id}.parts" for camera in self.cameras if camera.track} & set(names):
            raise ValueError(f"cameras: {taken.pop()} is the name of the parts that a tracked camera sees")
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
        files = {
            key: str(folder / value)
            for key, value in section.items()
            if (key in _PATHS or key.endswith("_file")) and isinstance(value, str)
        }
        nested = {key: placed(value) for key in _NESTED if isinstance(value := section.get(key), dict)}
        return {**section, **files, **nested}

    bundle = line.bundle if line.bundle == "demo" else str(folder / line.bundle)
    cameras = tuple(
        msgspec.structs.replace(
            c,
            source=placed(c.source),
            boxes=placed(c.boxes),
            guard=c.guard and c.guard.placed(folder),
        )
        for c in line.cameras
    )
    return msgspec.structs.replace(
        line,
        bundle=bundle,
        cameras=cameras,
        engine=placed(line.engine),
        sinks=tuple(map(placed, line.sinks)),
    )
