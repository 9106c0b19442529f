"""Keeps pictures: rejects, unknowns and a sample of what passed, each with its verdict (see `archive.py`)."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from algan_stream import archive
from algan_stream.boxes.base import usable_boxes
from algan_stream.bundle import MANIFEST, Bundle
from algan_stream.errors import AlganError, ConfigError
from algan_stream.explain import Explainer, overlay
from algan_stream.inputs import write_inputs
from algan_stream.preprocess import empty_slots
from algan_stream.ranges import check_ranges
from algan_stream.sinks.frames import FrameSink
from algan_stream.sinks.retention import Kept, Retention, scan
from algan_stream.types import Frame, FrameVerdict, VerdictKind
from algan_stream.viewing import to_bgr

log = logging.getLogger(__name__)

#: Most boxes of one frame that are explained, the highest scores first.
_MOST_EXPLAINED = 4


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink with `kind: archive`.

    Attributes:
        path: Folder, made if it is missing; belongs to one sink alone.
        rejects: Share of the rejects that is kept, 0 to 1.
        unknowns: Share of the unknowns.
        passes: Share of what passed. Camera and frame id alone decide which: on every machine the same.
        cameras: Only these cameras' frames; None: all.
        encoding: `png`: lossless, and any viewer shows it; `npy`: lossless, twice the size or more for a
            hundredth of the time; `jpeg`: small, but no proof: what is read back is not what was scored.
        jpeg_quality: 1 to 100.
        explain: Show in a picture beside each reject what speaks against it.
        max_gb: Most gigabytes (10⁹ bytes) in all; then the oldest go.
        max_days: Longest that anything is kept; None: as long as there is room.
        min_free_gb: Below that much free space on its disk the oldest go as well.
        fsync: Wait for the disk after each file: then it outlives a power cut, too.
        queue_mb: Most megabytes of pixels that wait to be written; what comes then is lost here, and counted.
        drain_s: How long a stop waits for what is still to be written.
    """

    kind: Literal["archive"]
    path: str
    rejects: float = 1.0
    unknowns: float = 1.0
    passes: float = 0.01
    cameras: tuple[str, ...] | None = None
    encoding: archive.Encoding = "png"
    jpeg_quality: int = 95
    explain: bool = False
    max_gb: float = 50.0
    max_days: float | None = None
    min_free_gb: float = 1.0
    fsync: bool = False
    queue_mb: float = 128.0
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        check_ranges(
            ("rejects", self.rejects, 0, 1),
            ("unknowns", self.unknowns, 0, 1),
            ("passes", self.passes, 0, 1),
            ("jpeg_quality", self.jpeg_quality, 1, 100),
            ("max_gb", self.max_gb, 0.001, 1_000_000),
            ("max_days", self.max_days, 0.001, 36_500),
            ("min_free_gb", self.min_free_gb, 0, 1_000_000),
            ("queue_mb", self.queue_mb, 1, 1_000_000),
            ("drain_s", self.drain_s, 0, 3600),
        )


