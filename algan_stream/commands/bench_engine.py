"""Our engine wrapper against OpenVINO's own asynchronous queue: what the wrapper costs."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine, Slot
from algan_stream.engines.openvino import HINTS, Config, create
from algan_stream.errors import EngineError

#: Turns of each side; the median ratio is reported.
TURNS = 5


def rows(bundle: Bundle, seconds: float) -> list[Any]:
    """Images per second of both, in turns, for each precision and for batches of 1 and 8."""
    measured = []
    for precision in ("fp32", "bf16"):
        for batch in (1, 8):
            try:
                engine = create(bundle, Config(precision=precision, max_batch=batch))
            except EngineError:
                continue  # this processor does not compute in bf16
            peer = _openvino_queue(bundle, engine, precision, batch)
            ours = [0.0] * TURNS
            theirs = [0.0] * TURNS
            for turn in range(TURNS):
                ours[turn] = saturated(engine, batch, seconds / TURNS)
                theirs[turn] = peer(seconds / TURNS)
            engine.close()
            measured.append(
                {
                    "case": f"{precision}, batch {batch}, {bundle.manifest.image_spec.width_px} px",
                    "subject": "engine",
                    "value": statistics.median(ours),
                    "unit": "images/s",
                    "peer": "bare-engine",
                    "peer_value": statistics.median(theirs),
                    "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
                }
            )
    return measured


def saturated(engine: Engine, batch: int, seconds: float) -> float:
    """Images per second with every stream kept busy on ready inputs."""
    running: deque[Slot] = deque()
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        while len(running) < len(engine.slots):
            slot = engine.acquire()
            if slot is None:
                raise EngineError("no slot is free")
            engine.submit(slot, batch)
            running.append(slot)
        images += len(engine.collect(running.popleft()))
    while running:
        images += len(engine.collect(running.popleft()))
    return images / (time.perf_counter() - started)


def _openvino_queue(bundle: Bundle, engine: Engine, precision: str, batch: int) -> Callable[[float], float]:
    import openvino as ov

    core = ov.Core()
    properties = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": engine.identity.threads,
        "NUM_STREAMS": engine.streams,
    }
    compiled = core.compile_model(core.read_model(bundle.model_path), "CPU", properties)
    requests: Any = ov.AsyncInferQueue(compiled, len(engine.slots))
    ready = ov.Tensor(np.zeros((batch, *engine.input_shape), np.float32), shared_memory=False)

    def measure(seconds: float) -> float:
        images, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            requests.start_async({0: ready})
            images += batch
        requests.wait_all()
        return images / (time.perf_counter() - started)

    measure(0.1)
    return measure
