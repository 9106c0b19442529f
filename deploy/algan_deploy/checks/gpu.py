"""NVIDIA's side of a machine: a Jetson, or a server with GPUs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import msgspec

from algan_deploy.checks.finding import Finding, Host

#: Releases of L4T → JetPack, by the longest prefix.
_JETPACKS = {
    "32": "4",
    "34": "5.0",
    "35": "5.1",
    "36.2": "6.0 DP",
    "36.3": "6.0",
    "36.4": "6.1 or 6.2",
    "36": "6",
    "38": "7",
}


def jetson(host: Host) -> Iterator[Finding]:
    """Model, release, power mode and clocks of a Jetson; nothing on other machines."""
    release = host.text("/etc/nv_tegra_release")
    if release is None:
        return
    model = host.text("/proc/device-tree/model") or "a Jetson of unknown model"
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", release)
    if not found:
        yield Finding(
            name="jetson", state="missing", detail=f"{model}; /etc/nv_tegra_release says {release[:60]!r}"
        )
    else:
        l4t = f"{found[1]}.{found[2]}"
        detail = f"{model}, L4T {l4t}, JetPack {jetpack(l4t)}"
        if int(found[1]) < 36:
            yield Finding(
                name="jetson",
                state="missing",
                detail=f"{detail}: its CUDA and TensorRT are for Python 3.8, this needs 3.10; CPU only",
                mend="flash JetPack 6, or use the CPU image: deploy/jetson/README.md",
            )
        else:
            yield Finding(name="jetson", state="ok", detail=detail)
    yield _power_mode(host)
    yield _clocks(host)


def jetpack(l4t: str) -> str:
    """JetPack's version for one of L4T such as `36.4.3`."""
    fitting = [prefix for prefix in _JETPACKS if f"{l4t}.".startswith(f"{prefix}.")]
    return _JETPACKS[max(fitting, key=len)] if fitting else "unknown"


def _power_mode(host: Host) -> Finding:
    """What nvpmodel last set; its own command wants root."""
    status = re.search(r"pmode:(\d+)", host.text("/var/lib/nvpmodel/status") or "")
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", host.text("/etc/nvpmodel.conf") or "")
    names = {int(number): name for number, name in modes}
    if not status:
        return Finding(
            name="power mode",
            state="missing",
            detail="unknown: nvpmodel left no status",
            mend="sudo nvpmodel -q",
        )
    number = int(status[1])
    name = names.get(number, f"mode {number}")
    fastest = next((n for n, called in names.items() if called.startswith("MAXN")), None)
    if fastest is None or number == fastest:
        return Finding(name="power mode", state="ok", detail=f"{name} (ID {number})")
    return Finding(
        name="power mode",
        state="missing",
        detail=f"{name} (ID {number}); {names[fastest]} is faster, if power and cooling allow",
        mend=f"sudo nvpmodel -m {fastest}",
    )


def _clocks(host: Host) -> Finding:
    """Whether jetson_clocks holds the processors at their highest frequency."""
    cpu = "/sys/devices/system/cpu/cpu0/cpufreq"
    low, high = host.text(f"{cpu}/scaling_min_freq"), host.text(f"{cpu}/scaling_max_freq")
    if not low or not high:
        return Finding(name="clocks", state="missing", detail="unknown", mend="sudo jetson_clocks --show")
    if low == high:
        return Finding(name="clocks", state="ok", detail=f"fixed at {int(high) / 1e6:.2f} GHz")
    return Finding(
        name="clocks",
        state="missing",
        detail=f"follow the load, {int(low) / 1e6:.2f} to {int(high) / 1e6:.2f} GHz: slow after each pause",
        mend="sudo jetson_clocks; for good: deploy/jetson/README.md",
    )


def driver(host: Host) -> Iterator[Finding]:
    """The kernel driver, and the GPUs that it shows to this process."""
    if host.text("/etc/nv_tegra_release") is not None:
        nodes = host.found("/dev/nvhost-*") or host.found("/dev/nvgpu/*")
        yield Finding(
            name="cuda driver",
            state="ok" if nodes else "missing",
            detail="part of L4T" if nodes else "no GPU device nodes of the Jetson are visible here",
            mend="" if nodes else "in a container: docker run --runtime nvidia",
        )
        return
    version = host.text("/proc/driver/nvidia/version")
    if version is None:
        compiler = "; a CUDA compiler is here" if shutil.which("nvcc") else ""
        yield Finding(
            name="cuda driver",
            state="missing",
            detail=f"no NVIDIA driver{compiler}; scoring runs on the CPU",
            mend="with a GPU: install NVIDIA's driver (Debian: apt install nvidia-driver)",
        )
        return
    number = re.search(r"\b(\d{3}(?:\.\d+)+)\b", version)
    models = [
        found[1].strip()
        for file in host.found("/proc/driver/nvidia/gpus/*/information")
        if (found := re.search(r"Model:\s*(.+)", file.read_text("utf-8", errors="replace")))
    ]
    detail = f"driver {number[1] if number else version.splitlines()[0]}: {', '.join(models) or 'no GPU'}"
    if not host.found("/dev/nvidia[0-9]*"):
        yield Finding(
            name="cuda driver",
            state="missing",
            detail=f"{detail}; its device nodes are not visible here",
            mend="in a container: docker run --gpus all; under systemd: drop-ins/gpu.conf",
        )
    else:
        yield Finding(name="cuda driver", state="ok", detail=detail)


def toolkit(host: Host) -> Iterator[Finding]:
    """CUDA's own version, where it is installed; the wheel carries what it needs of it."""
    told = host.text("/usr/local/cuda/version.json")
    try:
        version = str(msgspec.json.decode(told or "{}")["cuda"]["version"])
    except (msgspec.DecodeError, KeyError, TypeError):
        version = ""
    if version:
        yield Finding(name="cuda toolkit", state="ok", detail=f"CUDA {version} in /usr/local/cuda")
    elif host.text("/proc/driver/nvidia/version") is not None:
        yield Finding(
            name="cuda toolkit",
            state="missing",
            detail="not in /usr/local/cuda; only building pycuda or the core from source needs it",
        )


def core(host: Host) -> Iterator[Finding]:
    """Whether the core was built with CUDA kernels, and whether they can run."""
    from algan_stream import _core
    from algan_stream.errors import AlganError
    from algan_stream.preprocess_cuda import CudaPreprocessor

    if not _core.has_cuda:
        yield Finding(
            name="cuda core",
            state="missing",
            detail="built without CUDA kernels",
            mend="with nvcc on the PATH: pip install --no-binary algan-stream algan-stream",
        )
        return
    try:
        CudaPreprocessor()
    except AlganError as error:
        yield Finding(name="cuda core", state="missing", detail=f"built, but cannot run: {error}")
    else:
        yield Finding(name="cuda core", state="ok", detail="preprocessing on the GPU is there")
