"""What every engine must do. A new engine is one line in `ENGINES`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import pytest

from algan_stream import plugins
from algan_stream.bundle import Bundle, read_bundle
from algan_stream.engines.base import Engine
from algan_stream.errors import BundleError, EngineError
from bundles import make_bundle
from fakes import FakeEngine

_MAX_BATCH = 5
Floats = npt.NDArray[np.float32]


def _plugin(**section: object) -> Callable[[Bundle], Engine]:
    def create(bundle: Bundle) -> Engine:
        module, config = plugins.load("engines", {**section, "max_batch": _MAX_BATCH}, "engine")
        engine: Engine = module.create(bundle, config)
        return engine

    return create


ENGINES: dict[str, Callable[[Bundle], Engine]] = {
    "fake": lambda bundle: FakeEngine(max_batch=_MAX_BATCH, streams=2, spec=bundle.manifest.input_spec),
    "openvino": _plugin(kind="openvino", threads=1),
    "openvino-2-streams": _plugin(kind="openvino", threads=2, streams=2),
    "openvino-auto": _plugin(kind="openvino", threads=1, device="AUTO"),
    "openvino-bf16": _plugin(kind="openvino", threads=1, precision="bf16"),
    "openvino-fp16": _plugin(kind="openvino", threads=1, precision="fp16"),
    "openvino-int8": _plugin(kind="openvino", threads=1, precision="int8"),
    "openvino-gpu": _plugin(kind="openvino", threads=1, device="GPU"),
    "openvino-npu": _plugin(kind="openvino", threads=1, device="NPU", precision="fp16"),
    "onnxruntime": _plugin(kind="onnxruntime", threads=1),
    "onnxruntime-2-streams": _plugin(kind="onnxruntime", threads=2, streams=2),
    "onnxruntime-pool": _plugin(kind="onnxruntime", threads=2, streams=1),
    "onnxruntime-int8": _plugin(kind="onnxruntime", threads=1, precision="int8"),
    "onnxruntime-cuda": _plugin(kind="onnxruntime", provider="cuda"),
    "onnxruntime-tensorrt": _plugin(kind="onnxruntime", provider="tensorrt", precision="fp16"),
}
#: Those that run the bundle's model in its own precision.
_EXACT = (
    "openvino",
    "openvino-2-streams",
    "openvino-auto",
    "onnxruntime",
    "onnxruntime-2-streams",
    "onnxruntime-pool",
)
#: Those that may choose another kernel for another size of batch, and the largest difference that makes.
_BY_SIZE = {
    "openvino-gpu": 1e-4,
    "openvino-npu": 1e-2,
    "onnxruntime-cuda": 1e-4,
    "onnxruntime-tensorrt": 1e-2,
}
#: Not every machine has every device and every arithmetic.
_ABSENT = re.compile(r"is not offered by|is not here \(found|is installed but does not start")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small real bundle with an int8 graph; tests must not change it."""
    return make_bundle(tmp_path_factory.mktemp("quantised") / "bundle", quantised=True)


def _make(kind: str, bundle: Bundle) -> Engine:
    try:
        return ENGINES[kind](bundle)
    except EngineError as error:
        if _ABSENT.search(str(error)):
            pytest.skip(str(error))
        raise


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    made = _make(request.param, bundle)
    yield made
    made.close()


@pytest.fixture
def same(request: pytest.FixtureRequest, engine: Engine) -> Callable[[Floats, Floats], bool]:
    """Whether logits of two sizes of batch count as the same: bit for bit, unless `_BY_SIZE` has a bound."""
    bound = _BY_SIZE.get(request.node.callspec.params["engine"])
    return lambda a, b: np.array_equal(a, b) if bound is None else np.abs(a - b).max(initial=0.0) <= bound


def _inputs(engine: Engine, count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, *engine.input_shape)).astype(np.float32)


def test_it_says_what_it_is(engine: Engine, bundle: Bundle) -> None:
    identity = engine.identity
    assert identity.kind
    assert identity.version
    assert identity.device
    assert identity.precision in ("fp32", "bf16", "fp16", "int8")
    assert identity.threads >= 1
    assert str(identity) == f"{identity.kind} {identity.version} {identity.device} {identity.precision}"
    assert engine.input_shape == bundle.manifest.input_spec.shape_chw


