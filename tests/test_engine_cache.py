"""The cache of compiled engines: what is found, what is refused, and what an accident leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from algan_stream.bundle import Bundle, read_bundle, write_bundle
from algan_stream.engines.cache import EngineCache, EngineKey, cache_folder
from algan_stream.errors import EngineCacheError, EngineError

KEY = EngineKey(
    model_sha256="a" * 64,
    kind="tensorrt",
    version="11.4.0",
    device="NVIDIA L4 sm89",
    driver="580.95.05",
    precision="fp16",
    input_shape=(5, 64, 64),
    batch=(1, 8, 8),
)
#: Another value for every field.
OTHER = {
    "model_sha256": "b" * 64,
    "kind": "tensorrt_rtx",
    "version": "11.4.1",
    "device": "NVIDIA L4 sm80",
    "driver": "570.10",
    "precision": "fp32",
    "input_shape": (5, 64, 65),
    "batch": (1, 4, 8),
    "options": ("dla0",),
}


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def _states(cache: EngineCache) -> list[str]:
    return [entry.state for entry in cache.entries()]


def _sidecar(cache: EngineCache) -> Path:
    return cache.folder / f"{KEY.digest}.json"


def _payload(cache: EngineCache) -> Path:
    (found,) = cache.folder.glob("*.engine")
    return found


def test_what_was_stored_is_found(cache: EngineCache) -> None:
    assert cache.load(KEY) is None
    assert cache.entries() == []
    stored = cache.store(KEY, b"engine", build_s=1.25, flags=("TF32",))
    assert cache.load(KEY) == (b"engine", stored)
    assert (stored.key, stored.size_bytes, stored.build_s, stored.flags) == (KEY, 6, 1.25, ("TF32",))
    assert abs(stored.built_unix_s - time.time()) < 60
    assert _states(cache) == ["ok"]
    assert sorted(p.suffix for p in cache.folder.iterdir() if p.name != ".lock") == [".engine", ".json"]


def test_every_field_counts(cache: EngineCache) -> None:
    assert set(OTHER) == set(EngineKey.__struct_fields__)
    cache.store(KEY, b"engine", build_s=1)
    for name, value in OTHER.items():
        other = msgspec.structs.replace(KEY, **{name: value})
        assert other.digest != KEY.digest
        assert cache.load(other) is None
        assert KEY.differences(other) == [f"{name}: expected {getattr(KEY, name)}, got {value}"]
    assert msgspec.structs.replace(KEY).digest == KEY.digest
    assert _states(cache) == ["ok"]


def test_a_second_build_replaces_the_first(cache: EngineCache) -> None:
    cache.store(KEY, b"first", build_s=1)
    cache.store(KEY, b"second", build_s=2)
    found = cache.load(KEY)
    assert found is not None
    assert found[0] == b"second"
    assert len(list(cache.folder.glob("*.engine"))) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "empty sidecar", "foreign sidecar field"])
def test_what_is_corrupt_is_named_set_aside_and_not_used(cache: EngineCache, damage: str) -> None:
    cache.store(KEY, b"engine", build_s=1)
    payload, sidecar = _payload(cache), _sidecar(cache)
    if damage == "flipped":
        payload.write_bytes(b"enginf")
        message = r"payload_sha256: expected .*…, got .*…; it was set aside"
    elif damage == "cut":
        payload.write_bytes(b"eng")
        message = r"size_bytes: expected 6, got 3; it was set aside"
    elif damage == "gone":
        payload.unlink()
        message = rf"its payload is missing: {payload.name}"
    elif damage == "empty sidecar":
        sidecar.write_bytes(b"")
        message = r"its sidecar cannot be read"
    else:
        sidecar.write_bytes(sidecar.read_bytes().replace(b'"flags"', b'"flogs"'))
        message = r"its sidecar cannot be read: .*flogs"
    assert _states(cache)[0] == "corrupt"
    with pytest.raises(EngineCacheError, match=message):
        cache.load(KEY)
    assert cache.load(KEY) is None  # the next one is told that there is none
    assert set(_states(cache)) == {"set aside"}
    assert all(".corrupt-" in p.name for p in cache.folder.iterdir() if p.name != ".lock")
    cache.store(KEY, b"again", build_s=1)
    assert cache.load(KEY) is not None


def test_an_entry_for_something_else_is_refused_by_the_field(cache: EngineCache) -> None:
    other = msgspec.structs.replace(KEY, driver="570.10", device="NVIDIA A100 sm80")
    cache.store(other, b"engine", build_s=1)
    (cache.folder / f"{other.digest}.json").rename(_sidecar(cache))  # as a careless copy would
    assert _states(cache)[0] == "corrupt"
    with pytest.raises(
        EngineCacheError,
        match=r"is for something else: device: expected NVIDIA L4 sm89, got NVIDIA A100 sm80; driver: "
        r"expected 580\.95\.05, got 570\.10; it was set aside",
    ):
        cache.load(KEY)
    assert cache.load(KEY) is None


def test_the_nearest_is_named(cache: EngineCache) -> None:
    cache.store(msgspec.structs.replace(KEY, driver="570.10", device="NVIDIA A100 sm80"), b"1", build_s=1)
    cache.store(msgspec.structs.replace(KEY, driver="570.10"), b"2", build_s=1)
    cache.store(msgspec.structs.replace(KEY, model_sha256="b" * 64), b"3", build_s=1)
    near = cache.nearest(KEY)
    assert near is not None
    assert KEY.differences(near.key) == ["driver: expected 580.95.05, got 570.10"]


def test_entries_of_other_models_are_told_apart(cache: EngineCache) -> None:
    cache.store(KEY, b"engine", build_s=1)
    assert [e.state for e in cache.entries(frozenset({"b" * 64}))] == ["other model"]
    assert [e.state for e in cache.entries(frozenset({"a" * 64}))] == ["ok"]


@pytest.mark.parametrize("before", [b"", b"older"], ids=["first build", "rebuild"])
@pytest.mark.parametrize("stops_at", [1, 2, 3], ids=["payload", "sidecar", "old payload"])
def test_an_interrupted_write_leaves_the_entry_before_or_none(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, stops_at: int, before: bytes
) -> None:
    """The process ends at a rename or removal, and nothing after it happens, no clean-up either."""
    if before:
        cache.store(KEY, before, build_s=1)
    steps = 0

    def step(real: Callable[..., object]) -> Callable[..., object]:
        def done(*args: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps >= stops_at:
                raise KeyboardInterrupt
            return real(*args, **more)

        return done

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(Path, "replace", step(Path.replace))
        patched.setattr(Path, "unlink", step(Path.unlink))
        cache.store(KEY, b"newer", build_s=1)
    found = cache.load(KEY)
    assert (b"" if found is None else found[0]) == (b"newer" if stops_at == 3 else before)
    assert {e.state for e in cache.entries()} <= {"ok", "leftover"}
    cache.store(KEY, b"last", build_s=1)
    assert _states(cache) == ["ok"]
    assert not list(cache.folder.glob(".tmp-*"))


def test_a_killed_writer_leaves_no_entry_and_no_lock(cache: EngineCache) -> None:
    """Really killed, in the middle of its payload."""
    code = f"""
