"""The model bundle: the product of training and the only thing that is deployed.

A directory of `manifest.json`, `discriminator.onnx`, `golden.npz`, `report/` and, to tell why, `explain.onnx`
where the kind of model allows it. The manifest holds every file's SHA-256; reading checks them all. No file
in it can carry code (no pickle anywhere). Beside them may lie `engines/`, a cache that no manifest lists.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.calibration import Calibration, calibrate
from algan_stream.errors import BundleError, CalibrationError, ConfigError
from algan_stream.types import InputSpec, Spec, VectorSpec

#: Raised when the layout changes in a way that older readers would misread.
FORMAT_VERSION = 1
MANIFEST, MODEL, GOLDEN = "manifest.json", "discriminator.onnx", "golden.npz"
#: The same graph quantised to int8 (QuantizeLinear / DequantizeLinear); not every bundle has one.
QUANTIZED = "discriminator.int8.onnx"
#: Folder of engines compiled from the graphs: a cache (engines/cache.py), no part of the bundle.
ENGINES = "engines"
#: The graph that explains a score; not every bundle has one.
EXPLAIN = "explain.onnx"
#: The bundle that ships with the package may be named instead of a path.
DEMO_NAME = "demo"


#: What the ONNX graph of a bundle computes.
ModelKind: TypeAlias = Literal["algan-image", "algan-feature", "algan-vector", "wrapped"]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file of the bundle."""

    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`, typed.

    Attributes:
        format_version: Layout of the bundle; see `FORMAT_VERSION`.
        name: Name given at training.
        model_kind: What the ONNX graph computes: the discriminator on images, on features that its own
            backbone takes from images, or on vectors; or the score of somebody else's model on images.
        input_spec: How pixels become its input; not with vectors.
        vector_spec: What its vectors are; only with vectors.
        score: How its output becomes an anomaly score (paper, Fig. 5).
        tolerance: Largest |logit − golden logit| allowed, by precision of the engine.
        calibration: Scores of good images and the threshold, or None before calibration.
        provenance: Data hash, seed, training configuration, library versions, metrics.
        files: Every file besides the manifest, by POSIX path relative to the bundle.
    """

    format_version: int
    name: str
    model_kind: ModelKind
    input_spec: InputSpec | msgspec.UnsetType = msgspec.UNSET
    vector_spec: VectorSpec | msgspec.UnsetType = msgspec.UNSET
    score: Literal["negative_logit"] = "negative_logit"
    tolerance: dict[str, float]
    calibration: Calibration | None = None
    provenance: dict[str, Any] = {}
    files: dict[str, FileEntry]

    def __post_init__(self) -> None:
        specs = {"input_spec": self.input_spec, "vector_spec": self.vector_spec}
        wanted = "vector_spec" if self.model_kind == "algan-vector" else "input_spec"
        if [name for name, spec in specs.items() if spec is not msgspec.UNSET] != [wanted]:
            raise ConfigError(f"manifest: {self.model_kind} needs {wanted}, and no other spec")

    @property
    def spec(self) -> Spec:
        """Whichever spec it has."""
        return self.image_spec if self.vector_spec is msgspec.UNSET else self.vector_spec

    @property
    def image_spec(self) -> InputSpec:
        """How pixels become the network's input.

        Raises:
            BundleError: The bundle is one for vectors.
        """
        if self.input_spec is msgspec.UNSET:
            raise BundleError(f"bundle {self.name}: is for vectors, not for images")
        return self.input_spec


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
                f"{self.path}: has no {QUANTIZED}; make it by `algan-stream build {self.path} --target int8 "
                "--good FOLDER`, or choose another precision"
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
    manifest = _read_manifest(directory)
    for name, entry in manifest.files.items():
        _check_file(directory, name, entry)
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
    files = {name: _entry(staged / name) for name in names}
    complete = msgspec.structs.replace(manifest, format_version=FORMAT_VERSION, files=files)
    _write_manifest(staged, complete)
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
    _write_manifest(bundle.path, manifest)
    return Bundle(bundle.path, manifest)


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{directory}: is not a model bundle, {MANIFEST} cannot be read ({error.strerror}); "
            f"expected the directory that `algan-stream train --out` wrote, or `{DEMO_NAME}`"
        ) from error
    try:
        version = msgspec.json.decode(raw, type=dict[str, Any]).get("format_version")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: is not valid JSON: {error}; export the bundle again") from error
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{path}: format_version: expected a whole number from 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest that this "
            "version of algan-stream reads; upgrade algan-stream"
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, ConfigError) as error:
        raise BundleError(f"{path}: {error}") from error
    _check_threshold(path, manifest.calibration)
    return manifest


def _check_threshold(path: Path, stated: Calibration | None) -> None:
    """The manifest has no hash of its own, but a conformal threshold follows from its good scores."""
    if stated is None or stated.method != "conformal" or stated.false_reject_rate is None:
        return
    try:
        expected = calibrate(stated.good_scores, stated.false_reject_rate).threshold
    except CalibrationError as error:
        raise BundleError(f"{path}: calibration: {error}") from error
    if stated.threshold != expected:
        raise BundleError(
            f"{path}: calibration.threshold: expected {expected:.6g} from its good scores and rate, got "
            f"{stated.threshold:.6g}; set thresholds by `algan-stream calibrate`"
        )


def _check_file(directory: Path, name: str, entry: FileEntry) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise BundleError(f"{directory / MANIFEST}: files: {name!r} leads out of the bundle")
    path = directory / name
    if not path.is_file():
        raise BundleError(f"{path}: is missing from the bundle; copy the whole directory again")
    found = _entry(path)
    if found != entry:
        raise BundleError(
            f"{path}: has been altered: expected {entry.size_bytes} bytes with SHA-256 {entry.sha256[:12]}…, "
            f"got {found.size_bytes} bytes with {found.sha256[:12]}…; copy the bundle again"
        )


def _entry(path: Path) -> FileEntry:
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
    try:
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=".manifest-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(descriptor)
            Path(name).chmod(0o644)
            Path(name).replace(directory / MANIFEST)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise BundleError(f"{directory / MANIFEST}: cannot be written: {error.strerror}") from error


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