class ArchiveSink(FrameSink):
    """The only writer of its folder."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.queue_mb, config.drain_s)
        self._config, self._root = config, Path(config.path)
        self._shares = {
            VerdictKind.REJECT: config.rejects,
            VerdictKind.UNKNOWN: config.unknowns,
            VerdictKind.PASS: config.passes,
        }
        age_s = None if config.max_days is None else config.max_days * 86_400
        free = round(config.min_free_gb * 1e9)
        self._retention = Retention(self._root, round(config.max_gb * 1e9), age_s, free)
        self._adopted = False
        self._last_ns = 0
        self._judge: _Judge | None = None
        self._lock = _locked(self._root)

    def use_bundle(self, bundle: Bundle) -> None:
        """Explains, and keeps a copy of, what judges from now on.

        Raises:
            AlganError: It cannot be explained, but `explain` is set; or there is no room for the copy.
        """
        explainer = Explainer(bundle, _ONE_THREAD) if self._config.explain else None
        try:
            name = _keep_bundle(bundle, self._root / archive.BUNDLES)
        except OSError as error:
            if explainer is not None:
                explainer.close()
            raise ConfigError(f"path: cannot keep a copy of the bundle in {self._root}: {error}") from error
        # The old one's graph is freed once the frame in work lets go of it.
        self._judge = _Judge(bundle, name, explainer)

    def keeps(self, frame: Frame, verdict: FrameVerdict) -> bool:
        """By the verdict's share and the frame's own lot, the same on every machine."""
        if self._config.cameras is not None and verdict.camera not in self._config.cameras:
            return False
        share = self._shares[verdict.verdict]
        return share >= 1.0 or (share > 0.0 and lot(verdict.camera, verdict.frame_id) < share)

    def store(self, frame: Frame, verdict: FrameVerdict) -> None:
        """Writes pixels, explanations and, last, the entry that makes them count."""
        self._last_ns = kept_ns = max(self._last_ns + 1, time.time_ns())
        folder, stem = archive.stem_of(kept_ns, verdict)
        place = self._root / folder
        encoded = archive.encode(frame, stem, self._config.encoding, self._config.jpeg_quality)
        self._retention.apply(
            needed_bytes=sum(memoryview(part).nbytes for part in encoded[1]) if encoded else 0
        )
        place.mkdir(parents=True, exist_ok=True)
        judge = self._judge
        if judge is not None and judge.model != verdict.model:
            judge = None  # a swap's last or first frames: better without a name than with a wrong one
        files: list[Path] = []
        size = 0
        try:
            if encoded is not None:
                files.append(place / encoded[0].file)
                size += archive.write_whole(files[-1], *encoded[1], sync=self._config.fsync)
            for number, picture in self._explanations(judge, frame, verdict):
                files.append(place / f"{stem}.why{number}.png")
                size += archive.write_whole(files[-1], picture)
            entry = archive.Entry(
                verdict=verdict,
                fuse=frame.fuse,
                pixels=encoded[0] if encoded else None,
                bundle=judge.name if judge else "",
                explained=tuple(file.name for file in files[1 if encoded else 0 :]),
            )
            files.insert(0, place / f"{stem}.json")
            size += archive.write_whole(files[0], msgspec.json.encode(entry), sync=self._config.fsync)
        except BaseException:
            for file in files:
                file.unlink(missing_ok=True)
            raise
        self._retention.add(Kept(tuple(files), size, kept_ns / 1e9))

    def rest(self) -> None:
        """Finds what an earlier run left, once; then deletes what is too old."""
        if not self._adopted:
            self._retention.adopt(_found(self._root))
            self._adopted = True
        self._retention.apply()

    def close(self) -> None:
        """Writes what waits, for `drain_s`, and frees the folder."""
        super().close()
        if self._lock >= 0 and not self._thread.is_alive():
            os.close(self._lock)
            self._lock = -1
            if self._judge is not None and self._judge.explainer is not None:
                self._judge.explainer.close()

    def _explanations(
        self, judge: _Judge | None, frame: Frame, verdict: FrameVerdict
    ) -> Iterator[tuple[int, bytes]]:
        if judge is None or judge.explainer is None or verdict.verdict is not VerdictKind.REJECT:
            return
        try:
            yield from judge.explained(frame, verdict)
        except AlganError as error:  # the reject itself is worth more than its explanation
            about = {"camera": frame.camera, "frame": frame.frame_id}
            log.warning("%s: frame %d cannot be explained: %s", self.name, frame.frame_id, error, extra=about)


#: The engine beside it needs the processors more.
_ONE_THREAD = {"kind": "openvino", "threads": 1, "max_batch": _MOST_EXPLAINED}


class _Judge:
    """The bundle that judges, by its copy's name, and what explains it."""

    def __init__(self, bundle: Bundle, name: str, explainer: Explainer | None) -> None:
        self.model, self.name, self.explainer = bundle.model_sha256[:12], name, explainer
        self._spec = bundle.manifest.spec

    def explained(self, frame: Frame, verdict: FrameVerdict) -> Iterator[tuple[int, bytes]]:
        """Pictures of the rejected boxes with the highest scores, by the box's number."""
        import cv2

        assert self.explainer is not None
        rejected = [
            (box.score or 0.0, i) for i, box in enumerate(verdict.boxes) if box.verdict is VerdictKind.REJECT
        ]
        chosen = sorted(i for _, i in sorted(rejected, reverse=True)[:_MOST_EXPLAINED])
        picture = to_bgr(frame.image, frame.pixel_format) if chosen else None
        for i in chosen:
            box = verdict.boxes[i].box
            own = None if box is None else np.asarray([box], np.float32)
            if picture is None or (own is not None and not usable_boxes(own, picture).all()):
                continue
            inputs = empty_slots(1, self._spec)
            write_inputs(inputs, frame, self._spec, boxes=own, first_slot=0)
            saliency = self.explainer.saliency(inputs)[0]
            ok, data = cv2.imencode(
                ".png", overlay(picture, saliency, box=box), [cv2.IMWRITE_PNG_COMPRESSION, 1]
            )
            if ok:
                yield i, bytes(data.data)


def lot(camera: str, frame_id: int) -> float:
    """A number from 0 to 1 that looks random and depends on a camera's name and a frame's id alone."""
    digest = hashlib.blake2b(f"{camera}\0{frame_id}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 256**7


def create(config: Config) -> ArchiveSink:
    """Opens the folder.

    Raises:
        ConfigError: It cannot be written, or another sink writes it.
    """
    sink = ArchiveSink(config)
    sink.start()
    return sink


def _locked(root: Path) -> int:
    """Takes the folder for this process; returns the lock's descriptor."""
    try:
        (root / archive.BUNDLES).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / archive.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"path: cannot write {root}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"path: {root} is in use by another sink or service; give each its own") from error
    return descriptor


def _keep_bundle(bundle: Bundle, folder: Path) -> str:
    """Copies what judges, unless the very same is there; returns the copy's name."""
    manifest = (bundle.path / MANIFEST).read_bytes()
    name = f"{bundle.model_sha256[:12]}-{hashlib.sha256(manifest).hexdigest()[:12]}"
    if not (folder / name).is_dir():
        part = folder / (archive.UNFINISHED + name)
        shutil.rmtree(part, ignore_errors=True)
        for file in (MANIFEST, *bundle.manifest.files):
            (part / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / file, part / file)
        part.replace(folder / name)
    return name


def _found(root: Path) -> Iterator[Kept]:
    """Whole entries of an earlier run, oldest first; what a kill left of others is deleted."""
    for day in sorted(root.glob("????-??-??")):
        for hour in sorted(folder for folder in day.iterdir() if folder.is_dir()):
            for files in scan(hour, lambda file: file.name[: archive.TIME_LENGTH]).values():
                own = sorted(files, key=lambda file: not file.name.endswith(".json"))
                if own[0].name.endswith(".json") and own[0].name[0].isdigit():
                    stats = [file.stat() for file in own]
                    size, written_s = sum(s.st_size for s in stats), stats[0].st_mtime
                    yield Kept(tuple(Path(file.path) for file in own), size, written_s)
                    continue
                for file in own:
                    if file.name[0].isdigit() or file.name.startswith(archive.UNFINISHED):
                        Path(file.path).unlink(missing_ok=True)
