"""`folder`: good images only, anywhere below a folder."""

from __future__ import annotations

import re
from pathlib import Path

from algan_stream.errors import InputError
from algan_stream.images import list_images
from algan_trainer.data.dataset import GOOD, Sample
from algan_trainer.data.found import Found, relative

#: Folder names that say: what lies here is not a good part. Whole words, so that `undamaged` is none.
_DEFECTIVE = re.compile(
    r"(^|[^a-z])(bad|defects?|defective|anomal(y|ies|ous)|abnormal|ng|nok|not[ _-]?(ok|good)|"
    r"rejects?|rejected|fail(s|ed|ures?)?|faulty|broken|damaged|scrap)($|[^a-z])"
)
#: Folder names of other layouts; below a folder of good images they are a dataset that was misread.
_FOREIGN = frozenset({"test", "ground_truth", "masks", "mask", "xyz"})


def find(root: Path) -> Found:
    """Lists good images.

    Raises:
        InputError: The folder is missing or empty, or a subfolder's name says: not good.
    """
    images = list_images(root)
    _refuse_mixture(root)
    folders = {part: p for p in images for part in p.relative_to(root).parts[:-1]}
    for name, example in folders.items():
        if _DEFECTIVE.search(name.lower()) or name.lower() in _FOREIGN:
            raise InputError(
                f"{example}: lies in a folder `{name}`, but training takes good images "
                f"only: name the folder that holds just these, arrange the images as train/{GOOD} and "
                "test/TYPE, or list them in a manifest"
            )
    return Found([Sample(relative(p, root), GOOD, "") for p in images])


def label(root: Path) -> Found:
    """Lists images for evaluation: `good` beside folders named after defects, or good images only.

    Raises:
        InputError: The folder is missing or empty, or an image beside `good` belongs to no folder.
    """
    if (root / GOOD).is_dir():
        return Found(by_folder(root, root))
    return Found([Sample(relative(p, root), GOOD, "") for p in list_images(root)])


def by_folder(root: Path, parent: Path) -> list[Sample]:
    """Images in subfolders of `parent`, each of the kind that its subfolder is called.

    Raises:
        InputError: There are none, or one lies in `parent` itself.
    """
    samples = []
    for path in list_images(parent):
        inside = path.relative_to(parent).parts
        if len(inside) == 1:
            raise InputError(
                f"{path}: its kind is unknown; expected it in a folder `{GOOD}` or named after its defect"
            )
        samples.append(Sample(relative(path, root), inside[0], ""))
    return samples


def _refuse_mixture(root: Path) -> None:
    """A `good` folder beside others would otherwise be trained on together with the defects."""
    others = [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name != GOOD]
    if (root / GOOD).is_dir() and others:
        raise InputError(
            f"{root}: holds `{GOOD}` beside {', '.join(others[:3])}; training takes good images only: name "
            f"{root / GOOD}, or arrange the images as train/{GOOD} and test/TYPE"
        )
