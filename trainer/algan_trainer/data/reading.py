"""From a folder, or a manifest, to a dataset: lists it, deals it out, checks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from algan_stream.errors import InputError
from algan_trainer.data import folder, layouts, manifest
from algan_trainer.data.dataset import Dataset, Sample
from algan_trainer.data.dealing import deal, hold_out
from algan_trainer.data.groups import refuse_torn, units_of
from algan_trainer.data.layouts import SplitBy

#: Below so many training images a note warns.
FEW_IMAGES = 20
#: Layouts whose own split a random one may replace, and those that are dealt out at random anyway.
_RANDOM = ("mtd", "visa", "manifest", "folder", "coil100", "coil20")


def data_root(data: Path) -> Path:
    """What the samples' paths are relative to: the folder itself, or the manifest's."""
    return data.parent if manifest.is_manifest(data) else data


def read_dataset(
    root: Path,
    seed: int,
    calibration_fraction: float,
    layout: str = "auto",
    split: SplitBy = "given",
    *,
    group_aware: bool = False,
) -> Dataset:
    """Lists and splits a folder for training; the same seed gives the same split.

    Byte-for-byte copies of one image stay on one side whatever the options are: they are dealt out together,
    and refused where the data's own split tears them apart.

    Args:
        root: Folder, or manifest.
        seed: Of everything that is dealt out at random.
        calibration_fraction: Share of the good training images held out for calibration where the data has
            no other good images for it.
        layout: One of `LAYOUTS`; `auto` tells it by what the folder holds.
        split: `given`: the data's own split where it has one; `random`: never mind it.
        group_aware: Keep images of the same part on one side, too.

    Raises:
        InputError: The data is missing or empty, mixes good and bad, contradicts itself, has too few good
            images, or a split that leaks.
    """
    rng = np.random.default_rng(seed)
    name = layouts.choose(root, layout)
    if split == "random" and name not in _RANDOM:
        raise InputError(
            f"{root}: layout {name} has its split in its folders; a random one (--split random) is for "
            f"{', '.join(_RANDOM)}"
        )
    found = layouts.find(root, name, split, rng)
    base = data_root(root)
    if group_aware and not any(s.group for s in found.samples):
        raise InputError(
            f"{root}: --group-aware needs to know which images show the same part, and layout {name} does "
            "not say; list the images in a manifest with a column `group`"
        )
    units = units_of(base, found.samples, group_aware=group_aware)
    dealt = deal(found, units, rng)
    dataset = Dataset(base, name, _with_split(found.samples, dealt), found.notes)
    if not dataset.calibration:
        train = [left for unit in units if (left := [s for s in unit if dealt[s.path] == "train"])]
        dealt |= dict.fromkeys(hold_out(train, calibration_fraction, rng), "calibration")
        dataset = replace(dataset, samples=_with_split(found.samples, dealt))
    refuse_torn(base, units, dealt)
    check(dataset)
    return replace(dataset, notes=dataset.notes + _warnings(dataset))


def list_labelled(root: Path, layout: str = "auto", seed: int = 0) -> list[Sample]:
    """Lists a folder for evaluation, without splitting it; `split` is set only where the folder says so.

    Besides the layouts: a folder with `good` beside other folders, one for each type of defect.

    Args:
        root: Folder, or manifest; paths are relative to `data_root(root)`.
        layout: As for `read_dataset`.
        seed: That of the training; it decides which objects of COIL are normal.

    Raises:
        InputError: The data is missing or empty, or not as its layout has it.
    """
    name = layouts.choose(root, layout)
    if name == "folder":
        return folder.label(root).samples
    return layouts.find(root, name, "given", np.random.default_rng(seed)).samples


def check(dataset: Dataset) -> None:
    """Checks that there is something to train on and to calibrate with, all of it good.

    Raises:
        InputError: There is not.
    """
    train = dataset.of("train")
    for split, purpose in (("train", "training"), ("calibration", "calibration")):
        if bad := [s.path for s in dataset.of(split) if s.anomalous]:
            raise InputError(f"{dataset.root}: {bad[0]} is defective but listed for {purpose}")
    if not train or not dataset.calibration:
        good = sum(not s.anomalous for s in dataset.samples)
        raise InputError(
            f"{dataset.root}: expected at least 2 good images, one to train on and one to calibrate with, "
            f"that are no copies of each other, got {good} ({len(train)} for training)"
        )


def _with_split(samples: list[Sample], dealt: dict[str, str]) -> tuple[Sample, ...]:
    return tuple(replace(s, split=dealt[s.path]) for s in samples)


def _warnings(dataset: Dataset) -> tuple[str, ...]:
    notes = []
    sides: dict[str, set[str]] = {}
    for sample in dataset.samples:
        if sample.group:
            sides.setdefault(sample.group, set()).add(sample.split)
    if torn := sum(len(splits) > 1 for splits in sides.values()):
        notes.append(
            f"{torn} of {len(sides)} parts have images on two sides of the split, so held-out images are not "
            "new to the model; --group-aware keeps each part on one side"
        )
    count = len(dataset.of("train"))
    if count < FEW_IMAGES:
        notes.append(
            f"only {count} training images: expect a poor model, and check it on good and on defective parts "
            f"before it decides anything; {FEW_IMAGES} are few, 200 or more are usual"
        )
    return tuple(notes)
