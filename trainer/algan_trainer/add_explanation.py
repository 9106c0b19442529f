"""Gives a bundle that was exported without one its explanation graph; the model and its verdicts stay."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from algan_stream.bundle import EXPLAIN, MANIFEST, Bundle, write_bundle
from algan_stream.errors import InputError
from algan_trainer.data import data_root, file_hashes, list_labelled, load_inputs
from algan_trainer.report import HASH_DIGITS, SPLIT, read_split
from algan_trainer.saliency import DEFAULT, Recipe, write_explanation

#: Where the bundle's split is not known, one good image in so many sets the level; the others are described.
_HELD_OUT_ONE_IN = 5


def add_explanation(bundle: Bundle, data: Path, recipe: Recipe = DEFAULT) -> Bundle:
    """Writes an explanation graph into a bundle; one that it has is replaced.

    Args:
        bundle: For images.
        data: Images in any layout; only good ones are used. Those that the model was trained on say what is
            normal, those that calibrated it set the level; its test images are left alone.
        recipe: How the maps are made.

    Raises:
        InputError: There are no good images of both sorts.
        SaliencyError: The model is not one that can be explained, or the graph is not what PyTorch computes.
        BundleError: The bundle is one for vectors, or cannot be written; it then stands as before.
    """
    spec, root = bundle.manifest.image_spec, data_root(data)
    described, level = _shares(bundle, data)
    if not (described and level):
        raise InputError(
            f"{data}: expected good images, of which some describe what is normal and others set the level, "
            f"got {len(described)} and {len(level)}"
        )
    target = bundle.path.resolve()
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}-new-", dir=target.parent))
    try:
        shutil.copytree(target, staged, dirs_exist_ok=True)
        (staged / MANIFEST).unlink()
        good, heldout = (load_inputs(root, paths, spec) for paths in (described, level))
        write_explanation(bundle.model_path, good, heldout, staged / EXPLAIN, recipe)
        staged.chmod(0o755)
        return write_bundle(target, staged, bundle.manifest)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _shares(bundle: Bundle, data: Path) -> tuple[list[str], list[str]]:
    """Paths of the good images that say what is normal, and of those that set the level."""
    samples = [s for s in list_labelled(data) if not s.anomalous]
    known: dict[str, set[str]] = {}
    for row in read_split(bundle.path / "report" / SPLIT):
        known.setdefault(row["sha256"][:HASH_DIGITS], set()).add(row["split"])
    hashes = file_hashes(data_root(data), samples)
    splits = {s.path: known.get(hashes[s.path][:HASH_DIGITS], set()) for s in samples}
    trained = [path for path, of in splits.items() if "train" in of]
    others = [path for path, of in splits.items() if of & {"calibration", "validation"} and "train" not in of]
    if trained and others:
        return trained, others
    paths = sorted(splits)
    held_out = paths[_HELD_OUT_ONE_IN - 1 :: _HELD_OUT_ONE_IN]
    return [path for path in paths if path not in set(held_out)], held_out
