"""The TensorRT engine on an emulated device: the contract of every engine, and what is its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from algan_stream import _core, plugins, preprocess_cuda
from algan_stream.bundle import Bundle
from algan_stream.engines.cache import EngineCache, cache_folder
from algan_stream.engines.gate import check_golden
from algan_stream.engines.tensorrt import Config
from algan_stream.engines.tensorrt_common import HARDWARE_COMPATIBLE, VERSION_COMPATIBLE
from algan_stream.engines.tensorrt_engine import TensorRtEngine
from algan_stream.errors import (
    ConfigError,
    EngineError,
    GateError,
    InputError,
    MissingEngineError,
    PluginError,
)
from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.types import Frame, InputSpec
from cuda_emulation import Device, open_emulated, store
from engine_contract import (
    CONTRACT,
    MAX_BATCH,
    same,  # noqa: F401  a fixture of the contract
)
from engine_contract import inputs as inputs_of

pytest.importorskip("onnxruntime")
globals().update(CONTRACT)  # `engine` below is what each of these gets


@pytest.fixture
def bound() -> float:
    """The emulated device computes alike at every size of batch."""
    return 0.0


class Preprocessor:
    """Stands for `CudaPreprocessor`: reads at once, writes late, on the stream."""

    device: Device
    wrong_by = 0.0

    def preprocess_into(
        self, out: Any, image: Any, spec: InputSpec, *, first_slot: int, stream: int, **more: Any
    ) -> int:
        self.device.check_current()
        boxes = more["boxes"]
        count = 1 if boxes is None else len(boxes)
        made = empty_slots(count, spec)
        preprocess_into(made, image, spec, **more)
        made += self.wrong_by
        start = first_slot * made[0].nbytes
        memory = self.device.memory[out.pointer].data[start : start + made.nbytes]
        self.device.streams[stream].enqueue(
            lambda: memory.__setitem__(slice(None), made.view(np.uint8).ravel())
        )
        return count


@pytest.fixture(params=["kernels", "no kernels", "no graphs"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device(refuses_graphs=request.param == "no graphs")
    monkeypatch.setattr(_core, "has_cuda", request.param == "kernels")
    monkeypatch.setattr(Preprocessor, "device", made, raising=False)
    monkeypatch.setattr(preprocess_cuda, "CudaPreprocessor", Preprocessor)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(max_batch=MAX_BATCH, streams=2, cache=str(tmp_path / "engines"))


@pytest.fixture
def engine(bundle: Bundle, config: Config, device: Device) -> Iterator[TensorRtEngine]:
    store(bundle, config)
    made = open_emulated(bundle, config, device)
    yield made
    made.close()
    assert not [error for stream in device.streams.values() for error in stream.failed]


def test_the_gate_and_who_it_is(engine: TensorRtEngine, bundle: Bundle, config: Config) -> None:
    report = check_golden(bundle, engine)
    assert report.max_logit_difference <= report.tolerance
    (entry,) = EngineCache(Path(config.cache)).entries()
    assert entry.info is not None
    assert engine.identity.cache_key == entry.info.key.digest
    assert str(engine.identity) == f"tensorrt 11.4.0 Emulated sm89 fp32 {entry.info.key.digest[:12]}"


def test_each_batch_size_is_recorded_once_and_replayed(engine: TensorRtEngine, device: Device) -> None:
    recorded = 0 if device.refuses_graphs else MAX_BATCH * len(engine.slots)
    assert len(device.graphs) == recorded
    for count in range(1, MAX_BATCH + 1):
        engine.infer(inputs_of(engine, count))
    assert len(device.graphs) == recorded
    assert sum(graph.launched for graph in device.graphs) == (0 if device.refuses_graphs else MAX_BATCH)


def test_where_graphs_are_refused_that_is_said(
    bundle: Bundle, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_core, "has_cuda", False)
    store(bundle, config)
    with caplog.at_level(logging.WARNING):
        open_emulated(bundle, config, Device(refuses_graphs=True)).close()
    said = [record.message for record in caplog.records if "without CUDA graphs" in record.message]
    assert len(said) == 1
    assert "CAPTURE_UNSUPPORTED" in said[0]
    device = Device()
    open_emulated(bundle, msgspec.structs.replace(config, cuda_graphs=False), device).close()
    assert device.graphs == []


def test_frames_become_inputs_of_the_slot(engine: TensorRtEngine, device: Device) -> None:
    """By the kernels straight on the device, else in host memory; the logits are the same."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(3)]
    boxes = np.array([[0, 0, 30, 30], [10, 5, 60, 40]], np.float32)
    spec = engine.spec
    assert isinstance(spec, InputSpec)
    expected = empty_slots(4, spec)
    preprocess_into(expected, images[0], spec, boxes=boxes)
    preprocess_into(expected, images[1], spec, first_slot=2)
    preprocess_into(expected, images[2], spec, first_slot=3)
    wanted, others = engine.infer(expected), inputs_of(engine, 4)
    after = engine.infer(others)
    for _ in range(2 * len(engine.slots)):
        slot = engine.acquire(5)
        assert slot is not None
        slot.inputs_nchw.fill(np.nan)  # with the kernels nobody reads it
        engine.write(slot, _frame(images[0], boxes), boxes=boxes, first_slot=0)
        engine.write(slot, _frame(images[1]), boxes=None, first_slot=2)
        engine.write(slot, _frame(images[2]), boxes=None, first_slot=3)
        engine.submit(slot, 4)
        assert np.array_equal(engine.collect(slot), wanted)
        assert np.array_equal(engine.infer(others), after)  # ready inputs after written ones


