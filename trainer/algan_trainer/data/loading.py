"""From files to the networks' input, on several threads: decoding and `_core` release the GIL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from algan_stream.errors import ImageError, InputError
from algan_stream.images import read_image, read_pixels
from algan_stream.preprocess import preprocess_into
from algan_stream.types import FULL_RANGE, InputSpec
from algan_trainer.data.dataset import Dataset, Sample
from algan_trainer.data.reading import check

#: Bad files named in one error message.
_MOST_NAMED = 10
#: Widest and narrowest shape (width / height) may differ by this factor without a note.
_ASPECT_FACTOR = 1.5
#: 16-bit images that stay below this share of the range were taken by a camera of fewer bits.
_DARK = 0.25

T = TypeVar("T")
R = TypeVar("R")


def load_inputs(
    root: Path, paths: Sequence[str], spec: InputSpec, threads: int = 1
) -> npt.NDArray[np.float32]:
    """Decodes and preprocesses images, (N, C, height_px, width_px).

    Args:
        root: What the paths are relative to.
        paths: Image files, one for each slot.
        spec: Size and normalisation.
        threads: At most so many at once; the result does not depend on it.

    Raises:
        ImageError: Files cannot be decoded; the message names them.
    """
    out = np.empty((len(paths), *spec.shape_chw), np.float32)

    def load(slot: int) -> str:
        try:
            image, pixel_format = read_image(root / paths[slot], spec.white_level)
        except ImageError as error:
            return str(error)
        preprocess_into(out, image, spec, pixel_format=pixel_format, first_slot=slot)
        return ""

    if bad := [reason for reason in _on_threads(load, range(len(paths)), threads) if reason]:
        raise ImageError(_listed(bad))
    return out


@dataclass(frozen=True)
class _Seen:
    """What decoding a file told: why it cannot be, its shape, its brightest value if of 16 bits."""

    reason: str = ""
    aspect: float = 1.0
    brightest: int | None = None


def examine(
    dataset: Dataset, *, threads: int = 1, skip_bad: bool = False, white_level: int | None = None
) -> Dataset:
    """Decodes every image of a dataset once, before hours are spent on some of them.

    Args:
        dataset: As from `read_dataset`.
        threads: At most so many at once.
        skip_bad: Leave files that cannot be decoded out, and count them, instead of refusing.
        white_level: Value of white in 16-bit files; None: the full range, unless no image makes use of it.

    Returns:
        The dataset without what was skipped, and with notes on what was seen.

    Raises:
        ImageError: Files cannot be decoded; the message names up to 10.
        InputError: Too few images are left, or 16-bit images are so dark that they would turn out black.
    """

    def look(sample: Sample) -> _Seen:
        try:
            pixels, _ = read_pixels(dataset.root / sample.path)
        except ImageError as error:
            return _Seen(reason=str(error))
        brightest = int(pixels.max()) if pixels.dtype == np.uint16 else None
        if brightest is not None and brightest > (white_level or FULL_RANGE):
            return _Seen(
                reason=f"{dataset.root / sample.path}: holds the value {brightest}, above the white level "
                f"{white_level}; set data.white_level to the camera's largest value"
            )
        return _Seen(aspect=pixels.shape[1] / pixels.shape[0], brightest=brightest)

    seen = _on_threads(look, dataset.samples, threads)
    bad = {s.path: view.reason for s, view in zip(dataset.samples, seen, strict=True) if view.reason}
    if bad and not skip_bad:
        raise ImageError(f"{_listed(list(bad.values()))}\nmend or remove them, or add --skip-bad")
    usable = [view for view in seen if not view.reason]
    _refuse_dark(dataset.root, [v.brightest for v in usable if v.brightest is not None], white_level)
    if bad:
        kept = tuple(s for s in dataset.samples if s.path not in bad)
        note = f"{len(bad)} of {len(seen)} images skipped (--skip-bad):\n{_listed(list(bad.values()))}"
        dataset = replace(
            dataset,
            samples=kept,
            notes=(*dataset.notes, note),
            # Without the folder: bundles travel, and do not tell of the machine that trained them.
            skipped=tuple((path, why.replace(f"{dataset.root}/", "")) for path, why in sorted(bad.items())),
        )
        check(dataset)
    return replace(dataset, notes=dataset.notes + _aspects([view.aspect for view in usable]))


def file_hashes(root: Path, samples: Iterable[Sample]) -> dict[str, str]:
    """SHA-256 of every sample's file, in hex, by its path."""
    return {s.path: hashlib.sha256((root / s.path).read_bytes()).hexdigest() for s in samples}


def data_hash(dataset: Dataset, hashes: dict[str, str]) -> str:
    """SHA-256 over split, path and file hash of every sample, sorted by path."""
    lines = [
        f"{s.split}\t{s.path}\t{hashes[s.path]}\n" for s in sorted(dataset.samples, key=lambda s: s.path)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _on_threads(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Results in the order of the items."""
    if threads <= 1 or len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items)), "load-images") as pool:
        return list(pool.map(work, items))


def _listed(reasons: list[str]) -> str:
    more = f"\n… and {len(reasons) - _MOST_NAMED} more" if len(reasons) > _MOST_NAMED else ""
    return "\n".join(reasons[:_MOST_NAMED]) + more


def _refuse_dark(root: Path, brightest: list[int], white_level: int | None) -> None:
    """A 12-bit camera's values fill a sixteenth of 16 bits: 16 shades of black would be left of them."""
    if white_level is None and brightest and max(brightest) < _DARK * FULL_RANGE:
        raise InputError(
            f"{root}: the brightest value in {len(brightest)} 16-bit images is {max(brightest)} of "
            f"{FULL_RANGE}; set data.white_level to the camera's largest value (4095 for 12 bits), or to "
            f"{FULL_RANGE} if they shall be that dark"
        )


def _aspects(aspects: list[float]) -> tuple[str, ...]:
    low, high = min(aspects), max(aspects)
    if high <= _ASPECT_FACTOR * low:
        return ()
    return (
        f"the images differ in shape, width : height from {low:.2f} to {high:.2f}; each is stretched to the "
        "network's input, so the same part looks different from image to image: crop them alike if you can",
    )
