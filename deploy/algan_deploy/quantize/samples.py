"""What an int8 graph is made and judged on: ready inputs, preprocessed as in the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle, Golden
from algan_stream.errors import InputError
from algan_stream.images import list_images, read_image
from algan_stream.preprocess import preprocess
from algan_stream.tables import list_tables, read_table, require_finite, require_fit
from algan_stream.types import VectorSpec

Floats = npt.NDArray[np.float32]

#: Name of the subfolder of labelled data that holds good ones.
GOOD = "good"
#: Fewer good ones say too little of how far activations reach.
LEAST_GOOD = 16


@dataclass(frozen=True, eq=False)
class Samples:
    """Network inputs, (n, *shape) float32 each; on disk, not in memory.

    Attributes:
        good: For calibration, and to compare scores.
        golden: Of the bundle.
        labelled_good: Good ones of the labelled data; None without any.
        labelled_bad: Defective ones; None likewise.
    """

    good: Floats
    golden: Golden
    labelled_good: Floats | None = None
    labelled_bad: Floats | None = None


def read_samples(bundle: Bundle, good: Path, labelled: Path | None, scratch: Path) -> Samples:
    """Preprocesses everything once.

    Args:
        bundle: Says how inputs are made.
        good: Folder of good images, or a table or folder of tables of good vectors.
        labelled: Folder with a subfolder `good` and others with defects; or None.
        scratch: Folder for the inputs, which may be larger than the memory.

    Raises:
        InputError: Too few good ones, no such subfolders, or something that cannot be read.
    """
    calibration = _inputs(bundle, [good], scratch / "calibration")
    if len(calibration) < LEAST_GOOD:
        raise InputError(f"{good}: expected at least {LEAST_GOOD} good ones, got {len(calibration)}")
    if labelled is None:
        return Samples(calibration, bundle.golden())
    return Samples(calibration, bundle.golden(), *labelled_inputs(bundle, labelled, scratch))


def labelled_inputs(bundle: Bundle, folder: Path, scratch: Path) -> tuple[Floats, Floats]:
    """Preprocesses labelled data: inputs of good ones, and of defective ones.

    Raises:
        InputError: There are no such subfolders, or something cannot be read.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    defects = [path for path in folders if path.name != GOOD]
    if len(defects) == len(folders) or not defects:
        found = ", ".join(path.name for path in folders) or "none"
        raise InputError(
            f"{folder}: expected a subfolder `{GOOD}` and at least one of defects, got {found}; "
            "leave --labelled out if there are no labels"
        )
    return _inputs(bundle, [folder / GOOD], scratch / "good"), _inputs(bundle, defects, scratch / "bad")


def _inputs(bundle: Bundle, places: list[Path], target: Path) -> Floats:
    spec = bundle.manifest.spec
    if isinstance(spec, VectorSpec):
        tables = [read_table(file) for place in places for file in list_tables(place)]
        for table in tables:
            require_fit(table, spec)
            require_finite(table)
        return np.concatenate([table.values for table in tables])
    files = [file for place in places for file in list_images(place)]
    inputs = np.memmap(target, np.float32, "w+", shape=(len(files), *spec.shape))
    for row, image in enumerate(_preprocessed(bundle, files)):
        inputs[row] = image
    return inputs


def _preprocessed(bundle: Bundle, files: list[Path]) -> Iterator[Floats]:
    spec = bundle.manifest.image_spec
    for file in files:
        image, pixel_format = read_image(file, spec.white_level)
        yield preprocess(image, spec, pixel_format=pixel_format)[0]
