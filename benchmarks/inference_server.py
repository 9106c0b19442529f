"""What an inference server costs: images per second through one, against the engine in the process itself.

    make test-triton                                  # once: installs Triton and MLServer into .venv-servers
    python benchmarks/inference_server.py [BUNDLE] [--images 512] [--max-batch 8] [--repeats 5]

Ways are measured one after the other within a repeat, and each repeat gives one ratio to ONNX Runtime in the
process, the same graph on the same single thread; the table holds medians. Triton runs the graph in its
`python` backend here, for no wheel has its `onnxruntime` backend: its row is what the protocol costs, not
what Triton can do. MLServer over HTTP is left out: it reads JSON alone, and takes seconds for a batch.
Prints one JSON object for each way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.engines.base import Engine
from algan_stream.engines.gate import open_engine
from inference_servers import MODEL, MlServer, Server, Triton, missing

Run = Callable[[npt.NDArray[np.float32]], object]


def main() -> int:
    """Measures every way on one bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="demo")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if missing():
        parser.error(missing())
    bundle = read_bundle(args.bundle)
    shape = (args.images, *bundle.manifest.spec.shape)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        servers = [kind(_made(Path(folder) / kind.__name__), bundle) for kind in (Triton, MlServer)]
        engines: dict[str, Engine] = {}
        try:
            for server in servers:
                server.start()
            engines = _engines(bundle, servers, args.max_batch)
            rates = _measure(_ways(bundle, engines, args.max_batch), images, args.repeats)
        finally:
            for engine in engines.values():
                engine.close()
            for server in servers:
                server.stop()
    base = rates["onnxruntime, in the process"]
    for name, measured in rates.items():
        ratios = [rate / reference for rate, reference in zip(measured, base, strict=True)]
        row = {
            "way": name,
            "images_per_s": round(statistics.median(measured), 1),
            "ratio": round(statistics.median(ratios), 3),
            "bundle": bundle.manifest.name,
            "max_batch": args.max_batch,
        }
        sys.stdout.write(json.dumps(row) + "\n")
    return 0


def _engines(bundle: Bundle, servers: list[Server], max_batch: int) -> dict[str, Engine]:
    triton, mlserver = servers
    sections: dict[str, dict[str, Any]] = {
        "openvino engine, 1 thread": {"kind": "openvino", "threads": 1},
        "Triton 2.51 (python backend), gRPC": {"kind": "triton", "url": triton.url("grpc"), "model": MODEL},
        "Triton 2.51 (python backend), HTTP": {"kind": "triton", "url": triton.url("http"), "model": MODEL},
        "MLServer, gRPC": {"kind": "triton", "url": mlserver.url("grpc"), "model": MODEL},
    }
    return {
        name: open_engine(bundle, {**section, "max_batch": max_batch}) for name, section in sections.items()
    }


def _ways(bundle: Bundle, engines: dict[str, Engine], max_batch: int) -> dict[str, Run]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(bundle.model_path), options)

    def local(images: npt.NDArray[np.float32]) -> None:
        for start in range(0, len(images), max_batch):
            session.run(["logit"], {"input": images[start : start + max_batch]})

    streaming: dict[str, Run] = {name: _streamed(engine) for name, engine in engines.items()}
    return {"onnxruntime, in the process": local, **streaming}


def _streamed(engine: Engine) -> Run:
    """All slots in flight, as in the pipeline: one is filled while the others run."""

    def run(images: npt.NDArray[np.float32]) -> None:
        running: list[Any] = []
        for start in range(0, len(images), engine.max_batch):
            if len(running) == len(engine.slots):
                engine.collect(running.pop(0))
            slot = engine.acquire(60.0)
            if slot is None:
                raise SystemExit(f"{engine.identity}: no slot became free")
            part = images[start : start + engine.max_batch]
            slot.inputs_nchw[: len(part)] = part
            engine.submit(slot, len(part))
            running.append(slot)
        for slot in running:
            engine.collect(slot)

    return run


def _measure(ways: dict[str, Run], images: npt.NDArray[np.float32], repeats: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run(images)
            if repeat:  # the first one warms up
                rates[name].append(len(images) / (time.perf_counter() - started))
    return rates


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
