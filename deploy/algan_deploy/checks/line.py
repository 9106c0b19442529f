"""What a configured line asks of the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from algan_deploy.checks.finding import Finding, Host
from algan_deploy.checks.machine import usable_bytes
from algan_stream import plugins
from algan_stream.errors import AlganError
from algan_stream.sinks.outlet import own_keys

#: Sinks that connect only with their first verdict: opening them looks at the section, and touches nothing.
_CHECKED_BY_OPENING = frozenset({"mqtt", "webhook", "modbus", "opcua"})
#: Sinks whose path is a folder that they make.
_MAKES_ITS_FOLDER = frozenset({"archive", "video"})
_GIB = 2**30
#: A colour frame of 1080p: frames say how large they are only when they come.
_TYPICAL_FRAME_BYTES = 1920 * 1080 * 3
#: The library, the engine and the bundle, before the first frame.
_BASE_BYTES = 400 << 20


def frames_in_memory(host: Host) -> Iterator[Finding]:
    """Whether the frames that may wait fit into memory."""
    if host.line is None:
        return
    frames = sum(camera.queue_size for camera in host.line.cameras)
    needed, usable = _BASE_BYTES + frames * _TYPICAL_FRAME_BYTES, usable_bytes(host)
    detail = (
        f"{frames} frames may wait: about {needed / _GIB:.1f} GiB if they are 1080p in colour, "
        f"of {usable / _GIB:.1f} GiB"
    )
    if needed > usable:
        yield Finding(
            name="waiting frames",
            state="wrong",
            detail=detail,
            mend="lower queue_size, or raise the memory limit",
        )
    else:
        yield Finding(name="waiting frames", state="ok", detail=detail)


def cameras(host: Host) -> Iterator[Finding]:
    """Whether every source's plugin is there and its section is right."""
    for i, camera in enumerate(host.line.cameras if host.line else ()):
        name = f"camera {camera.id}"
        try:
            _, config = plugins.load("sources", camera.source, f"cameras[{i}].source")
            plugins.load("boxes", camera.boxes, f"cameras[{i}].boxes")
        except AlganError as error:
            yield Finding(name=name, state="wrong", detail=str(error), mend="correct the line's file")
            continue
        path = getattr(config, "path", None)
        if path and not Path(path).exists():
            detail = f"source {config.kind}: there is no {path}"
            yield Finding(name=name, state="wrong", detail=detail, mend="correct the line's file")
        else:
            yield Finding(name=name, state="ok", detail=f"source {config.kind}")


def sinks(host: Host) -> Iterator[Finding]:
    """Whether every sink's plugin is there, and its file can be written."""
    for i, section in enumerate(host.line.sinks if host.line else ()):
        name = f"sink {i}"
        try:
            module, config = plugins.load("sinks", own_keys(section, f"sinks[{i}]"), f"sinks[{i}]")
            if section["kind"] in _CHECKED_BY_OPENING:
                module.create(config).close()
        except (AlganError, ModuleNotFoundError) as error:
            yield Finding(name=name, state="wrong", detail=str(error), mend="correct the line's file")
            continue
        path = getattr(config, "path", None)
        if path and section["kind"] in _MAKES_ITS_FOLDER:
            path = next(place for place in (Path(path), *Path(path).absolute().parents) if place.exists())
        yield (
            _file(name, config.kind, Path(path))
            if path
            else Finding(name=name, state="ok", detail=config.kind)
        )


def _file(name: str, kind: str, path: Path) -> Finding:
    folder = path.absolute().parent
    if not folder.is_dir():
        return Finding(
            name=name, state="wrong", detail=f"{kind}: there is no folder {folder}", mend=f"mkdir -p {folder}"
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        return Finding(
            name=name,
            state="wrong",
            detail=f"{kind}: this user may not write {path}",
            mend=f"sudo chown $USER {path if path.exists() else folder}",
        )
    free = shutil.disk_usage(folder).free
    return Finding(
        name=name,
        state="ok" if free > _GIB else "missing",
        detail=f"{kind}: {path}, {free / _GIB:.1f} GiB free",
        mend="" if free > _GIB else f"make room on the disk of {folder}",
    )
