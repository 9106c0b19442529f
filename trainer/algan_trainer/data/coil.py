"""`coil100`, `coil20`: Columbia Object Image Library, `objN__A.png` for object N at angle A.

A tenth of the objects, chosen by the seed, is normal, 10 of COIL-100 as in the paper (section 4.2), 2 of
COIL-20: 60 % of their images are trained on, 20 % are for validation and 20 % for testing. All other objects
are anomalous, each named as its type: half for validation, half for testing. Every object's views lie on all
sides; that is the protocol, so there is no group of images to keep together.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

import numpy as np

from algan_stream.errors import InputError
from algan_stream.images import IMAGE_SUFFIXES
from algan_trainer.data.dataset import GOOD, Sample
from algan_trainer.data.found import HALVES, Found

_NAME = re.compile(r"(obj\d+)__\d+\.png")
_SHARES = MappingProxyType({"train": 0.6, "validation": 0.2, "test": 0.2})


def recognises(root: Path) -> bool:
    """Whether all images in the folder are called `objN__A.png`, of two objects or more."""
    images = [p.name for p in root.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES] if root.is_dir() else []
    return len(objects_in(root)) > 1 and all(_NAME.fullmatch(name) for name in images)


def objects_in(root: Path) -> dict[str, list[str]]:
    """File names by object, both in order; empty where there are none."""
    found: dict[str, list[str]] = {}
    for path in root.iterdir() if root.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[1], []).append(path.name)
    order = sorted(found, key=lambda name: int(name.removeprefix("obj")))
    return {name: sorted(found[name], key=_angle) for name in order}


def find(root: Path, rng: np.random.Generator) -> Found:
    """Lists all images and chooses the normal objects.

    Raises:
        InputError: There are fewer than two objects.
    """
    objects = objects_in(root)
    if len(objects) < 2:
        raise InputError(f"{root}: expected COIL images objN__A.png of 2 objects or more, got {len(objects)}")
    names = list(objects)
    count = max(1, round(len(names) / 10))
    normal = [names[i] for i in sorted(rng.permutation(len(names))[:count])]
    samples = [Sample(file, GOOD if name in normal else name, "") for name in names for file in objects[name]]
    note = f"normal objects: {', '.join(normal)} ({count} of {len(names)}, chosen by the seed)"
    return Found(samples, good=_SHARES, anomalous=HALVES, notes=(note,))


def _angle(name: str) -> int:
    return int(name.partition("__")[2].removesuffix(".png"))
