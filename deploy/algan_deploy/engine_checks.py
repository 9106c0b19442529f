"""What `doctor` says of TensorRT, and of the compiled engines of a bundle."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from algan_stream.bundle import MODEL, QUANTIZED, read_bundle
from algan_stream.engines.cache import EngineCache, Entry, cache_folder
from algan_stream.engines.cuda_device import device_facts
from algan_stream.engines.tensorrt_common import TENSORRT, TENSORRT_RTX, Flavour
from algan_stream.errors import AlganError


class Told(NamedTuple):
    """The fields of a `Finding`."""

    name: str
    state: Literal["ok", "missing", "wrong"]
    detail: str
    mend: str = ""


def libraries() -> Iterator[Told]:
    """One line each for TensorRT, TensorRT for RTX and pycuda."""
    yield _library(TENSORRT, "builds and runs engines on NVIDIA GPUs and Jetsons")
    yield _library(TENSORRT_RTX, "builds engines for GPUs that are elsewhere, and runs them")
    try:
        facts = device_facts()
    except AlganError as error:
        yield Told("pycuda", "missing", str(error).removeprefix("engine.kind: "))
    else:
        yield Told("pycuda", "ok", f"{facts.name} {facts.sm}, driver {facts.driver}")


def _library(flavour: Flavour, purpose: str) -> Told:
    name = f"engine {flavour.kind}"
    try:
        module = flavour.load()
    except AlganError as error:
        detail, _, mend = str(error).removeprefix("engine.kind: ").partition("; install it by: ")
        return Told(name, "missing", f"{detail}; it {purpose}", mend)
    return Told(name, "ok", f"{module.__version__}: {purpose}")


def cached_engines(path: str | Path) -> Iterator[Told]:
    """One line for each compiled engine of a bundle, checked; or one that says that there is none."""
    bundle = read_bundle(path)
    files = bundle.manifest.files
    models = frozenset(files[name].sha256 for name in (MODEL, QUANTIZED) if name in files)
    cache = EngineCache(cache_folder(bundle))
    entries = cache.entries(models)
    if not entries:
        yield Told("engine cache", "missing", f"{cache.folder}: empty; only TensorRT needs compiled engines")
    for entry in entries:
        yield _entry(entry, str(path))


def _entry(entry: Entry, bundle: str) -> Told:
    if entry.info is None:
        return Told(
            "engine cache", "missing", f"{entry.path}: {entry.state}: {entry.detail}", "delete the file"
        )
    key, info = entry.info.key, entry.info
    what = f"{key.kind} {key.version} {key.device} {key.precision}, batch {key.batch[0]} to {key.batch[2]}"
    if entry.state == "ok":
        return Told("engine cache", "ok", f"{what}, {info.size_bytes / 2**20:.1f} MiB, key {key.digest[:12]}")
    target = TENSORRT.target if key.kind == TENSORRT.kind else f"{TENSORRT_RTX.target}:{key.device}"
    again = f"algan-stream build {shlex.quote(bundle)} --target {target} --precision {key.precision} --force"
    mend = again if entry.state == "corrupt" else "delete the file"
    return Told("engine cache", "missing", f"{what}: {entry.state}: {entry.detail}", mend)
