"""Features on disk: what a backbone takes minutes to compute is computed once for each image file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_trainer.feature_graph import Plan

Floats = npt.NDArray[np.float32]
#: Raised when the same plan gives other features than before.
GRAPH_VERSION = 1
_ARRAY = "features"


class FeatureCache:
    """One small file for each image and layer, keyed by all that decides what is in it.

    The files are `.npz` archives, whose own checksums tell a damaged one; it is then computed again.

    Args:
        folder: Made when something is stored.
        note: Told, in words, of damaged entries.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self.folder, self._note = folder, note

    def get(self, key: str, image_sha256: str, shape: tuple[int, int]) -> Floats | None:
        """(rotations, features) float32, or None where there is nothing, or nothing sound."""
        path = self._path(key, image_sha256)
        try:
            with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                features: Floats = archive[_ARRAY]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            self._note(f"{path}: damaged ({error}); computed again")
            return None
        if features.shape != shape or features.dtype != np.float32 or not np.isfinite(features).all():
            self._note(f"{path}: damaged (expected float32 {shape}, all finite); computed again")
            return None
        return features

    def put(self, key: str, image_sha256: str, features: Floats) -> None:
        """Stores (rotations, features), all at once: a crash leaves nothing or a sound file.

        Raises:
            InputError: The folder cannot be written.
        """
        path = self._path(key, image_sha256)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    np.savez(file, allow_pickle=False, **{_ARRAY: features})
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink()
                raise
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written: {error.strerror}; name another --feature-cache"
            ) from error

    def _path(self, key: str, image_sha256: str) -> Path:
        return self.folder / key / f"{image_sha256}.npz"


def cache_key(plan: Plan, layer: str, rotations: int) -> str:
    """Names the folder of one layer's features: the same for all that computes them alike."""
    spec = plan.spec
    decides = {
        "version": GRAPH_VERSION,
        "backbone": plan.backbone.sha256,
        "layer": layer,
        "pool": list(plan.pool),
        "resize_px": spec.height_px,
        "crop_px": plan.crop_px,
        "downscale": spec.downscale,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "white_level": spec.white_level,
        "rotations": rotations,
        "fill": plan.fill if rotations > 1 else None,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]
