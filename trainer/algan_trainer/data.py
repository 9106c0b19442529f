"""Folders of images → samples with a split, and samples → the networks' input. No torch here.

Three layouts are known, told apart by what the folder holds:

* `mtd`: Magnetic Tile Defects, `MT_*/Imgs/*.jpg`, where `MT_Free` is good; split by `splits.json` if there is
  one, else at random 50/25/25 for good and 50/50 for defective images (paper, section 4.2);
* `mvtec`: `train/good` and `test/TYPE`; half of the test images are for validation (paper, section 4.2);
* `folder`: good images only, anywhere below it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import ImageError, InputError
from algan_stream.images import list_images, read_image
from algan_stream.preprocess import preprocess_into
from algan_stream.types import InputSpec

GOOD = "good"
SPLITS = ("train", "calibration", "validation", "test")
#: Bad files named in one error message.
_MOST_NAMED = 10


@dataclass(frozen=True)
class Sample:
    """One image file.

    Attributes:
        path: Relative to the data's root, with `/`.
        kind: `good`, or the type of defect.
        split: One of `SPLITS`, or "" where it has none.
    """

    path: str
    kind: str
    split: str

    @property
    def anomalous(self) -> bool:
        """Whether it shows a defect."""
        return self.kind != GOOD


@dataclass(frozen=True)
class Dataset:
    """Samples that never share a file between splits; only good ones are trained on."""

    root: Path
    layout: str
    samples: tuple[Sample, ...]

    def of(self, split: str) -> list[Sample]:
        """Samples of one split."""
        return [s for s in self.samples if s.split == split]

    @property
    def calibration(self) -> list[Sample]:
        """Good images that were not trained on: the part held out for it, else validation's."""
        return self.of("calibration") or [s for s in self.of("validation") if not s.anomalous]

    @property
    def validation(self) -> list[Sample]:
        """What a checkpoint is judged by: validation's images, else the calibration images."""
        return self.of("validation") or self.of("calibration")


def layout_of(root: Path) -> str:
    """Tells `mtd`, `mvtec` or `folder` by what the folder holds."""
    if (root / "splits.json").is_file() or (root / "MT_Free").is_dir():
        return "mtd"
    return "mvtec" if (root / "train" / GOOD).is_dir() else "folder"


def read_dataset(root: Path, seed: int, calibration_fraction: float) -> Dataset:
    """Lists and splits a folder for training; the same seed gives the same split.

    Raises:
        InputError: The folder is missing or empty, mixes good and bad, or has too few good images.
    """
    rng = np.random.default_rng(seed)
    layout = layout_of(root)
    if layout == "mtd":
        samples = _mtd(root, rng)
    elif layout == "mvtec":
        samples = _mvtec(root, rng)
    else:
        _refuse_unlabelled_mixture(root)
        samples = [Sample(_relative(p, root), GOOD, "train") for p in list_images(root)]
    dataset = Dataset(root, layout, tuple(samples))
    if not dataset.calibration:
        dataset = Dataset(root, layout, tuple(_hold_out(samples, calibration_fraction, rng)))
    _check(dataset)
    return dataset


def list_labelled(root: Path) -> list[Sample]:
    """Lists a folder for evaluation, without splitting it; `split` is set only where the folder says so.

    Besides the three layouts: a folder with `good` beside other folders, one for each type of defect.

    Raises:
        InputError: The folder is missing or empty.
    """
    layout = layout_of(root)
    if layout == "mtd":
        listing = root / "splits.json"
        return _listed(root, listing) if listing.is_file() else _mtd_images(root)
    if layout == "mvtec":
        good = [Sample(_relative(p, root), GOOD, "train") for p in list_images(root / "train" / GOOD)]
        return good + [Sample(s.path, s.kind, "") for s in _by_folder(root, root / "test")]
    return (
        _by_folder(root, root)
        if (root / GOOD).is_dir()
        else [Sample(_relative(p, root), GOOD, "") for p in list_images(root)]
    )


def load_inputs(root: Path, paths: Sequence[str], spec: InputSpec) -> npt.NDArray[np.float32]:
    """Decodes and preprocesses images, (N, C, height_px, width_px).

    Raises:
        ImageError: Files cannot be decoded; the message names them.
    """
    out = np.empty((len(paths), *spec.shape_chw), np.float32)
    bad: list[str] = []
    for slot, path in enumerate(paths):
        try:
            image, pixel_format = read_image(root / path)
        except ImageError as error:
            bad.append(str(error))
            continue
        preprocess_into(out, image, spec, pixel_format=pixel_format, first_slot=slot)
    if bad:
        more = f"\n… and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
        raise ImageError("\n".join(bad[:_MOST_NAMED]) + more)
    return out


def file_hashes(root: Path, samples: Iterable[Sample]) -> dict[str, str]:
    """SHA-256 of every sample's file, in hex, by its path."""
    return {s.path: hashlib.sha256((root / s.path).read_bytes()).hexdigest() for s in samples}


