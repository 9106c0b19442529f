"""Verdicts on the same images by several engines, here and on other machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from algan_deploy.verify_engines import Answers
from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine
from algan_stream.errors import BundleError, InputError
from algan_stream.images import list_images
from algan_stream.measures import Judged, compare
from algan_stream.scoring import score_images, score_table
from algan_stream.tables import list_tables, read_table
from algan_stream.types import VectorSpec


class Agreed(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine's verdicts compare with a reference.

    Attributes:
        engine: Whose verdicts.
        reference: With whose.
        images: How many.
        max_score_difference: Largest; null in JSON where none was scored.
        flips: What has another verdict, by name.
        identical: Nothing has.
    """

    engine: str
    reference: str
    images: int
    max_score_difference: float
    flips: list[str]
    identical: bool


class EngineAnswers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One engine's score and verdict for every image, by name."""

    engine: str
    answers: Answers


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `--save` writes and `--against` reads.

    Attributes:
        format_version: 1.
        model_sha256: Of the bundle's ONNX graph.
        threshold: That the verdicts follow from.
        files: SHA-256 of every image or table, by path relative to the folder.
        engines: The first is the one that others are compared with.
    """

    format_version: Literal[1]
    model_sha256: str
    threshold: float
    files: dict[str, str]
    engines: list[EngineAnswers]


class Images:
    """A folder of images, or of tables for a bundle of vectors.

    Raises:
        InputError: It holds none, or the bundle has no threshold to judge them by.
    """

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        calibration = bundle.manifest.calibration
        if calibration is None:
            raise InputError(f"{bundle.path}: has no calibration; run `algan-stream calibrate` first")
        self._bundle, self._folder, self._threshold = bundle, folder, calibration.threshold
        self._vectors = isinstance(bundle.manifest.spec, VectorSpec)
        self._files = list_tables(folder) if self._vectors else list_images(folder)

    def ask(self, engine: Engine) -> Answers:
        """An engine's answer to every image, or every row, by its name."""
        if self._vectors:
            lines = (line for f in self._files for line in score_table(self._bundle, engine, read_table(f)))
            return {
                f"{self._name(Path(line.path))} row {line.row}": Judged(line.score, line.verdict)
                for line in lines
            }
        scored = score_images(self._bundle, engine, self._files)
        return {self._name(Path(line.path)): Judged(line.score, line.verdict) for line in scored}

    def saved(self, engines: list[EngineAnswers]) -> Saved:
        """All that another machine needs for a comparison."""
        return Saved(
            format_version=1,
            model_sha256=self._bundle.model_sha256,
            threshold=self._threshold,
            files={self._name(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in self._files},
            engines=engines,
        )

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix() if file.is_relative_to(self._folder) else file.name


def agreements(engines: list[EngineAnswers], reference: EngineAnswers) -> list[Agreed]:
    """Compares every engine with one."""
    found = []
    for one in engines:
        agreement = compare(one.answers, reference.answers)
        found.append(
            Agreed(
                engine=one.engine,
                reference=reference.engine,
                images=len(one.answers),
                max_score_difference=agreement.max_difference,
                flips=agreement.flips,
                identical=not agreement.flips,
            )
        )
    return found


def against(path: Path, here: Saved) -> list[Agreed]:
    """Compares this machine's engines with the first one of a file that another machine saved.

    Raises:
        BundleError: It was made with another model or threshold.
        InputError: It cannot be read, or is about other images.
    """
    there = _read(path)
    if there.model_sha256 != here.model_sha256:
        raise BundleError(
            f"{path}: is about another model, {there.model_sha256[:12]}…; expected {here.model_sha256[:12]}…"
        )
    if there.threshold != here.threshold:
        raise BundleError(
            f"{path}: was judged at the threshold {there.threshold:.6g}, but this bundle has "
            f"{here.threshold:.6g}; copy the calibrated bundle"
        )
    if there.files != here.files:
        different = sorted(set(there.files.items()) ^ set(here.files.items()))
        raise InputError(
            f"{path}: is about other images: {different[0][0]} is missing or different on one side; give "
            "--images the same folder"
        )
    return agreements(here.engines, there.engines[0])


def save(path: Path, here: Saved) -> None:
    """Writes the file for `against`.

    Raises:
        InputError: It cannot be written.
    """
    _guarded(path, lambda: path.write_bytes(msgspec.json.format(msgspec.json.encode(here), indent=1) + b"\n"))


def _read(path: Path) -> Saved:
    raw = _guarded(path, path.read_bytes)
    try:
        saved = msgspec.json.decode(raw, type=Saved)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a file that `algan-stream verify --save` wrote: {error}"
        ) from error
    if not saved.engines:
        raise InputError(f"{path}: holds no engine's verdicts; save it again where one passes")
    return saved


def _guarded(path: Path, act: Callable[[], bytes | int]) -> bytes:
    try:
        done = act()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return done if isinstance(done, bytes) else b""
