"""What decoding a JPEG no larger than needed gains, and what it does to scores.

    python benchmarks/jpeg_scaled.py BUNDLE FOLDER_OF_JPEGS [--limit N]

Each file is decoded in full and at the reduced size, in turns, and scored both ways by the bundle's engine.
Printed: the median of the paired time ratios (decoding and preprocessing), by how much scores differ, beside
their spread over the files, and how many verdicts flip.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from algan_stream.bundle import read_bundle
from algan_stream.engines.gate import open_engine
from algan_stream.jpeg import decode_jpeg, preprocess_jpeg_into
from algan_stream.preprocess import empty_slots

ROUNDS = 5


def main() -> None:
    """Prints one line of a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    spec, calibration = bundle.manifest.image_spec, bundle.manifest.calibration
    files = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    files = files[:: max(1, len(files) // options.limit)]
    slots = {scaled: empty_slots(len(files), spec) for scaled in (False, True)}
    ratios, scales = [], []
    for slot, file in enumerate(files):
        data = file.read_bytes()
        full, reduced = decode_jpeg(data)[0], decode_jpeg(data, spec)[0]
        scales.append(reduced.shape[0] / full.shape[0])
        for _ in range(ROUNDS):
            times = {}
            for scaled, out in slots.items():
                start = time.perf_counter()
                preprocess_jpeg_into(out, data, spec, first_slot=slot, scaled=scaled)
                times[scaled] = time.perf_counter() - start
            ratios.append(times[False] / times[True])
    engine = open_engine(bundle, {"kind": "openvino"})
    scores = {scaled: -engine.infer(out).astype(np.float64) for scaled, out in slots.items()}
    engine.close()
    difference = np.abs(scores[True] - scores[False])
    flips = "not calibrated"
    if calibration is not None:
        flips = str(
            int(((scores[True] > calibration.threshold) != (scores[False] > calibration.threshold)).sum())
        )
    print(
        f"{len(files)} files, decoded at {min(scales):.3f} to {max(scales):.3f} of their size: "
        f"{statistics.median(ratios):.2f} times as fast; scores differ by {difference.mean():.3f} on average "
        f"and {difference.max():.3f} at most, where their standard deviation is {scores[False].std():.3f}; "
        f"verdicts that flip: {flips}"
    )


if __name__ == "__main__":
    main()
