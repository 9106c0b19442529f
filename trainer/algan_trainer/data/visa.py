"""`visa`: one object of the Visual Anomaly dataset.

    OBJECT/Data/Images/Normal/*.JPG, OBJECT/Data/Images/Anomaly/*.JPG, OBJECT/Data/Masks/Anomaly/*.png
    OBJECT/image_anno.csv            image,label,mask: the types of defect, with commas between them
    split_csv/1cls.csv               object,split,label,image,mask: beside OBJECT, or in it

With `1cls.csv`, its training part is trained on and its test part halved; without it, or with a random split,
good images are split 50/25/25 and defective ones 50/50, as the paper splits MTD.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from algan_stream.errors import InputError
from algan_stream.images import list_images
from algan_trainer.data.dataset import GOOD, Sample
from algan_trainer.data.found import HALF_AND_QUARTERS, HALVES, Found, relative

_IMAGES = Path("Data") / "Images"
#: Images that show several types of defect.
_SEVERAL = "combined"


def recognises(root: Path) -> bool:
    """Whether `Data/Images/Normal` is there."""
    return (root / _IMAGES / "Normal").is_dir()


def find(root: Path, split: Literal["given", "random"]) -> Found:
    """Lists one object's images.

    Raises:
        InputError: There are no images, or a table lacks a column, a file or this object.
    """
    kinds = _types(root)
    samples = []
    for path in list_images(root / _IMAGES):
        name, folder = relative(path, root), path.relative_to(root / _IMAGES).parts[0]
        if folder not in ("Normal", "Anomaly"):
            raise InputError(f"{path}: expected it in {_IMAGES}/Normal or {_IMAGES}/Anomaly")
        kind = GOOD if folder == "Normal" else kinds.get(name, "anomaly")
        mask = root / "Data" / "Masks" / folder / f"{path.stem}.png"
        has_mask = kind != GOOD and mask.is_file()
        # The masks number the types of defect, 1, 2, …, on a background of 0.
        samples.append(Sample(name, kind, "", mask=relative(mask, root) if has_mask else "", mask_above=0))
    listing = next((p for p in _split_files(root) if p.is_file()), None)
    if split == "random" or listing is None:
        return Found(samples, good=HALF_AND_QUARTERS, anomalous=HALVES)
    given = _given(root, listing)
    for s in samples:
        if s.path not in given:
            raise InputError(
                f"{listing}: does not list {root.name}/{s.path}; expected every image of the object"
            )
    dealt = [Sample(s.path, s.kind, given[s.path], s.mask, s.group, s.mask_above) for s in samples]
    return Found(dealt, good=HALVES, anomalous=HALVES)


def _split_files(root: Path) -> list[Path]:
    return [folder / "split_csv" / "1cls.csv" for folder in (root, root.resolve().parent)]


def _types(root: Path) -> dict[str, str]:
    """Type of defect by image, from `image_anno.csv`; empty without it."""
    listing = root / "image_anno.csv"
    if not listing.is_file():
        return {}
    found = {}
    for row in _rows(listing, {"image", "label"}):
        types = [t.strip() for t in row["label"].split(",") if t.strip()]
        found[_inside(row["image"])] = types[0] if len(types) == 1 else _SEVERAL
    return found


def _given(root: Path, listing: Path) -> dict[str, str]:
    """`train`, or "" for the test part, by image."""
    name = root.resolve().name
    found: dict[str, str] = {}
    for row in _rows(listing, {"object", "split", "image"}):
        if row["object"] != name:
            continue
        if row["split"] not in ("train", "test"):
            raise InputError(f"{listing}: {row['image']}: expected split train or test, got {row['split']!r}")
        found[_inside(row["image"])] = "train" if row["split"] == "train" else ""
    if not found:
        raise InputError(f"{listing}: lists no image of {name}; expected the folder to be called as there")
    return found


def _rows(listing: Path, needed: set[str]) -> list[dict[str, str]]:
    try:
        with listing.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if lacking := sorted(needed - set(reader.fieldnames or ())):
                raise InputError(
                    f"{listing}: lacks the column {lacking[0]}; expected {', '.join(sorted(needed))}"
                )
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{listing}: is not a CSV table: {error}") from error


def _inside(path: str) -> str:
    """`candle/Data/Images/…` as a path below the object's folder."""
    parts = Path(path).parts
    return Path(*parts[parts.index("Data") :]).as_posix() if "Data" in parts else path
