"""Compiled engines, kept beside the bundle: what was built once for a model on a device is found again.

An entry is two files: `KEY-PAYLOAD.engine`, and `KEY.json`, which says in clear what the engine is for and
which payload belongs to it. KEY is the SHA-256 of everything that an engine depends on. All of the payload is
on disk before the sidecar names it, so whatever interrupts a writer leaves the entry before it, or none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from algan_stream.bundle import ENGINES, Bundle
from algan_stream.errors import EngineCacheError, EngineError
from algan_stream.whole import UNFINISHED, sync_folder, write_whole

#: Names another folder for every bundle's engines.
ENVIRONMENT = "ALGAN_ENGINE_CACHE"

State = Literal["ok", "corrupt", "other model", "set aside", "leftover"]


class EngineKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a compiled engine depends on.

    Attributes:
        model_sha256: Of the ONNX graph that it was built from.
        kind: Name of the engine plugin.
        version: Of the library that built it.
        device: Name and compute capability, e.g. `NVIDIA L4 sm89`; `sm89` where the engine fits all of them.
        driver: Version of the driver it was tuned on; empty where the engine does not depend on it.
        precision: `fp32`, `fp16` or `int8`.
        input_shape: Of one input, without N.
        batch: Smallest, best and largest batch.
        options: Anything else that changes the engine, e.g. `dla0`.
    """

    model_sha256: str
    kind: str
    version: str
    device: str
    driver: str
    precision: str
    input_shape: tuple[int, ...]
    batch: tuple[int, int, int]
    options: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, in hex."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def differences(self, other: EngineKey) -> list[str]:
        """The fields in which another key differs: `driver: expected 580.95, got 570.10`."""
        return [
            f"{name}: expected {wanted}, got {got}"
            for name in self.__struct_fields__
            if (wanted := getattr(self, name)) != (got := getattr(other, name))
        ]


class EntryInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sidecar of an entry.

    Attributes:
        key: What the engine is for.
        payload_sha256: Of the compiled engine.
        size_bytes: Of the compiled engine.
        built_unix_s: When it was stored.
        build_s: How long the build took.
        flags: Builder flags that were set.
    """

    key: EngineKey
    payload_sha256: str
    size_bytes: int
    built_unix_s: int
    build_s: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One line of a cache's listing: `detail` says what is wrong with it."""

    path: Path
    state: State
    info: EntryInfo | None = None
    detail: str = ""


def cache_folder(bundle: Bundle, configured: str = "") -> Path:
    """Where a bundle's engines are: as configured, else as the environment says, else beside the bundle."""
    chosen = configured or os.environ.get(ENVIRONMENT, "")
    return Path(chosen) if chosen else bundle.path / ENGINES


