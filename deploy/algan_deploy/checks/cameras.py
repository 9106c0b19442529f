"""Drivers through which cameras come to this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

from algan_deploy.checks.finding import Finding, Host, installed

#: Kind of source, module, package.
_LIBRARIES = (
    ("stream", "av", "av"),
    ("v4l2 library", "linuxpy", "linuxpy"),
    ("pylon", "pypylon", "pypylon"),
    ("genicam", "harvesters", "harvesters"),
)


def video4linux(host: Host) -> Iterator[Finding]:
    """Video devices, and whether this user may open them."""
    devices = host.found("/dev/video[0-9]*")
    if not devices:
        yield Finding(
            name="cameras v4l2",
            state="missing",
            detail="no /dev/video*",
            mend="plug a USB camera in; in a container: --device /dev/video0",
        )
        return
    told, closed = [], []
    for device in devices:
        name = host.text(f"/sys/class/video4linux/{device.name}/name") or "unknown camera"
        told.append(f"{device.name} ({name})")
        if not os.access(device, os.R_OK | os.W_OK):
            closed.append(f"/dev/{device.name}")
    yield Finding(
        name="cameras v4l2",
        state="missing" if closed else "ok",
        detail=", ".join(told) + (f"; may not be opened: {', '.join(closed)}" if closed else ""),
        mend="sudo usermod -aG video $USER, then log in again" if closed else "",
    )


def frameworks(host: Host) -> Iterator[Finding]:
    """The library of each kind of live camera; `host` as for every check."""
    for kind, module, package in _LIBRARIES:
        found = installed(module, package)
        lacking = f"{package} is not installed; cameras of `kind: {kind.split()[0]}` need it"
        yield Finding(
            name=f"cameras {kind}",
            state="ok" if found else "missing",
            detail=f"{package} {found}" if found else lacking,
            mend="" if found else f"pip install {package}",
        )
    if installed("harvesters"):
        yield _producers()


def _producers() -> Finding:
    """GenTL producers: the vendors' libraries, without which harvesters sees no camera."""
    variable = "GENICAM_GENTL64_PATH"
    folders = [folder for folder in os.environ.get(variable, "").split(os.pathsep) if folder]
    files = [name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]  # noqa: PTH112, PTH208
    producers = sorted(name for name in files if name.endswith(".cti"))
    if producers:
        return Finding(name="cameras gentl", state="ok", detail=", ".join(producers))
    return Finding(
        name="cameras gentl",
        state="missing",
        detail=f"no producer (*.cti) in {variable}={os.environ.get(variable, '')!r}",
        mend=f"install the camera vendor's GenTL producer and set {variable} to its folder",
    )
