"""`mvtec`: MVTec AD and what is arranged like it, MVTec LOCO AD and MVTec 3D-AD (its RGB images) among them.

    train/good/*.png                 test/TYPE/*.png, test/good/*.png
    validation/good/*.png            (LOCO, 3D)
    ground_truth/TYPE/NAME_mask.png  (AD), NAME.png, or a folder NAME/ of masks (LOCO)
    train/good/rgb/*.png             test/TYPE/rgb/*.png, test/TYPE/gt/*.png (3D)

Half of the test images, type by type, are for validation (paper, section 4.2). Good images under
`validation` are for calibration; if defective ones lie there too, it is the validation part as it stands, and
`test` stays whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from algan_stream.errors import InputError
from algan_stream.images import IMAGE_SUFFIXES
from algan_trainer.data.dataset import GOOD, Sample
from algan_trainer.data.found import HALVES, Found, relative


def recognises(root: Path) -> bool:
    """Whether `train/good` is there."""
    return (root / "train" / GOOD).is_dir()


def find(root: Path) -> Found:
    """Lists the three parts; test images have no split yet, unless validation has defective images.

    Raises:
        InputError: `train` holds anything but good images, or an image's type is unknown.
    """
    notes: list[str] = []
    train = _part(root, "train", notes)
    if bad := sorted({s.kind for s in train if s.anomalous}):
        raise InputError(
            f"{root / 'train'}: holds {', '.join(bad[:3])} beside `{GOOD}`; training takes good images only: "
            "move the others to test/TYPE"
        )
    validation, test = _part(root, "validation", notes), _part(root, "test", notes)
    whole = any(s.anomalous for s in validation)
    samples = [replace(s, split="train") for s in train]
    samples += [replace(s, split="validation" if whole else "calibration") for s in validation]
    samples += [replace(s, split="test" if whole else "") for s in test]
    return Found(samples, good=HALVES, anomalous=HALVES, by_kind=True, notes=tuple(notes))


def _part(root: Path, part: str, notes: list[str]) -> list[Sample]:
    parent = root / part
    if not parent.is_dir():
        return []
    if loose := _images(parent):
        raise InputError(
            f"{loose[0]}: its kind is unknown; expected it in {part}/{GOOD} or, if defective, in test/TYPE"
        )
    samples: list[Sample] = []
    for folder in sorted(p for p in parent.iterdir() if p.is_dir()):
        inner = folder / "rgb" if (folder / "rgb").is_dir() else folder
        # Only MVTec 3D nests deeper, and its `xyz` and `gt` are no photographs.
        images = _images(inner) if inner is not folder else _images_below(folder)
        if not images:
            notes.append(f"{folder} holds no images")
        for path in images:
            mask = "" if folder.name == GOOD else _mask(root, path, folder)
            samples.append(Sample(relative(path, root), folder.name, "", mask=mask))
    return samples


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _images_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _mask(root: Path, image: Path, folder: Path) -> str:
    truth = root / "ground_truth" / folder.name
    candidates = [truth / f"{image.stem}_mask.png", truth / f"{image.stem}.png", truth / image.stem]
    if image.parent.name == "rgb":
        candidates.append(folder / "gt" / f"{image.stem}.png")
    return next((relative(c, root) for c in candidates if c.exists()), "")