class EngineCache:
    """A folder of compiled engines; any number of processes may use it at once.

    Args:
        folder: Made when the first engine is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: EngineKey) -> tuple[bytes, EntryInfo] | None:
        """Reads an engine, or None if there is none for this key.

        Raises:
            EngineCacheError: What stands there is corrupt or for something else; it was set aside.
        """
        sidecar, before = self._sidecar(key), None
        while sidecar.exists():
            try:
                info = _read_info(sidecar)
                if differs := key.differences(info.key):
                    raise ValueError(f"is for something else: {'; '.join(differs)}")
                return _read_payload(self._payload(info), info), info
            except FileNotFoundError as error:
                # A builder may have replaced it between two reads: then the sidecar names another one now.
                if info == before:
                    why = f"its payload is missing: {Path(error.filename).name}"
                    raise self._refused(sidecar, why) from error
                before = info
            except (OSError, ValueError) as error:
                raise self._refused(sidecar, str(error)) from error
        return None

    def store(
        self, key: EngineKey, payload: bytes, *, build_s: float, flags: tuple[str, ...] = ()
    ) -> EntryInfo:
        """Keeps an engine, in place of an older one for the same key, all at once.

        Raises:
            EngineError: The folder cannot be written; the older entry then stands as before.
        """
        info = EntryInfo(
            key=key,
            payload_sha256=hashlib.sha256(payload).hexdigest(),
            size_bytes=len(payload),
            built_unix_s=int(time.time()),
            build_s=round(build_s, 3),
            flags=flags,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._sweep()
                kept = self._payload(info)
                write_whole(kept, payload)
                write_whole(
                    self._sidecar(key), msgspec.json.format(msgspec.json.encode(info), indent=1) + b"\n"
                )
                for other in self.folder.glob(f"{key.digest}-*.engine"):
                    if other != kept:
                        other.unlink()
                sync_folder(self.folder)
        except OSError as error:
            raise EngineError(
                f"{self.folder}: cannot be written: {error.strerror}; name a folder that can, by --cache, by "
                f"`cache:` in the line's section `engine`, or by the environment variable {ENVIRONMENT}"
            ) from error
        return info

    def keep_beside(self, name: str, data: bytes) -> None:
        """Writes another file of a builder's, such as a timing cache, here; that it fails does not matter."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, data)
        except OSError:
            return

    def entries(self, models: frozenset[str] | None = None) -> list[Entry]:
        """Everything in the folder, each entry checked.

        Args:
            models: SHA-256 of a bundle's graphs; entries of others are told apart. None: any.
        """
        if not self.folder.is_dir():
            return []
        found = [self._inspect(path, models) for path in sorted(self.folder.glob("*.json"))]
        named = {self._payload(entry.info) for entry in found if entry.info}
        loose = [path for path in sorted(self.folder.glob("*.engine")) if path not in named]
        found += [
            Entry(path, "leftover", detail="no entry names it; the next build removes it") for path in loose
        ]
        aside = sorted(self.folder.glob("*.corrupt-*"))
        return found + [Entry(path, "set aside", detail="never used again; may be deleted") for path in aside]

    def nearest(self, key: EngineKey) -> EntryInfo | None:
        """The entry of the same model and kind that differs least from a key, for messages."""
        infos = [e.info for e in self.entries() if e.info and e.state == "ok"]
        same = [i for i in infos if (i.key.model_sha256, i.key.kind) == (key.model_sha256, key.kind)]
        return min(same, key=lambda info: len(key.differences(info.key)), default=None)

    def _inspect(self, sidecar: Path, models: frozenset[str] | None) -> Entry:
        info = None
        try:
            info = _read_info(sidecar)
            if info.key.digest != sidecar.stem:
                return Entry(sidecar, "corrupt", info, "its name is not the hash of its key")
            _read_payload(self._payload(info), info)
        except (OSError, ValueError) as error:
            return Entry(sidecar, "corrupt", info, str(error))
        if models is not None and info.key.model_sha256 not in models:
            return Entry(sidecar, "other model", info, f"for model {info.key.model_sha256[:12]}…")
        return Entry(sidecar, "ok", info)

    def _refused(self, sidecar: Path, why: str) -> EngineCacheError:
        """Sets an entry aside, and says so."""
        suffix = f".corrupt-{time.time_ns()}"
        moved = f"it was set aside as *{suffix}"
        try:
            for path in (*self.folder.glob(f"{sidecar.stem}-*.engine"), sidecar):
                path.rename(path.with_name(path.name + suffix))
        except OSError as error:
            moved = f"it cannot be set aside ({error.strerror}) and is not used"
        return EngineCacheError(f"{sidecar}: engine cache: {why}; {moved}")

    def _sidecar(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest}.json"

    def _payload(self, info: EntryInfo) -> Path:
        return self.folder / f"{info.key.digest}-{info.payload_sha256[:16]}.engine"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; the system ends the lock with the process."""
        descriptor = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Removes what interrupted writers left; with the lock held there is no other writer."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            path.unlink()


def _read_info(sidecar: Path) -> EntryInfo:
    try:
        return msgspec.json.decode(sidecar.read_bytes(), type=EntryInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"its sidecar cannot be read: {error}") from error


def _read_payload(path: Path, info: EntryInfo) -> bytes:
    payload = path.read_bytes()
    if len(payload) != info.size_bytes:
        raise ValueError(f"size_bytes: expected {info.size_bytes}, got {len(payload)}")
    found = hashlib.sha256(payload).hexdigest()
    if found != info.payload_sha256:
        raise ValueError(f"payload_sha256: expected {info.payload_sha256[:12]}…, got {found[:12]}…")
    return payload
