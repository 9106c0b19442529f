"""`algan-stream doctor`: what this machine has, what will be used, and how to mend what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from algan_deploy import engine_checks
from algan_stream.errors import AlganError

State = Literal["ok", "missing", "wrong"]
_STYLE = {"ok": "green", "missing": "yellow", "wrong": "bold red"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: `ok`; `missing`: something optional is not there; `wrong`: the service cannot run.
        detail: What was found.
        mend: The command or step that helps, or "".
    """

    name: str
    state: State
    detail: str
    mend: str = ""


def doctor(
    bundle: Annotated[
        str | None, typer.Option(help="Also look at the compiled engines of this bundle.", metavar="BUNDLE")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tell what this machine has, what will be used and why, and how to mend what is missing.

    Ends with 0 if the service can run here, else with 1.
    """
    findings = examine() + _engines(bundle)
    if json_:
        typer.echo(msgspec.json.encode({"ok": _can_run(findings), "findings": findings}))
    else:
        table = Table("what", "state", "found", "to mend it", title="algan-stream doctor")
        for f in findings:
            table.add_row(f.name, f"[{_STYLE[f.state]}]{f.state}[/]", escape(f.detail), escape(f.mend))
        Console().print(table)
    if not _can_run(findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Looks at everything; a check that itself breaks is reported as wrong, not raised."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python, _core, _cpus, _memory, _shared_memory, _openvino, _demo_bundle, _torch, _cuda, _cuda_core,
    )  # fmt: skip
    return [_guarded(check) for check in checks]


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  the doctor must not fall ill
        return Finding(
            name=check.__name__.strip("_"), state="wrong", detail=f"{type(error).__name__}: {error}"
        )


def _can_run(findings: list[Finding]) -> bool:
    return all(finding.state != "wrong" for finding in findings)


def _python() -> Finding:
    return Finding(name="python", state="ok", detail=f"{platform.python_version()} on {platform.machine()}")


def _core() -> Finding:
    from algan_stream.preprocess import active_simd, available_simd

    forced = os.environ.get("ALGAN_SIMD")
    why = f"forced by ALGAN_SIMD={forced}" if forced else "fastest that this processor has"
    return Finding(
        name="simd",
        state="ok",
        detail=f"{active_simd()} ({why}); available: {', '.join(available_simd())}",
    )


def _cpus() -> Finding:
    from algan_stream.cpus import available_cpus

    usable, host = available_cpus(), os.cpu_count()
    return Finding(
        name="processors", state="ok", detail=f"{usable} usable of {host} (affinity and cgroup quota)"
    )


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    quota = limit.read_text().strip() if limit.is_file() else "max"
    usable = total if quota == "max" else min(total, int(quota))
    return Finding(
        name="memory", state="ok", detail=f"{usable / 2**30:.1f} GiB usable of {total / 2**30:.1f} GiB"
    )


def _shared_memory() -> Finding:
    if not Path("/dev/shm").is_dir():
        return Finding(name="shared memory", state="missing", detail="no /dev/shm; frames go through sockets")
    usage = shutil.disk_usage("/dev/shm")
    return Finding(
        name="shared memory",
        state="ok",
        detail=f"{usage.free / 2**20:.0f} MiB free; not used by this version, frames go through sockets",
    )


def _openvino() -> Finding:
    import openvino as ov

    offered = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = "fp32, bf16" if "BF16" in offered else "fp32 (this processor does not compute in bf16)"
    return Finding(
        name="engine openvino", state="ok", detail=f"{ov.get_version().split('-')[0]} on CPU: {precisions}"
    )


def _demo_bundle() -> Finding:
    from algan_stream.bundle import read_bundle
    from algan_stream.service import open_engine

    bundle = read_bundle("demo")
    engine = open_engine(bundle)
    engine.close()
    return Finding(
        name="golden gate", state="ok", detail=f"{engine.identity} reproduces bundle {bundle.manifest.name!r}"
    )


def _torch() -> Finding:
    mend = "pip install 'algan-stream[train]'"
    return _package("training (torch)", "torch", "only `train` needs it", mend)


def _cuda() -> Finding:
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        return Finding(name="cuda driver", state="ok", detail=driver.read_text().splitlines()[0])
    compiler = "; a CUDA compiler is here" if shutil.which("nvcc") else ""
    return Finding(
        name="cuda driver",
        state="missing",
        detail=f"no NVIDIA driver{compiler}; this version scores on CPUs only",
    )


def _cuda_core() -> Finding:
    from algan_stream import _core
    from algan_stream.errors import AlganError
    from algan_stream.preprocess_cuda import CudaPreprocessor

    if not _core.has_cuda:
        return Finding(name="cuda core", state="missing", detail="built without CUDA kernels")
    try:
        CudaPreprocessor()
    except AlganError as error:
        return Finding(name="cuda core", state="missing", detail=f"built, but cannot run: {error}")
    return Finding(name="cuda core", state="ok", detail="preprocessing on the GPU is there")


def _engines(bundle: str | None) -> list[Finding]:
    told = [*engine_checks.libraries()]
    try:
        told += [] if bundle is None else engine_checks.cached_engines(bundle)
    except AlganError as error:
        told.append(engine_checks.Told("engine cache", "wrong", str(error)))
    return [Finding(**each._asdict()) for each in told]


def _package(name: str, module: str, purpose: str, mend: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(name=name, state="missing", detail=f"not installed; {purpose}", mend=mend)
    try:
        found = version(module)
    except PackageNotFoundError:
        found = "unknown version"
    return Finding(name=name, state="ok", detail=found)