import os, sys
from pathlib import Path
import msgspec
from algan_stream.engines import cache
real = os.fsync
def stop(descriptor):
    print("half", flush=True)
    sys.stdin.read()
os.fsync = stop
key = msgspec.json.decode({msgspec.json.encode(KEY)!r}, type=cache.EngineKey)
cache.EngineCache(Path({str(cache.folder)!r})).store(key, b"x" * 100000, build_s=1)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert list(cache.folder.glob(".tmp-*"))
    assert cache.load(KEY) is None
    assert cache.entries() == []
    cache.store(KEY, b"engine", build_s=1)
    assert not list(cache.folder.glob(".tmp-*"))
    assert _states(cache) == ["ok"]


def _build_often(folder: str, who: int) -> None:
    for i in range(40):
        EngineCache(Path(folder)).store(KEY, bytes([who, i]) * 5000, build_s=1)


def test_builders_at_once_do_no_harm(cache: EngineCache) -> None:
    context = multiprocessing.get_context("spawn")
    builders = [context.Process(target=_build_often, args=(str(cache.folder), who)) for who in range(2)]
    for builder in builders:
        builder.start()
    read = 0
    while any(builder.is_alive() for builder in builders):
        if (found := cache.load(KEY)) is not None:  # raises, if what one wrote were mixed with the other's
            payload = found[0]
            assert payload == payload[:2] * 5000
            read += 1
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert read > 0
    assert _states(cache) == ["ok"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # root may write everywhere but below a file
    with pytest.raises(EngineError, match=r"cannot be written: .*--cache, .*`cache:` .*ALGAN_ENGINE_CACHE"):
        EngineCache(tmp_path / "file" / "engines").store(KEY, b"engine", build_s=1)


def test_which_folder(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALGAN_ENGINE_CACHE", raising=False)
    assert cache_folder(bundle) == bundle.path / "engines"
    monkeypatch.setenv("ALGAN_ENGINE_CACHE", "/elsewhere")
    assert cache_folder(bundle) == Path("/elsewhere")
    assert cache_folder(bundle, "/chosen") == Path("/chosen")


def test_a_bundle_with_a_cache_is_a_bundle_and_its_successor_starts_without(
    own_bundle: Bundle, tmp_path: Path
) -> None:
    EngineCache(cache_folder(own_bundle)).store(KEY, b"engine", build_s=1)
    again = read_bundle(own_bundle.path)
    staged = tmp_path / "staged"
    subprocess.run(["cp", "-r", str(own_bundle.path), str(staged)], check=True)
    (staged / "manifest.json").unlink()
    replaced = write_bundle(own_bundle.path, staged, again.manifest)
    assert not (own_bundle.path / "engines").exists()
    assert not [name for name in replaced.manifest.files if name.startswith("engines")]
