"""The test split of Magnetic Tile Defects as a labelled folder of links, `good/` and one for each defect.

Run it by: python benchmarks/labelled_mtd.py $ALGAN_DATA/mtd build/mtd-test [--split test]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Makes the folder; links that are there stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="the data set, with splits.json")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    names = json.loads((given.data / "splits.json").read_text())[given.split]
    for name in names:
        kind = name.split("/")[0]
        link = given.out / ("good" if kind == "MT_Free" else kind) / Path(name).name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to((given.data / name).resolve())
    print(f"{given.out}: {len(names)} images")


if __name__ == "__main__":
    main()
