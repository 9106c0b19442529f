"""What a build is asked for, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from algan_stream.bundle import Bundle
from algan_stream.engines.cache import EngineCache
from algan_stream.engines.tensorrt_common import Precision


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of `build`.

    Attributes:
        bundle: Whose graph is compiled.
        cache: Where engines go.
        precision: What they compute in.
        batch: Smallest, best and largest batch.
        capabilities: Of the devices to build for ahead of time, e.g. `sm80`; empty: for the one here.
        device: Number of the CUDA device here.
        dla: Core of a Jetson's deep learning accelerator, or None.
        version_compatible: Let later versions of the library load the engine.
        hardware_compatible: Let any GPU from Ampere on load the engine.
        force: Build what is in the cache already, too.
    """

    bundle: Bundle
    cache: EngineCache
    precision: Precision
    batch: tuple[int, int, int]
    capabilities: tuple[str, ...] = ()
    device: int = 0
    dla: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    force: bool = False


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is in the cache now.

    Attributes:
        kind: Of the engine plugin that runs it.
        version: Of the library that built it.
        device: What it is for.
        precision: What it computes in.
        batch: Smallest, best and largest batch.
        key: Names it in the cache.
        size_bytes: Of the compiled engine.
        build_s: How long the build took, then.
        flags: Builder flags that were set.
        found: It was there before.
    """

    kind: str
    version: str
    device: str
    precision: str
    batch: tuple[int, int, int]
    key: str
    size_bytes: int
    build_s: float
    flags: tuple[str, ...]
    found: bool