def test_a_slot_given_back_forgets_what_was_written(engine: TensorRtEngine) -> None:
    image, inputs = np.zeros((8, 8, 3), np.uint8), inputs_of(engine, 1)
    alone = engine.infer(inputs)
    for _ in engine.slots:
        slot = engine.acquire(5)
        assert slot is not None
        engine.write(slot, _frame(image), boxes=None, first_slot=0)
        engine.give_back(slot)
    assert all(np.array_equal(engine.infer(inputs), alone) for _ in engine.slots)


def test_an_image_that_cannot_be_used(engine: TensorRtEngine) -> None:
    slot = engine.acquire(5)
    assert slot is not None
    with pytest.raises(InputError):
        engine.write(slot, _frame(np.zeros((0, 8, 3), np.uint8)), boxes=None, first_slot=0)
    engine.give_back(slot)


def test_a_device_that_hangs_and_one_that_fails(engine: TensorRtEngine, device: Device) -> None:
    engine.patience_s = 0.05
    device.release.clear()
    with pytest.raises(EngineError, match=r"no answer within 0\.05 s"):
        engine.infer(inputs_of(engine, 1))
    device.release.set()
    engine.patience_s = 30
    engine.infer(inputs_of(engine, 1))
    slot = engine.acquire(5)
    assert slot is not None
    lane: Any = engine._lanes[slot.index]
    lane.stream.failed.append(RuntimeError("device lost"))
    engine.submit(slot, 1)
    with pytest.raises(EngineError, match=r"inference failed: cuEventQuery: device lost"):
        engine.collect(slot)
    lane.stream.failed.clear()


def test_small_batches_are_filled_up(bundle: Bundle, config: Config, device: Device) -> None:
    config = msgspec.structs.replace(config, min_batch=3)
    store(bundle, config)
    engine = open_emulated(bundle, config, device)
    inputs = inputs_of(engine, 4)
    whole = engine.infer(inputs)
    assert np.array_equal(engine.infer(inputs[:1]), whole[:1])
    assert np.array_equal(engine.infer(inputs[:2]), whole[:2])
    engine.close()


def test_closing_frees_on_the_device_and_ends_it(bundle: Bundle, config: Config, device: Device) -> None:
    store(bundle, config)
    engine = open_emulated(bundle, config, device)
    engine.close()
    assert device.closed
    assert engine._engine is engine._runtime is engine._preprocessor is None
    with pytest.raises(EngineError):
        engine.infer(np.zeros((1, *engine.input_shape), np.float32))


# ---- what keeps it from starting ---------------------------------------------------------------------------


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(_core, "has_cuda", False)
    return Device()


def test_an_engine_that_was_not_built_is_asked_for_by_its_command(
    bundle: Bundle, config: Config, plain: Device
) -> None:
    config = msgspec.structs.replace(config, precision="fp16", opt_batch=4, dla=1, device=0)
    with pytest.raises(MissingEngineError) as caught:
        open_emulated(bundle, config, plain)
    command = (
        f"build {bundle.path} --target tensorrt --precision fp16 --min-batch 1 --opt-batch 4 --max-batch 5 "
        f"--dla 1 --cache {config.cache}"
    )
    assert str(caught.value).endswith(
        f"no tensorrt engine for Emulated sm89 fp16; build it by: algan-stream {command}"
    )
    assert caught.value.command == (sys.executable, "-m", "algan_stream", *command.split())
    assert plain.closed
    store(bundle, msgspec.structs.replace(config, precision="fp32", dla=None))
    with pytest.raises(
        MissingEngineError, match=r"the nearest there differs in precision: expected fp16, got fp32"
    ):
        open_emulated(bundle, config, plain)