def test_slots_are_as_promised(engine: Engine) -> None:
    assert len(engine.slots) > engine.streams >= 1
    spans = []
    for i, slot in enumerate(engine.slots):
        inputs = slot.inputs_nchw
        assert slot.index == i
        assert inputs.shape == (_MAX_BATCH, *engine.input_shape)
        assert inputs.dtype == np.float32
        assert inputs.flags.c_contiguous
        assert inputs.flags.writeable
        assert inputs.ctypes.data % 64 == 0
        spans.append((inputs.ctypes.data, inputs.ctypes.data + inputs.nbytes))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_a_logit_depends_on_its_own_image_alone(
    engine: Engine, same: Callable[[Floats, Floats], bool]
) -> None:
    """Whatever the batch's size, the place in it and the neighbours, bit for bit."""
    inputs = _inputs(engine, _MAX_BATCH)
    alone = np.concatenate([engine.infer(inputs[i : i + 1]) for i in range(_MAX_BATCH)])
    assert alone.shape == (_MAX_BATCH,)
    assert alone.dtype == np.float32
    assert np.isfinite(alone).all()
    for count in range(1, _MAX_BATCH + 1):
        assert same(engine.infer(inputs[:count]), alone[:count])
    assert same(engine.infer(inputs[::-1].copy()), alone[::-1])


def test_any_number_of_images(engine: Engine, same: Callable[[Floats, Floats], bool]) -> None:
    inputs = _inputs(engine, 3 * _MAX_BATCH + 2)
    logits = engine.infer(inputs)
    assert logits.shape == (len(inputs),)
    assert same(logits[:2], engine.infer(inputs[:2]))
    assert engine.infer(inputs[:0]).shape == (0,)


def test_logits_belong_to_the_caller(engine: Engine) -> None:
    first = engine.infer(_inputs(engine, 2, seed=1))
    kept = first.copy()
    engine.infer(_inputs(engine, 2, seed=2))
    assert np.array_equal(first, kept)


def test_batches_overlap_without_mixing(engine: Engine) -> None:
    inputs = [_inputs(engine, i % _MAX_BATCH + 1, seed=i) for i in range(2 * len(engine.slots))]
    expected = [engine.infer(batch) for batch in inputs]
    running, got = [], []
    for batch in inputs:
        if len(running) == len(engine.slots):
            got.append(engine.collect(running.pop(0)))
        slot = engine.acquire(10.0)
        assert slot is not None
        slot.inputs_nchw[: len(batch)] = batch
        engine.submit(slot, len(batch))
        running.append(slot)
    got += [engine.collect(slot) for slot in running]
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_submit_and_collect_from_two_threads(engine: Engine) -> None:
    batches = [_inputs(engine, 2, seed=i) for i in range(30)]
    expected = [engine.infer(batch) for batch in batches]
    submitted, ready, got = [], threading.Semaphore(0), []

    def judge() -> None:
        for i in range(len(batches)):
            assert ready.acquire(timeout=30)
            got.append(engine.collect(submitted[i]))

    judge_thread = threading.Thread(target=judge)
    judge_thread.start()
    for batch in batches:
        slot = engine.acquire(30.0)
        assert slot is not None
        slot.inputs_nchw[:2] = batch
        engine.submit(slot, 2)
        submitted.append(slot)
        ready.release()
    judge_thread.join(60)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_slot_is_held_by_one_and_comes_back(engine: Engine) -> None:
    held = [engine.acquire(0.1) for _ in engine.slots]
    assert len({slot.index for slot in held if slot}) == len(engine.slots)
    assert engine.acquire(0.01) is None
    assert held[0] is not None
    engine.give_back(held[0])
    assert engine.acquire(0.1) is held[0]
    for slot in held:
        assert slot is not None
        engine.give_back(slot)
    engine.infer(_inputs(engine, 1))


@pytest.mark.parametrize("count", [0, -1, _MAX_BATCH + 1])
def test_a_batch_of_an_impossible_size(engine: Engine, count: int) -> None:
    slot = engine.acquire(0.1)
    assert slot is not None
    with pytest.raises(EngineError, match=f"batch of {count} images: expected 1 to {_MAX_BATCH}"):
        engine.submit(slot, count)
    for _ in engine.slots:  # "the slot is free again"
        assert engine.acquire(0.1) is not None


