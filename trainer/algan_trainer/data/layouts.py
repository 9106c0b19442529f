"""The layouts: how each is told apart, and what it lists.

A new one is a file with a `find`, an entry in `_FINDERS`, and where it can be told by what a folder holds, a
line in `layout_of`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from algan_stream.errors import InputError
from algan_trainer.data import coil, folder, manifest, mtd, mvtec, visa
from algan_trainer.data.found import Found

Layout = Literal["folder", "mvtec", "visa", "mtd", "coil100", "coil20", "manifest"]
SplitBy = Literal["given", "random"]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
#: COIL-20 has as many objects; more are COIL-100.
_COIL20 = 20
#: Folder names that belong to some layout; where that layout's own mark is missing, guessing would mislead.
_TELLTALE = frozenset({"train", "test", "ground_truth", "split_csv"})

_FINDERS: dict[Layout, Callable[[Path, SplitBy, np.random.Generator], Found]] = {
    "folder": lambda root, split, rng: folder.find(root),
    "mvtec": lambda root, split, rng: mvtec.find(root),
    "visa": lambda root, split, rng: visa.find(root, split),
    "mtd": lambda root, split, rng: mtd.find(root, split),
    "coil100": lambda root, split, rng: coil.find(root, rng),
    "coil20": lambda root, split, rng: coil.find(root, rng),
    "manifest": lambda root, split, rng: manifest.find(root, split),
}


def choose(root: Path, wanted: str) -> Layout:
    """The layout that is asked for, or for `auto` the one that the data looks like.

    Raises:
        InputError: There is no such layout, or none can be told.
    """
    if wanted == "auto":
        return layout_of(root)
    for name in LAYOUTS:
        if name == wanted:
            return name
    raise InputError(f"unknown layout {wanted!r}; expected auto, {', '.join(LAYOUTS)}")


def layout_of(root: Path) -> Layout:
    """Tells the layout by what the folder holds, or the file is.

    Raises:
        InputError: It is no folder or manifest, or looks like a layout but lacks what makes it one.
    """
    if manifest.recognises(root):
        return "manifest"
    if not root.is_dir():
        if root.is_file():
            raise _unrecognised(root, "is a file, and no manifest")
        raise InputError(f"{root}: expected a folder of images, but there is no such folder")
    if mtd.recognises(root):
        return "mtd"
    if mvtec.recognises(root):
        return "mvtec"
    if visa.recognises(root):
        return "visa"
    if coil.recognises(root):
        return "coil20" if len(coil.objects_in(root)) <= _COIL20 else "coil100"
    if (root / manifest.NAME).is_file():
        manifest.find(root, "given")  # says what is wrong with it
    if several := [p.name for p in sorted(root.iterdir()) if mvtec.recognises(p) or visa.recognises(p)]:
        shown = ", ".join(several[:5]) + (", …" if len(several) > 5 else "")
        raise InputError(f"{root}: is no dataset itself but holds {len(several)}; name one: {shown}")
    if known := sorted(p.name for p in root.iterdir() if p.is_dir() and p.name in _TELLTALE):
        raise _unrecognised(root, f"holds `{known[0]}`, but no `train/good` with it")
    return "folder"


def find(root: Path, layout: Layout, split: SplitBy, rng: np.random.Generator) -> Found:
    """Lists a dataset's samples.

    Raises:
        InputError: The data is not as the layout has it.
    """
    if layout != "manifest" and not root.is_dir():
        raise InputError(f"{root}: expected a folder of images, but there is no such folder")
    return _FINDERS[layout](root, split, rng)


def _unrecognised(root: Path, why: str) -> InputError:
    return InputError(
        f"{root}: {why}; expected a layout of {', '.join(LAYOUTS)}: a folder of good images, train/good with "
        "test/TYPE, Data/Images/Normal and Anomaly, MT_Free/Imgs, objN__A.png, or a table `path,kind,split`; "
        "`--layout NAME` skips the guessing"
    )