def data_hash(dataset: Dataset, hashes: dict[str, str]) -> str:
    """SHA-256 over split, path and file hash of every sample, sorted by path."""
    lines = [
        f"{s.split}\t{s.path}\t{hashes[s.path]}\n" for s in sorted(dataset.samples, key=lambda s: s.path)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _mtd(root: Path, rng: np.random.Generator) -> list[Sample]:
    listing = root / "splits.json"
    if listing.is_file():
        return _listed(root, listing)
    found = _mtd_images(root)
    good, bad = [s for s in found if not s.anomalous], [s for s in found if s.anomalous]
    parts = _random_parts(good, {"train": 0.5, "validation": 0.25, "test": 0.25}, rng)
    return parts + _random_parts(bad, {"validation": 0.5, "test": 0.5}, rng)


def _mtd_images(root: Path) -> list[Sample]:
    # The masks lie beside the images, with the same name and another suffix.
    paths = [_relative(p, root) for p in sorted(root.glob("MT_*/Imgs/*.jpg"))]
    return [Sample(path, _mtd_kind(path), "") for path in paths]


def _listed(root: Path, listing: Path) -> list[Sample]:
    try:
        parts = json.loads(listing.read_text("utf-8"))
        samples = [Sample(str(path), _mtd_kind(path), split) for split in parts for path in parts[split]]
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{listing}: expected lists of paths under {', '.join(SPLITS)}: {error}") from error
    if unknown := sorted(parts.keys() - set(SPLITS)):
        raise InputError(f"{listing}: {unknown[0]}: unknown split; expected {', '.join(SPLITS)}")
    paths = [s.path for s in samples]
    if twice := sorted({p for p in paths if paths.count(p) > 1}) if len(set(paths)) < len(paths) else []:
        raise InputError(f"{listing}: {twice[0]} is listed more than once; splits must not overlap")
    for path in paths:
        if path.startswith("/") or ".." in Path(path).parts or not (root / path).is_file():
            raise InputError(f"{listing}: {path}: no such file below {root}")
    return samples


def _mtd_kind(path: str) -> str:
    folder = Path(path).parts[0]
    return GOOD if folder in ("MT_Free", GOOD) else folder


def _mvtec(root: Path, rng: np.random.Generator) -> list[Sample]:
    samples = [Sample(_relative(p, root), GOOD, "train") for p in list_images(root / "train" / GOOD)]
    if not (root / "test").is_dir():
        return samples
    test = _by_folder(root, root / "test")
    for kind in sorted({s.kind for s in test}):  # halved type by type, so that both halves have every one
        of_kind = [s for s in test if s.kind == kind]
        samples += _random_parts(of_kind, {"validation": 0.5, "test": 0.5}, rng)
    return samples


def _by_folder(root: Path, parent: Path) -> list[Sample]:
    return [Sample(_relative(p, root), p.relative_to(parent).parts[0], "") for p in list_images(parent)]


def _random_parts(samples: list[Sample], shares: dict[str, float], rng: np.random.Generator) -> list[Sample]:
    """Deals samples out at random; the last part takes the rest."""
    ends = np.floor(np.cumsum(list(shares.values())) * len(samples) + 1e-9).astype(int)
    splits = np.repeat(list(shares), np.diff(ends, prepend=0)).tolist()
    splits += [list(shares)[-1]] * (len(samples) - len(splits))
    shuffled = [samples[i] for i in rng.permutation(len(samples))]
    return [Sample(s.path, s.kind, split) for s, split in zip(shuffled, splits, strict=True)]


def _hold_out(samples: list[Sample], fraction: float, rng: np.random.Generator) -> list[Sample]:
    train = [s for s in samples if s.split == "train"]
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    held = {train[i].path for i in rng.permutation(len(train))[:count]}
    return [Sample(s.path, s.kind, "calibration") if s.path in held else s for s in samples]


def _refuse_unlabelled_mixture(root: Path) -> None:
    """A `good` folder beside others would otherwise be trained on together with the defects."""
    others = (
        [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name != GOOD] if root.is_dir() else []
    )
    if (root / GOOD).is_dir() and others:
        raise InputError(
            f"{root}: holds `{GOOD}` beside {', '.join(others[:3])}; training takes good images only: name "
            f"{root / GOOD}, or arrange the images as train/{GOOD} and test/TYPE"
        )


def _check(dataset: Dataset) -> None:
    train = dataset.of("train")
    if bad := [s.path for s in train if s.anomalous]:
        raise InputError(f"{dataset.root}: {bad[0]} is defective but listed for training")
    if not train or not dataset.calibration:
        good = sum(not s.anomalous for s in dataset.samples)
        raise InputError(
            f"{dataset.root}: expected at least 2 good images, one to train on and one to calibrate with, "
            f"got {good} ({len(train)} for training)"
        )


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
