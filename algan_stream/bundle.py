"""The model bundle: the product of training and the only thing that is deployed.

A directory of `manifest.json`, `discriminator.onnx`, `golden.npz`, `report/` and, to tell why, `explain.onnx`
where the kind of model allows it. The manifest holds every file's SHA-256; reading checks them all. No file
in it can carry code (no pickle anywhere). Beside them may lie `engines/`, a cache that no manifest lists.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.calibration import Calibration
from algan_stream.errors import BundleError
from algan_stream.manifest import (
    DEMO_NAME,
    FORMAT_VERSION,
    MANIFEST,
    FileEntry,
    Manifest,
    ModelKind,
    Quantization,
    check_file,
    file_entry,
    read_manifest,
    write_manifest,
    write_whole,
)
from algan_stream.types import VectorSpec

__all__ = [
    "DEMO_NAME",
    "EXPLAIN",
    "FORMAT_VERSION",
    "GOLDEN",
    "MANIFEST",
    "MODEL",
    "QUANTIZED",
    "Bundle",
    "FileEntry",
    "Golden",
    "Manifest",
    "ModelKind",
    "Quantization",
    "check_target",
    "read_bundle",
    "replace_calibration",
    "replace_quantized",
    "write_bundle",
]

MODEL, GOLDEN = "discriminator.onnx", "golden.npz"
#: The same graph quantised to int8 (QuantizeLinear / DequantizeLinear); not every bundle has one.
QUANTIZED = "discriminator.int8.onnx"
#: Folder of engines compiled from the graphs: a cache (engines/cache.py), no part of the bundle.
ENGINES = "engines"
#: The graph that explains a score; not every bundle has one.
EXPLAIN = "explain.onnx"
#: Key of `Manifest.tolerance` for it.
INT8 = "int8"


@dataclass(frozen=True)
class Golden:
    """Inputs and logits every engine must reproduce before it serves.

    Attributes:
        images_rgb: (N, H, W, 3) uint8, real images at the network's input size; None in a bundle for vectors.
        inputs: (N, C, H, W) float32, the same images as `preprocess` gave them at export; or (N, features)
            float32, real vectors.
        logits: (N,) float32, the trainer's fp32 answer.
    """

    images_rgb: npt.NDArray[np.uint8] | None
    inputs: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file has been checked against its manifest."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX graph: `input` (N, C, H, W) or (N, features) float32 → `logit` (N,) float32, N dynamic."""
        return self.path / MODEL

    def model_for(self, precision: str) -> Path:
        """The graph that an engine of a precision runs: the quantised one for `int8`.

        Raises:
            BundleError: There is none of that precision.
        """
        if precision != "int8":
            return self.model_path
        if QUANTIZED not in self.manifest.files:
            raise BundleError(
                f"{self.path}: has no {QUANTIZED}; make it by `algan-stream quantize {self.path} --good "
                "FOLDER`, or choose another precision"
            )
        return self.path / QUANTIZED

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the ONNX graph, in hex."""
        return self.manifest.files[MODEL].sha256

    def sha256_for(self, precision: str) -> str:
        """SHA-256 of `model_for(precision)`, in hex."""
        return self.manifest.files[self.model_for(precision).name].sha256

    @property
    def explain_path(self) -> Path | None:
        """The graph `input` (N, C, H, W) → `saliency` (N, H, W) and `logit` (N,), or None without one."""
        return self.path / EXPLAIN if EXPLAIN in self.manifest.files else None

    def golden(self) -> Golden:
        """Reads the golden inputs and logits.

        Raises:
            BundleError: The file does not hold what the manifest promises.
        """
        path = self.path / GOLDEN
        try:
            # The file object is ours: np.load leaves it open when the archive is broken.
            with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                images = None if isinstance(self.manifest.spec, VectorSpec) else archive["images_rgb"]
                golden = Golden(images, archive["inputs"], archive["logits"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BundleError(f"{path}: cannot be read: {error}; export the bundle again") from error
        count = golden.logits.size
        expected: list[tuple[str, npt.NDArray[Any], type, tuple[int, ...]]] = [
            ("logits", golden.logits, np.float32, (count,)),
            ("inputs", golden.inputs, np.float32, (count, *self.manifest.spec.shape)),
        ]
        if golden.images_rgb is not None:
            shape = (count, *golden.images_rgb.shape[1:3], 3)
            expected.append(("images_rgb", golden.images_rgb, np.uint8, shape))
        for name, array, dtype, shape in expected:
            if count == 0 or array.dtype != dtype or array.shape != shape:
                raise BundleError(
                    f"{path}: {name}: expected {np.dtype(dtype)} of shape {shape} with N ≥ 1, "
                    f"got {array.dtype} {array.shape}"
                )
        if not np.isfinite(golden.logits).all():
            raise BundleError(f"{path}: logits: expected finite numbers, got {golden.logits.tolist()}")
        return golden


def read_bundle(path: str | Path) -> Bundle:
    """Opens a bundle and checks every file in it.

    Args:
        path: Directory of the bundle, or `demo` for the one that ships with the package.

    Raises:
        BundleError: It is missing, incomplete, altered, or in a newer format.
    """
    directory = Path(__file__).parent / "demo" / "bundle" if str(path) == DEMO_NAME else Path(path)
    manifest = read_manifest(directory)
    for name, entry in manifest.files.items():
        check_file(directory, name, entry)
    for name in (MODEL, GOLDEN):
        if name not in manifest.files:
            raise BundleError(
                f"{directory / MANIFEST}: `files` does not list {name}; the bundle is incomplete"
            )
    return Bundle(directory, manifest)


def write_bundle(path: str | Path, staged: Path, manifest: Manifest) -> Bundle:
    """Turns a directory of finished files into a bundle, all at once.

    Args:
        path: Where the bundle shall stand. An older bundle there is replaced; anything else is refused.
        staged: Directory that holds the files (not the manifest); moved, so on the same file system.
        manifest: Everything but `files`, which is computed here.

    Raises:
        BundleError: `path` exists and is not a bundle, or the files cannot be moved there; an older
            bundle then stands as before.
    """
    target = Path(path)
    check_target(target)
    if (staged / ENGINES).is_dir():
        shutil.rmtree(staged / ENGINES)  # a cache of what stood there before
    names = sorted(p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file())
    files = {name: file_entry(staged / name) for name in names}
    complete = msgspec.structs.replace(manifest, format_version=FORMAT_VERSION, files=files)
    write_manifest(staged, complete)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-old-", dir=target.parent) as aside:
        previous = Path(aside) / target.name
        try:
            if target.exists():
                target.rename(previous)
            staged.rename(target)
        except OSError as error:
            if previous.exists():
                previous.rename(target)
            raise BundleError(
                f"{staged}: cannot be moved to {target}: {error.strerror}; stage it on the same file system"
            ) from error
    return read_bundle(target)


def check_target(path: str | Path) -> None:
    """Refuses a place for a new bundle that holds something else.

    Raises:
        BundleError: `path` exists and is neither empty nor a bundle.
    """
    target = Path(path)
    if target.exists() and not (target / MANIFEST).is_file() and not _is_empty_directory(target):
        raise BundleError(f"{target}: exists and is not a bundle; name another place, or remove it first")


def replace_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """Stores a new calibration in the bundle's manifest, atomically; the model stays as it is.

    Raises:
        BundleError: The manifest cannot be written; it stays as it was.
    """
    manifest = msgspec.structs.replace(bundle.manifest, calibration=calibration)
    write_manifest(bundle.path, manifest)
    return Bundle(bundle.path, manifest)


def replace_quantized(
    bundle: Bundle, graph: bytes | None, decision: Quantization, tolerance: float | None
) -> Bundle:
    """Stores an int8 graph and the decision on it, or the decision alone; whole at every moment.

    A manifest that lists the new graph is written only once the graph lies there, and none lists the old one
    while it is being replaced; so whatever interrupts this leaves a bundle that opens.

    Args:
        bundle: To store them in; the fp32 graph stays as it is.
        graph: The int8 graph; None takes away one that the bundle has.
        decision: What the manifest shall say of it.
        tolerance: Largest |logit − golden logit| allowed in int8; None without a graph.

    Raises:
        BundleError: Something cannot be written; the bundle then stands as before, or without an int8 graph.
    """
    path, manifest = bundle.path / QUANTIZED, bundle.manifest
    files = {name: entry for name, entry in manifest.files.items() if name != QUANTIZED}
    tolerances = {name: value for name, value in manifest.tolerance.items() if name != INT8}
    without = msgspec.structs.replace(manifest, files=files, tolerance=tolerances, quantization=None)
    if graph is None or tolerance is None:
        complete = msgspec.structs.replace(without, quantization=decision)
        write_manifest(bundle.path, complete)
        path.unlink(missing_ok=True)
        return Bundle(bundle.path, complete)
    if QUANTIZED in manifest.files:
        write_manifest(bundle.path, without)
    try:
        write_whole(path, graph)
        complete = msgspec.structs.replace(
            without,
            files={**files, QUANTIZED: file_entry(path)},
            tolerance={**tolerances, INT8: tolerance},
            quantization=decision,
        )
        write_manifest(bundle.path, complete)
    except BundleError:
        path.unlink(missing_ok=True)  # no manifest lists it
        raise
    return Bundle(bundle.path, complete)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
