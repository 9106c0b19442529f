"""Reads a line's file again, and brings the running line there: as a whole, or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.config import CameraConfig, LineConfig, read_line
from algan_stream.engines.gate import check_golden
from algan_stream.errors import ConfigError
from algan_stream.feeds import Feed
from algan_stream.model import Model, check_successor
from algan_stream.sinks.base import Sink
from algan_stream.swap import Swapper

if TYPE_CHECKING:
    from algan_stream.service import Service

log = logging.getLogger(__name__)

#: Sections of the file that a running line can follow.
_LIVE = frozenset({"bundle", "cameras", "sinks", "drain_timeout_s"})
#: Keys of a camera that it can follow.
_LIVE_CAMERA = frozenset({"deadline_ms"})


@dataclass
class _Plan:
    """What has to be done, checked before anything is."""

    line: LineConfig
    changes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    added: list[tuple[CameraConfig, str]] = field(default_factory=list)
    removed: list[Feed] = field(default_factory=list)
    deadlines: list[tuple[Feed, CameraConfig]] = field(default_factory=list)
    new_sinks: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    kept_sinks: list[tuple[dict[str, Any], Sink]] = field(default_factory=list)
    gone_sinks: list[Sink] = field(default_factory=list)
    model: Model | None = None


def reload(service: Service, swapper: Swapper) -> list[str]:
    """Follows the line's file, where it has changed.

    Returns:
        The changes, one line of text each.

    Raises:
        ConfigError: The file cannot be used, or something in it needs a restart; nothing was changed.
        AlganError: A new camera or sink cannot be opened, or a swap is at work; nothing was changed.
    """
    if service.file is None:
        raise ConfigError("this line was not started from a file")
    plan = _plan(service, read_line(service.file))
    if plan.refusals:
        raise ConfigError("nothing was changed: " + "; ".join(plan.refusals))
    if plan.changes:
        _apply(service, swapper, plan)
    return plan.changes


# ---- what has to be done ---------------------------------------------------------------------------------


def _plan(service: Service, line: LineConfig) -> _Plan:
    plan, old = _Plan(line), service.line
    for name in LineConfig.__struct_fields__:
        if name not in _LIVE and getattr(line, name) != getattr(old, name):
            plan.refusals.append(f"{name}: needs a restart")
    if line.drain_timeout_s != old.drain_timeout_s:
        plan.changes.append(f"drain_timeout_s: {old.drain_timeout_s:g} → {line.drain_timeout_s:g}")
    _plan_cameras(service, plan)
    _plan_sinks(service, plan)
    _plan_threshold(service, plan)
    return plan


def _plan_cameras(service: Service, plan: _Plan) -> None:
    running = {feed.camera.id: feed for feed in service.feeds}
    wanted = {camera.id for camera in plan.line.cameras}
    for i, camera in enumerate(plan.line.cameras):
        feed = running.get(camera.id)
        if feed is not None and feed.stop.is_set():
            plan.refusals.append(f"cameras[{i}]: {camera.id} was removed, and is not ended yet; try again")
        elif feed is not None:
            _plan_change(plan, feed, camera, f"cameras[{i}]")
        elif camera.id in service.pipeline.queue_depths():
            plan.refusals.append(f"cameras[{i}].id: {camera.id} is a client's; choose another")
        else:
            plan.added.append((camera, f"cameras[{i}]"))
            plan.changes.append(f"camera {camera.id}: added")
    plan.removed = [feed for name, feed in running.items() if name not in wanted]
    plan.changes += [f"camera {feed.camera.id}: removed" for feed in plan.removed]


def _plan_change(plan: _Plan, feed: Feed, camera: CameraConfig, path: str) -> None:
    for name in CameraConfig.__struct_fields__:
        old, new = getattr(feed.camera, name), getattr(camera, name)
        if old == new:
            continue
        if name in _LIVE_CAMERA:
            plan.deadlines.append((feed, camera))
            plan.changes.append(f"camera {camera.id}: {name}: {old} → {new}")
        else:
            plan.refusals.append(f"{path}.{name}: needs a restart, or the camera another id")


def _plan_sinks(service: Service, plan: _Plan) -> None:
    left = list(service.configured_sinks)
    for i, section in enumerate(plan.line.sinks):
        same = next((entry for entry in left if entry[0] == section), None)
        if same is None:
            plan.new_sinks.append((section, f"sinks[{i}]"))
            plan.changes.append(f"sinks[{i}]: {section.get('kind')} added")
        else:
            left.remove(same)
            plan.kept_sinks.append(same)
    plan.gone_sinks = [sink for _, sink in left]
    plan.changes += [f"sink {section.get('kind')}: removed" for section, _ in left]


def _plan_threshold(service: Service, plan: _Plan) -> None:
    """The bundle on disk is the one that serves; `algan-stream calibrate` may have changed its threshold."""
    served = service.pipeline.model
    bundle = read_bundle(plan.line.bundle)
    if bundle.path.resolve() != served.bundle.path.resolve():
        plan.refusals.append(f"bundle: {served.bundle.path} serves; go over by `ctl swap {bundle.path}`")
        return
    if bundle.manifest.files != served.bundle.manifest.files:
        plan.refusals.append(f"bundle: {bundle.path} holds another model now; go over by `ctl swap`")
        return
    if bundle.manifest.calibration != served.bundle.manifest.calibration:
        check_successor(served.bundle, bundle)
        plan.model = Model(bundle, served.engine)
        plan.changes.append(f"threshold: {_limit(served.bundle)} → {_limit(bundle)}")


def _limit(bundle: Bundle) -> str:
    calibration = bundle.manifest.calibration
    return "none" if calibration is None else f"{calibration.threshold:.6g}"


# ---- doing it --------------------------------------------------------------------------------------------


def _apply(service: Service, swapper: Swapper, plan: _Plan) -> None:
    """First everything that can fail, and can be undone; then the rest."""
    sinks: list[tuple[dict[str, Any], Sink]] = []
    feeds: list[Feed] = []
    try:
        for section, path in plan.new_sinks:
            sinks.append((section, service.open_sink(section, path)))
        for camera, path in plan.added:
            feeds.append(service.open_camera(camera, path))
        if plan.model is not None:
            check_golden(plan.model.bundle, plan.model.engine)  # its verdicts have another threshold now
            swapper.adopt(plan.model)
    except BaseException:
        for feed in feeds:
            feed.source.close()
            service.forget_camera(feed)
        for _, sink in sinks:
            sink.close()
        raise
    service.line = plan.line
    for feed, camera in plan.deadlines:
        feed.camera, feed.context.deadline_ms = camera, camera.deadline_ms
    service.use_sinks([*plan.kept_sinks, *sinks])
    for feed in feeds:  # before others end: a line without a source would stop
        service.start_camera(feed)
    _end(service, plan)


def _end(service: Service, plan: _Plan) -> None:
    for feed in plan.removed:
        if feed.end(service.pipeline.ledger, plan.line.drain_timeout_s) or not feed.running:
            service.forget_camera(feed)
        else:  # the line closes it at its end, or the next reload does
            plan.changes.append(f"camera {feed.camera.id}: has not ended yet, though asked to")
    for sink in plan.gone_sinks:
        try:
            sink.close()
        except Exception:
            log.exception("%s could not be closed", type(sink).__name__)
