"""Prepares DeepPCB (Tang et al. 2019) for box scoring: crops of good templates to train on, boxes to stream.

    python examples/deeppcb.py $ALGAN_DATA/deeppcb runs/deeppcb
    algan-stream train runs/deeppcb/crops --out runs/deeppcb64 --size 64
    algan-stream score runs/deeppcb64 runs/deeppcb/boards --boxes runs/deeppcb/boxes.json --jsonl

`crops/` is an MVTec AD layout: good crops are what the templates show where a defect box lies, from the
training pairs for training and from the test pairs for testing; defective crops are what the tested boards of
the test pairs show there. `boards/` holds these boards, whole, and `boxes.json` their boxes.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from algan_stream.images import read_image

DEFECTS = {1: "open", 2: "short", 3: "mouse_bite", 4: "spur", 5: "copper", 6: "pin_hole"}


def main(deeppcb: Path, out: Path) -> None:
    """Writes `crops/`, `boards/` and `boxes.json` below `out`."""
    if out.exists():
        shutil.rmtree(out)
    (out / "boards").mkdir(parents=True)
    boxes_by_board: dict[str, list[list[int]]] = {}
    seen: set[tuple[tuple[int, ...], bytes]] = set()
    for split in ("trainval", "test"):
        for line in (deeppcb / f"{split}.txt").read_text().splitlines():
            image_name, boxes_name = line.split()
            stem = (deeppcb / image_name).with_suffix("")
            boxes = [
                [int(v) for v in row.split()]
                for row in (deeppcb / boxes_name).read_text().splitlines()
                if row
            ]
            template, _ = read_image(f"{stem}_temp.jpg")
            tested, _ = read_image(f"{stem}_test.jpg")
            for i, (x0, y0, x1, y1, kind) in enumerate(boxes):
                name = f"{stem.name}_{i}.png"
                good = out / "crops" / ("train" if split == "trainval" else "test") / "good"
                save(template[y0:y1, x0:x1], good / name, seen)
                if split == "test":
                    save(tested[y0:y1, x0:x1], out / "crops" / "test" / DEFECTS[kind] / name, seen)
            if split == "test":
                shutil.copy(f"{stem}_test.jpg", out / "boards")
                boxes_by_board[f"{stem.name}_test.jpg"] = [box[:4] for box in boxes]
    (out / "boxes.json").write_text(json.dumps(boxes_by_board))
    count = sum(map(len, boxes_by_board.values()))
    sys.stdout.write(f"{out}: {len(boxes_by_board)} boards with {count} boxes to stream\n")


def save(crop: np.ndarray, path: Path, seen: set[tuple[tuple[int, ...], bytes]]) -> None:
    """Writes a crop, unless the very same one is there: a copy must not lie in training and test alike."""
    content = (crop.shape, crop.tobytes())
    if content not in seen:
        seen.add(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