def test_inputs_of_another_shape_or_type(engine: Engine) -> None:
    right = _inputs(engine, 1)
    for wrong in (right[:, :-1], right[..., :-1], right.astype(np.float64), right[0]):
        with pytest.raises(EngineError, match=r"inputs: expected float32 \(N, 5, 32, 32\), got"):
            engine.infer(wrong)


def test_nan_in_nan_out_and_neighbours_unharmed(engine: Engine) -> None:
    inputs = _inputs(engine, 3)
    expected = engine.infer(inputs)
    inputs[1] = np.nan
    logits = engine.infer(inputs)
    # Quantising turns NaN into a number: neither pixels nor the vectors that are let in can be NaN.
    assert not np.isfinite(logits[1]) or engine.identity.precision == "int8"
    assert np.array_equal(logits[[0, 2]], expected[[0, 2]])


def test_close_twice(engine: Engine) -> None:
    engine.infer(_inputs(engine, 2))
    engine.close()
    engine.close()


@pytest.mark.parametrize("kind", _EXACT)
def test_logits_are_the_models(kind: str, bundle: Bundle) -> None:
    engine = ENGINES[kind](bundle)
    inputs = _inputs(engine, 7)
    reference = onnx.reference.ReferenceEvaluator(str(bundle.model_path)).run(None, {"input": inputs})[0]
    assert engine.infer(inputs) == pytest.approx(reference, abs=1e-4)
    engine.close()


@pytest.mark.parametrize("kind", [kind for kind in ENGINES if kind != "fake"])
def test_a_model_that_does_not_fit_the_manifest(kind: str, bundle: Bundle) -> None:
    spec = msgspec.structs.replace(bundle.manifest.input_spec, height_px=64)
    wrong = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, input_spec=spec))
    with pytest.raises(EngineError, match=r"does not fit the manifest"):
        _make(kind, wrong)


@pytest.mark.parametrize("kind", [kind for kind in ENGINES if kind != "fake"])
def test_a_model_that_is_none(kind: str, tmp_path: Path) -> None:
    own = make_bundle(tmp_path / "bundle", quantised=True)
    for model in (own.model_path, own.model_for("int8")):
        model.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"cannot compile it"):
        _make(kind, own)
    with pytest.raises(BundleError):
        read_bundle(own.path)


@pytest.mark.parametrize("kind", ["openvino-int8", "onnxruntime-int8"])
def test_int8_runs_the_quantised_graph(kind: str, bundle: Bundle, own_bundle: Bundle) -> None:
    golden = bundle.golden()
    engine = ENGINES[kind](bundle)
    difference = np.abs(engine.infer(golden.inputs) - golden.logits).max()
    engine.close()
    assert bundle.manifest.tolerance["fp32"] < difference <= bundle.manifest.tolerance["int8"]
    with pytest.raises(BundleError, match=r"has no discriminator\.int8\.onnx"):
        ENGINES[kind](own_bundle)


def test_failures_of_an_engine_give_the_slot_back() -> None:
    def fails(_: int, __: object = None) -> npt.NDArray[np.float32]:
        raise RuntimeError("device lost")

    for engine in (FakeEngine(on_start=fails), FakeEngine(on_finish=fails)):
        for _ in range(2 * len(engine.slots)):
            with pytest.raises(EngineError, match=r"fake 1 none fp32: .*device lost"):
                engine.infer(_inputs(engine, 1))


def test_a_slot_that_may_still_be_read_is_not_used_again() -> None:
    engine = FakeEngine(patience_s=0.02)
    engine.release.clear()
    for _ in engine.slots:
        with pytest.raises(EngineError, match=r"no answer within 0\.02 s"):
            engine.infer(_inputs(engine, 1))
    with pytest.raises(EngineError, match=r"no slot became free within 0\.02 s"):
        engine.infer(_inputs(engine, 1))


def test_a_bundle_of_another_size(tmp_path_factory: pytest.TempPathFactory) -> None:
    opened = make_bundle(tmp_path_factory.mktemp("wide") / "bundle", size_px=64, width=4, seed=3)
    golden = opened.golden()
    for kind in ("openvino", "onnxruntime"):
        engine = ENGINES[kind](opened)
        assert engine.infer(golden.inputs) == pytest.approx(
            golden.logits, abs=opened.manifest.tolerance["fp32"]
        )
        engine.close()