def test_a_corrupt_engine_is_set_aside_and_asked_for_again(
    bundle: Bundle, config: Config, plain: Device
) -> None:
    store(bundle, config)
    (payload,) = Path(config.cache).glob("*.engine")
    payload.write_bytes(b"0" * payload.stat().st_size)
    with pytest.raises(
        MissingEngineError, match=r"payload_sha256: .*set aside.*; build it by: algan-stream build"
    ):
        open_emulated(bundle, config, plain)
    assert {entry.state for entry in EngineCache(Path(config.cache)).entries()} == {"set aside"}


@pytest.mark.parametrize(
    "compatible", [(VERSION_COMPATIBLE,), (HARDWARE_COMPATIBLE,), (VERSION_COMPATIBLE, HARDWARE_COMPATIBLE)]
)
def test_engines_that_fit_more_than_this_device(
    bundle: Bundle, config: Config, plain: Device, compatible: tuple[str, ...]
) -> None:
    store(bundle, config, compatible=compatible)
    engine = open_emulated(bundle, config, plain)
    assert engine._runtime.engine_host_code_allowed == (VERSION_COMPATIBLE in compatible)
    check_golden(bundle, engine)
    engine.close()


def test_a_payload_that_is_no_engine(bundle: Bundle, config: Config, plain: Device) -> None:
    store(bundle, config)
    cache = EngineCache(Path(config.cache))
    (entry,) = cache.entries()
    assert entry.info is not None
    cache.store(entry.info.key, b"nonsense", build_s=1)
    with pytest.raises(
        EngineError, match=r"cannot load the compiled engine: the payload is no engine; build it again"
    ):
        open_emulated(bundle, config, plain)
    assert plain.closed


def test_an_engine_of_another_model_or_batch(bundle: Bundle, config: Config, plain: Device) -> None:
    spec = msgspec.structs.replace(bundle.manifest.image_spec, height_px=64)
    wrong = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, input_spec=spec))
    store(wrong, config)
    with pytest.raises(EngineError, match="does not fit the manifest"):
        open_emulated(wrong, config, plain)
    store(bundle, config)
    with pytest.raises(EngineError, match="expected batches of 1 to 5, got 1 to 4"):
        open_emulated(bundle, config, Device(), high=4)


def test_preprocessing_that_differs_is_gated(
    bundle: Bundle, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device()
    monkeypatch.setattr(_core, "has_cuda", True)
    monkeypatch.setattr(Preprocessor, "device", device, raising=False)
    monkeypatch.setattr(Preprocessor, "wrong_by", 0.01)
    monkeypatch.setattr(preprocess_cuda, "CudaPreprocessor", Preprocessor)
    store(bundle, config)
    with pytest.raises(GateError, match=r"preprocessing on Emulated differs from the processor's by 0\.01"):
        open_emulated(bundle, config, device)
    assert device.closed


def test_where_engines_are_looked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALGAN_ENGINE_CACHE", str(tmp_path))
    assert cache_folder(bundle, Config().cache) == tmp_path
    assert cache_folder(bundle, Config(cache="x").cache) == Path("x")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"opt_batch": 9}, r"engine: min_batch, opt_batch, max_batch: .* got \(1, 9, 8\)"),
        ({"min_batch": 9}, r"engine: min_batch"),
        ({"dla": -1}, r"engine: device, dla: expected 0 or more, got 0, -1"),
        ({"precision": "bf16"}, r"engine\.precision: expected one of fp32, fp16, int8, got 'bf16'"),
        ({"max_batch": 0}, r"engine: max_batch: expected 1 to 1024, got 0"),
    ],
)
@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt_rtx"])
def test_sections_that_are_refused(kind: str, section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plugins.load("engines", {"kind": kind, **section}, "engine")


def test_without_pycuda_that_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    module, config = plugins.load("engines", {"kind": "tensorrt_rtx"}, "engine")
    with pytest.raises(PluginError, match=r"needs the Python package pycuda; install it by: pip install"):
        module.create(bundle, config)


def _frame(image: Any, boxes: Any = None) -> Frame:
    return Frame("cam", 0, image, "bgr8", captured_ns=0, boxes=boxes)
