"""`mtd`: Magnetic Tile Defects, `MT_*/Imgs/NAME.jpg` with the mask `NAME.png` beside it; `MT_Free` is good.

Split by `splits.json`, lists of paths under the names of the splits, if there is one; else, or with a random
split, 50/25/25 for good and 50/50 for defective images (paper, section 4.2).

The images are no independent samples: each tile was taken under up to six exposures, and a random split puts
the same tile on both sides. The names `expE_num_M` tell: sorted by M, a tile's images follow each other with
rising exposures. `tiles` finds them, which is what `--group-aware` keeps together.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from algan_stream.errors import InputError
from algan_trainer.data.dataset import GOOD, SPLITS, Sample
from algan_trainer.data.found import HALF_AND_QUARTERS, HALVES, Found, file_below, relative
from algan_trainer.data.groups import joined

_LISTING = "splits.json"
_NAME = re.compile(r"exp(\d+)_num_(\d+)")
#: Cropped by hand, nearly all images of one tile differ by less than 10 % in width and in height.
_SIZE_TOLERANCE = 1.1
#: Two tiles taken in turn interleave, two times six images.
_NEIGHBOURS = 11


def recognises(root: Path) -> bool:
    """Whether `MT_Free` or `splits.json` is there."""
    return (root / _LISTING).is_file() or (root / "MT_Free").is_dir()


def find(root: Path, split: Literal["given", "random"]) -> Found:
    """Lists the images, with the split of `splits.json` if there is one and it is wanted.

    Raises:
        InputError: The list is wrong.
    """
    listing = root / _LISTING
    if split == "given" and listing.is_file():
        return Found(_with_tiles(root, _listed(root, listing)))
    paths = [relative(p, root) for p in sorted(root.glob("MT_*/Imgs/*.jpg"))]
    samples = _with_tiles(root, [_sample(root, path, "") for path in paths])
    return Found(samples, good=HALF_AND_QUARTERS, anomalous=HALVES)


def _sample(root: Path, path: str, split: str) -> Sample:
    folder = Path(path).parts[0] if path else ""
    kind = GOOD if folder in ("MT_Free", GOOD) else folder
    mask = (root / path).with_suffix(".png")
    has_mask = kind != GOOD and mask.is_file() and mask != root / path
    return Sample(path, kind, split, mask=relative(mask, root) if has_mask else "")


def _listed(root: Path, listing: Path) -> list[Sample]:
    try:
        parts = json.loads(listing.read_text("utf-8"))
        listed = [(str(path), split) for split in parts for path in parts[split]]
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{listing}: expected lists of paths under {', '.join(SPLITS)}: {error}") from error
    if unknown := sorted(parts.keys() - set(SPLITS)):
        raise InputError(f"{listing}: {unknown[0]}: unknown split; expected {', '.join(SPLITS)}")
    seen: set[str] = set()
    for path, _ in listed:
        if path in seen:
            raise InputError(f"{listing}: {path} is listed more than once; splits must not overlap")
        seen.add(path)
        file_below(root, path, str(listing))
    return [_sample(root, path, split) for path, split in listed]


@dataclass(frozen=True)
class _Shot:
    """One image of a tile: `number` orders the shots in time, `size` is (width_px, height_px) or None."""

    index: int
    number: int
    exposure: int
    size: tuple[int, int] | None


def tiles(root: Path, paths: list[str]) -> list[str]:
    """Names the tile that each image shows; "" where the file's name does not tell.

    Two images belong to one tile if they follow each other with a rising exposure; or if one continues the
    other, at most 11 images earlier, with a higher exposure and nearly the same size. The second rule
    finds tiles that were taken in turn. Where either is wrong, two tiles count as one: no harm to a split.
    """
    shots = []
    for index, path in enumerate(paths):
        if match := _NAME.fullmatch(Path(path).stem):
            shots.append(_Shot(index, int(match[2]), int(match[1]), _size(root / path)))
    shots.sort(key=lambda s: (s.number, s.exposure, s.index))
    pairs = []
    for i, shot in enumerate(shots):
        if i and shots[i - 1].exposure < shot.exposure:
            pairs.append((shots[i - 1].index, shot.index))
        alike = [s for s in reversed(shots[max(0, i - _NEIGHBOURS) : i]) if _alike(s, shot)]
        # The nearest image of this size, if its exposure is lower, is the same tile's.
        if alike and alike[0].exposure < shot.exposure:
            pairs.append((alike[0].index, shot.index))
    first = joined(len(paths), pairs)
    known = {s.index for s in shots}
    return [paths[first[i]] if i in known else "" for i in range(len(paths))]


def _with_tiles(root: Path, samples: list[Sample]) -> list[Sample]:
    names = tiles(root, [s.path for s in samples])
    return [replace(s, group=name) for s, name in zip(samples, names, strict=True)]


def _alike(one: _Shot, other: _Shot) -> bool:
    if one.size is None or other.size is None:
        return False
    return all(max(a, b) < _SIZE_TOLERANCE * min(a, b) for a, b in zip(one.size, other.size, strict=True))


def _size(path: Path) -> tuple[int, int] | None:
    """From the file's header; None where it has none, which decoding will complain about."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
