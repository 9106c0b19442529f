"""Our engine wrapper against OpenVINO's own queue and its own benchmark: what the wrapper costs."""

from __future__ import annotations

import importlib.util
import re
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine, Slot
from algan_stream.engines.openvino import Config, create
from algan_stream.engines.openvino_device import properties
from algan_stream.errors import BundleError, EngineError

#: Turns of each side; the median ratio is reported.
TURNS = 5
#: `benchmark_app` takes whole seconds.
_LEAST_S = 1
_DONE = re.compile(r"Count:\s+(\d+) iterations.*Duration:\s+([\d.]+) ms", re.DOTALL)


def rows(bundle: Bundle, seconds: float) -> list[dict[str, Any]]:
    """Images per second of all sides, in turns, for each precision and for batches of 1 and 8."""
    measured = []
    for precision in ("fp32", "bf16", "int8"):
        for batch in (1, 8):
            try:
                config = Config(precision=precision, max_batch=batch)
                engine = create(bundle, config)
            except (BundleError, EngineError):
                continue  # this processor does not compute in it, or the bundle has no such graph
            try:
                measured += _against_peers(bundle, engine, config, batch, seconds)
            finally:
                engine.close()
    return measured


def _against_peers(
    bundle: Bundle, engine: Engine, config: Config, batch: int, seconds: float
) -> list[dict[str, Any]]:
    path = bundle.model_for(config.precision)
    told = properties(
        "CPU",
        config.precision,
        "THROUGHPUT",
        threads=engine.identity.threads,
        streams=engine.streams,
        cache_dir="",
    )
    peers = {"bare-engine": _openvino_queue(path, engine, told, batch)}
    if importlib.util.find_spec("openvino.tools.benchmark.main"):
        peers["benchmark_app"] = _benchmark_app(path, engine, told, batch)
    ours: dict[str, list[float]] = {name: [] for name in peers}
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(TURNS):
        for name, peer in peers.items():
            ours[name].append(saturated(engine, batch, seconds / TURNS))
            theirs[name].append(peer(seconds / TURNS))
    return [
        {
            "case": f"{config.precision}, batch {batch}, {' × '.join(map(str, engine.input_shape))}",
            "subject": "engine",
            "value": statistics.median(ours[name]),
            "unit": "images/s",
            "peer": name,
            "peer_value": statistics.median(theirs[name]),
            "ratio": statistics.median(a / b for a, b in zip(ours[name], theirs[name], strict=True)),
        }
        for name in peers
    ]


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


def _openvino_queue(path: Path, engine: Engine, told: dict[str, Any], batch: int) -> Callable[[float], float]:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", told)
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


def _benchmark_app(path: Path, engine: Engine, told: dict[str, Any], batch: int) -> Callable[[float], float]:
    """The tool that comes with OpenVINO, as a process of its own, on the same model and settings."""
    command = [
        *(sys.executable, "-c", "from openvino.tools.benchmark.main import main; main()"),
        *(
            "-m",
            str(path),
            "-d",
            "CPU",
            "-hint",
            "none",
            "-infer_precision",
            told["INFERENCE_PRECISION_HINT"],
        ),
        *("-nstreams", str(engine.streams), "-nthreads", str(engine.identity.threads)),
        *(
            "-nireq",
            str(len(engine.slots)),
            "-data_shape",
            str([batch, *engine.input_shape]).replace(" ", ""),
        ),
    ]

    def measure(seconds: float) -> float:
        limit = str(max(_LEAST_S, round(seconds)))
        ended = subprocess.run([*command, "-t", limit], capture_output=True, text=True, check=False)
        done = _DONE.search(ended.stdout)
        if ended.returncode or done is None:
            raise EngineError(f"benchmark_app failed: {(ended.stdout + ended.stderr).strip()[-500:]}")
        return int(done[1]) * batch / (float(done[2]) / 1000)

    return measure
