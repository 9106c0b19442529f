"""Python, processor, memory: what every line needs."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator

from algan_deploy.checks.finding import Finding, Host
from algan_stream import plugins
from algan_stream.cpus import available_cpus, own_cgroups

_MIB = 2**20
#: Names that /proc/cpuinfo gives → what people call it, in the order in which it is told.
_X86 = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_bf16": "AMX-bf16",
    "amx_int8": "AMX-int8",
}
_ARM = {"asimd": "NEON", "asimddp": "dot product", "i8mm": "int8 matrices", "bf16": "bf16", "sve": "SVE"}


def python(host: Host) -> Iterator[Finding]:
    """The interpreter; the package itself asks for 3.10 when it is installed."""
    yield Finding(name="python", state="ok", detail=f"{platform.python_version()} on {platform.machine()}")


def processor(host: Host) -> Iterator[Finding]:
    """Instruction sets that matter for engines and core."""
    lines = [line.partition(":") for line in (host.text("/proc/cpuinfo") or "").splitlines()]
    fields: dict[str, str] = {}
    for key, _, value in lines:
        fields.setdefault(key.strip(), value.strip())
    arm = "Features" in fields
    flags = set(fields.get("Features" if arm else "flags", "").split())
    if not flags:
        yield Finding(name="processor", state="missing", detail="/proc/cpuinfo tells no instruction sets")
        return
    named = list(dict.fromkeys(name for flag, name in (_ARM if arm else _X86).items() if flag in flags))
    model = fields.get("model name", platform.machine())
    fast = [precision for precision, has in (("bf16", _has_bf16(flags)), ("int8", _has_int8(flags))) if has]
    gain = f"{' and '.join(fast)} in hardware" if fast else "no instructions for bf16 or int8"
    yield Finding(
        name="processor",
        state="ok" if named else "missing",
        detail=f"{model}: {', '.join(named) or 'no AVX2, the core takes a slower path'}; {gain}",
    )


def _has_bf16(flags: set[str]) -> bool:
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _has_int8(flags: set[str]) -> bool:
    return bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def simd(host: Host) -> Iterator[Finding]:
    """The path of the core that will turn pixels into network input."""
    from algan_stream.preprocess import active_simd, available_simd

    forced = os.environ.get("ALGAN_SIMD")
    why = f"forced by ALGAN_SIMD={forced}" if forced else "fastest that this processor has"
    yield Finding(
        name="simd",
        state="ok",
        detail=f"{active_simd()} ({why}); available: {', '.join(available_simd())}",
    )


def processors(host: Host) -> Iterator[Finding]:
    """How many threads the engine will take."""
    usable, all_of_them = available_cpus(host.path("/sys/fs/cgroup")), os.cpu_count()
    yield Finding(
        name="processors",
        state="ok",
        detail=f"{usable} usable of {all_of_them} (affinity, cgroup quota); as many threads for the engine",
    )


def memory(host: Host) -> Iterator[Finding]:
    """What the process may use before it is ended."""
    total, usable = _total_bytes(), usable_bytes(host)
    why = " (cgroup limit)" if usable < total else ""
    detail = f"{usable / 2**30:.1f} GiB usable of {total / 2**30:.1f} GiB{why}"
    if usable < 512 * _MIB:
        yield Finding(
            name="memory", state="missing", detail=f"{detail}; 512 MiB is little", mend="raise the limit"
        )
    else:
        yield Finding(name="memory", state="ok", detail=detail)


def usable_bytes(host: Host) -> int:
    """Memory that the machine and all cgroups above this process leave."""
    limits = [_total_bytes()]
    cgroup = host.path("/sys/fs/cgroup")
    files = [folder / "memory.max" for folder in own_cgroups(cgroup)]
    for file in (*files, cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return min(limits)


def _total_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def shared_memory(host: Host) -> Iterator[Finding]:
    """Whether /dev/shm holds what the line's cameras want of it.

    A source that passes frames through shared memory says in its configuration how much: as a property
    `shared_memory_bytes`.
    """
    folder = host.path("/dev/shm")
    needed, users = _shared_memory_of_cameras(host)
    for_line = f"; the line's cameras need {needed / _MIB:.0f} MiB" if host.line else ""
    if not folder.is_dir():
        yield Finding(
            name="shared memory",
            state="wrong" if needed else "missing",
            detail=f"no /dev/shm{for_line or '; frames go through sockets'}",
            mend="mount -t tmpfs -o size=256m tmpfs /dev/shm" if needed else "",
        )
        return
    free = shutil.disk_usage(folder).free
    detail = f"{free / _MIB:.0f} MiB free{for_line or '; frames go through sockets'}"
    if needed > free:
        size = 2 ** (needed // _MIB + 1).bit_length()
        yield Finding(
            name="shared memory",
            state="wrong",
            detail=f"{detail} ({', '.join(users)})",
            mend=f"mount -o remount,size={size}m /dev/shm; in a container: --shm-size={size}m",
        )
    else:
        yield Finding(name="shared memory", state="ok", detail=detail)


def _shared_memory_of_cameras(host: Host) -> tuple[int, list[str]]:
    total, users = 0, []
    for i, camera in enumerate(host.line.cameras if host.line else ()):
        _, config = plugins.load("sources", camera.source, f"cameras[{i}].source")
        if size := int(getattr(config, "shared_memory_bytes", 0)):
            total += size
            users.append(f"{camera.id}: {size / _MIB:.0f} MiB")
    return total, users
