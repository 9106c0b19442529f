"""Engines: which are installed, which will be used, and whether that one passes the golden gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from algan_deploy.checks.finding import Finding, Host, about_package, installed
from algan_stream import plugins
from algan_stream.errors import AlganError

#: Kinds with a check of their own.
_ELSEWHERE = frozenset({"tensorrt", "tensorrt_rtx"})


def _openvino() -> str:
    import openvino as ov

    core = ov.Core()
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = "fp32, bf16" if "BF16" in offered else "fp32 (this processor does not compute in bf16)"
    others = ", ".join(device for device in core.available_devices if device != "CPU")
    more = f"; also {others}" if others else ""
    return f"{ov.get_version().split('-')[0]} on CPU: {precisions}{more}"


def _onnxruntime() -> str:
    import importlib

    ort = importlib.import_module("onnxruntime")
    providers = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    return f"{ort.__version__} on {', '.join(providers)}"


#: Kind → its library, the command that brings it, and what to tell of it.
_LIBRARIES: dict[str, tuple[str, str, Callable[[], str]]] = {
    "openvino": ("openvino", "pip install openvino", _openvino),
    "onnxruntime": ("onnxruntime", "pip install 'algan-stream[onnxruntime]'", _onnxruntime),
    "triton": (
        "tritonclient",
        "pip install 'algan-stream[triton]'",
        lambda: installed("tritonclient") or "",
    ),
}


def each(host: Host) -> Iterator[Finding]:
    """One line for each kind of engine that this version knows, TensorRT apart."""
    wanted = host.line.engine.get("kind") if host.line else "openvino"
    for kind in plugins.kinds("engines"):
        if kind in _ELSEWHERE:
            continue
        use = ""
        if kind == wanted:
            use = "; this line uses it" if host.line else "; used unless a line says otherwise"
        yield _about(kind, use, needed=kind == wanted)


def _about(kind: str, use: str, *, needed: bool) -> Finding:
    if kind not in _LIBRARIES:
        return Finding(name=f"engine {kind}", state="ok", detail=f"another package's plugin{use}")
    library, mend, tell = _LIBRARIES[kind]
    absent = "wrong" if needed else "missing"
    if installed(library) is None:
        return Finding(
            name=f"engine {kind}",
            state="wrong" if needed else "missing",
            detail=f"{library} is not installed{use}",
            mend=mend,
        )
    try:
        return Finding(name=f"engine {kind}", state="ok", detail=f"{tell()}{use}")
    except Exception as error:  # noqa: BLE001  a broken library is a finding of its own
        return Finding(
            name=f"engine {kind}",
            state="wrong" if absent == "wrong" else "missing",
            detail=f"{library} is installed but broken: {error}{use}",
            mend=f"{mend} --force-reinstall",
        )


def tensorrt(host: Host) -> Iterator[Finding]:
    """TensorRT's libraries, and the compiled engines of the line's bundle."""
    from algan_deploy import engine_checks

    for told in engine_checks.libraries():
        yield Finding(**told._asdict())
    bundle = host.bundle or (host.line.bundle if host.line else None)
    if bundle is not None:
        try:
            for told in engine_checks.cached_engines(bundle):
                yield Finding(**told._asdict())
        except AlganError as error:
            yield Finding(name="engine cache", state="wrong", detail=str(error))


def training(host: Host) -> Iterator[Finding]:
    """PyTorch, which only training needs."""
    mend = "pip install 'algan-stream[train]'"
    yield about_package("training (torch)", "torch", "only `train` needs it", mend)


def golden_gate(host: Host) -> Iterator[Finding]:
    """Opens the line's bundle, the one asked for or the demo's, with the engine that will serve it."""
    from algan_stream.bundle import read_bundle
    from algan_stream.engines.gate import open_engine

    name = host.bundle or (host.line.bundle if host.line else "demo")
    try:
        bundle = read_bundle(name)
        engine = open_engine(bundle, host.line.engine if host.line else None)
    except AlganError as error:
        mend = f"algan-stream verify {name}" if name != "demo" else "install algan-stream again"
        yield Finding(name="golden gate", state="wrong", detail=str(error), mend=mend)
        return
    engine.close()
    yield Finding(
        name="golden gate", state="ok", detail=f"{engine.identity} reproduces bundle {bundle.manifest.name!r}"
    )
