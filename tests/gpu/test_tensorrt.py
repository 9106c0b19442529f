"""TensorRT and TensorRT for RTX on a real GPU: built, gated, and the contract of every engine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algan_deploy.build import tensorrt as target
from algan_deploy.build import tensorrt_rtx as target_rtx
from algan_deploy.build.request import Request
from algan_stream import _core, plugins
from algan_stream.bundle import Bundle
from algan_stream.engines.cache import EngineCache
from algan_stream.engines.cuda_device import device_facts
from algan_stream.engines.gate import check_golden
from algan_stream.engines.tensorrt_engine import TensorRtEngine
from algan_stream.errors import AlganError
from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.types import Frame
from engine_contract import CONTRACT, MAX_BATCH, same  # noqa: F401  a fixture of the contract


def _missing() -> str:
    try:
        device_facts()
    except AlganError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=f"no CUDA device by pycuda: {_missing()}")
globals().update(CONTRACT)


@pytest.fixture
def bound() -> float:
    """TensorRT may choose other kernels for another size of batch; in fp32 that is rounding."""
    return 1e-4


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt_rtx"])
def section(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A section `engine` whose engine has been built for the device here."""
    try:
        importlib.import_module(request.param)
    except ImportError as error:
        pytest.skip(f"{request.param}: {error}")
    folder = tmp_path_factory.mktemp("engines")
    build = target.build if request.param == "tensorrt" else target_rtx.build
    build(
        Request(
            bundle=bundle,
            cache=EngineCache(folder),
            precision="fp32",
            batch=(1, MAX_BATCH, MAX_BATCH),
            force=True,
        )
    )
    return {"kind": request.param, "max_batch": MAX_BATCH, "cache": str(folder)}


@pytest.fixture(params=[True, False], ids=["graphs", "no graphs"])
def engine(
    request: pytest.FixtureRequest, section: dict[str, Any], bundle: Bundle
) -> Iterator[TensorRtEngine]:
    module, config = plugins.load("engines", {**section, "cuda_graphs": request.param}, "engine")
    made: TensorRtEngine = module.create(bundle, config)
    yield made
    made.close()


def test_the_gate(engine: TensorRtEngine, bundle: Bundle) -> None:
    report = check_golden(bundle, engine)
    assert report.max_logit_difference <= report.tolerance


@pytest.mark.skipif(not _core.has_cuda, reason="algan-stream was built without CUDA here")
def test_frames_go_straight_into_the_binding(engine: TensorRtEngine, bundle: Bundle) -> None:
    spec = bundle.manifest.image_spec
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    boxes = np.array([[0, 0, 300, 300], [10.5, 5, 640, 400]], np.float32)
    inputs = empty_slots(2, spec)
    preprocess_into(inputs, image, spec, boxes=boxes)
    wanted = engine.infer(inputs)
    for _ in range(3 * len(engine.slots)):
        slot = engine.acquire(10)
        assert slot is not None
        slot.inputs_nchw.fill(np.nan)
        frame = Frame("cam", 0, image, "bgr8", captured_ns=0, boxes=boxes)
        engine.write(slot, frame, boxes=boxes, first_slot=0)
        engine.submit(slot, 2)
        assert engine.collect(slot) == pytest.approx(wanted, abs=bundle.manifest.tolerance["fp32"])


def test_graphs_give_what_kernels_one_by_one_give(
    section: dict[str, Any], bundle: Bundle, tmp_path: Path
) -> None:
    logits = []
    inputs = bundle.golden().inputs
    for graphs in (True, False):
        module, config = plugins.load("engines", {**section, "cuda_graphs": graphs}, "engine")
        made = module.create(bundle, config)
        assert bool(made._lanes[0].graphs) == graphs
        logits.append(made.infer(inputs))
        made.close()
    assert np.array_equal(*logits)
