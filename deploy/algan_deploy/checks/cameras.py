"""Drivers through which cameras come to this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from algan_deploy.checks.finding import Finding, Host, installed

_UNUSED = "not used by this version, whose cameras are folders, videos and ZeroMQ clients"


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
    """GStreamer, Basler's pylon, and GenICam through harvesters."""
    launcher = shutil.which("gst-launch-1.0")
    yield Finding(
        name="cameras gstreamer",
        state="ok" if launcher else "missing",
        detail=f"{launcher}; {_UNUSED}" if launcher else f"not installed; {_UNUSED}",
        mend="" if launcher else "apt install gstreamer1.0-tools gstreamer1.0-plugins-good",
    )
    for name, module, package in (("pylon", "pypylon", "pypylon"), ("genicam", "harvesters", "harvesters")):
        found = installed(module, package)
        yield Finding(
            name=f"cameras {name}",
            state="ok" if found else "missing",
            detail=f"{package} {found}; {_UNUSED}" if found else f"{package} is not installed; {_UNUSED}",
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
