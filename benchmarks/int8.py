"""The int8 graph of a bundle beside its fp32 graph: AUROC, flips, score differences, and speed, in one run.

    python benchmarks/int8.py BUNDLE LABELLED [--threads 1] [--batches 1 8 64] [--rounds 15] [--skip-speed]

BUNDLE was quantised by `algan-stream quantize`. LABELLED holds `good/` and other subfolders of defects that
neither training nor quantisation has seen. Times are OpenVINO's, one stream, the graphs in turn within each
round; the ratio is the median of the rounds'. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino as ov

from algan_deploy.quantize.measuring import Scores, int8_layers, score
from algan_deploy.quantize.samples import Floats, Samples, labelled_inputs
from algan_stream.auroc import auroc
from algan_stream.bundle import Bundle, read_bundle


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip-speed", action="store_true")
    args = parser.parse_args()
    bundle = read_bundle(args.bundle)
    paths = {"fp32": bundle.model_path, "int8": bundle.model_for("int8")}
    with tempfile.TemporaryDirectory() as folder:
        good, bad = labelled_inputs(bundle, args.labelled, Path(folder))
        samples = Samples(good, bundle.golden(), good, bad)
        scores = {name: score(path, samples) for name, path in paths.items()}
    running, of = int8_layers(paths["int8"])
    core = ov.Core()
    found = {
        "bundle": bundle.manifest.name,
        "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "int8_layers": f"{running} of {of}",
        **accuracy(bundle, scores["fp32"], scores["int8"]),
    }
    if not args.skip_speed:
        shape = bundle.manifest.spec.shape
        found["speed"] = [speed(core, paths, shape, n, args.threads, args.rounds) for n in args.batches]
    print(json.dumps(found, indent=1))


def accuracy(bundle: Bundle, fp32: Scores, int8: Scores) -> dict[str, object]:
    """AUROC, flips and differences of the labelled images."""
    one, other = (np.concatenate([s.labelled_good, s.labelled_bad]) for s in (fp32, int8))
    calibration = bundle.manifest.calibration
    flips = None
    if calibration is not None:
        flips = int(((one > calibration.threshold) != (other > calibration.threshold)).sum())
    return {
        "images": f"{len(fp32.labelled_good)} good, {len(fp32.labelled_bad)} defective",
        "auroc_fp32": auroc(fp32.labelled_good, fp32.labelled_bad),
        "auroc_int8": auroc(int8.labelled_good, int8.labelled_bad),
        "flips": flips,
        "largest_difference": float(np.abs(one - other).max()),
        "largest_golden_difference": {
            name: float(np.abs(found + bundle.golden().logits).max()) for name, found in int8.golden.items()
        },
    }


def speed(
    core: ov.Core, paths: dict[str, Path], shape: tuple[int, ...], batch: int, threads: int, rounds: int
) -> dict[str, float | int]:
    """Milliseconds per image of both, and how many times as fast int8 is."""
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    inputs: Floats = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    requests = {}
    for name, path in paths.items():
        request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
        request.set_input_tensor(ov.Tensor(inputs, shared_memory=True))
        request.infer()
        requests[name] = request
    times: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < 0.1 or count < 3:
                request.infer()
                count += 1
            times[name].append((time.perf_counter() - start) / count / batch * 1000)
    ratios = [a / b for a, b in zip(times["fp32"], times["int8"], strict=True)]
    return {
        "batch": batch,
        "threads": threads,
        **{f"{name}_ms": statistics.median(of) for name, of in times.items()},
        "int8_times_as_fast": statistics.median(ratios),
    }


if __name__ == "__main__":
    main()
