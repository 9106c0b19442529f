"""What trained models say to anomalies of kinds that they never saw: section 5.7 of the paper.

    python benchmarks/robustness.py DATA BUNDLE… [--threads N]

Each BUNDLE was trained on DATA, and the folder of its training, `BUNDLE.training`, still stands beside it:
its last checkpoint holds the generator that makes the fakes. `algan-stream study robustness` trains and
measures; this measures what is trained already. Prints the share called anomalous at a false-reject rate of
5 %.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import msgspec
import torch

from algan_stream.bundle import read_bundle
from algan_trainer.config import Config
from algan_trainer.study.robustness import measure_robustness


def main() -> None:
    """Measures every bundle; a column each, and their mean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = []
    for path in args.bundles:
        bundle = read_bundle(path)
        config = msgspec.convert(bundle.manifest.provenance["config"], Config)
        checkpoint = path.with_name(f"{path.name}.training") / "last.npz"
        found.append(measure_robustness(bundle, checkpoint, args.data, config))
    for kind in found[0]:
        shares = [shares[kind] for shares in found]
        columns = " | ".join(f"{share:.3f}" for share in shares)
        print(f"| {kind} | {columns} | {statistics.fmean(shares):.3f} |")


if __name__ == "__main__":
    main()
