"""The archive's files: pixels as they were scored, and beside them the verdict that they got.

    ARCHIVE/archive.lock                             one writer at a time
    ARCHIVE/bundles/MODEL-MANIFEST/                  the bundle that gave the verdicts, whole
    ARCHIVE/2026-11-25/15/152207.123456789-cam-42-reject.png       the pixels: .png, .npy or .jpg
    ARCHIVE/2026-11-25/15/152207.123456789-cam-42-reject.json      an `Entry`; written last
    ARCHIVE/2026-11-25/15/152207.123456789-cam-42-reject.why0.png  the explanation, where one is wanted

Days, hours and times are UTC, of the moment when the frame was taken into the archive. Every file is written
under another name and renamed when it is whole; an entry counts from the moment when its `.json` is there.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import InputError
from algan_stream.types import CameraFormat, Frame, FrameVerdict
from algan_stream.whole import sync_folder

FORMAT = 1
BUNDLES = "bundles"
LOCK = "archive.lock"
#: Name of a file that is not whole yet begins with this.
UNFINISHED = ".part-"
#: Length of the time in a file's name, which all files of an entry share and no other has.
TIME_LENGTH = len("152207.123456789")

Encoding = Literal["png", "npy", "jpeg"]
_SUFFIX: dict[Encoding, str] = {"png": ".png", "npy": ".npy", "jpeg": ".jpg"}
#: What PNG and JPEG hold as colours; everything else goes into a PNG as a grey image of the same bytes.
_COLOURED = ("bgr8", "rgb8")


class Pixels(msgspec.Struct, frozen=True, kw_only=True):
    """Where an entry's pixels, or vector, are and what they are.

    Attributes:
        file: Name of the file, beside the entry's own.
        encoding: How they are written; `jpeg` alone is lossy.
        pixel_format: Of a frame; empty for a vector.
        dtype: NumPy's name of the numbers' type.
        shape: Of the array that was scored.
        sha256: Of its bytes in C order, in hex; what is read back must have it, unless it is lossy.
    """

    file: str
    encoding: Encoding
    pixel_format: CameraFormat | Literal[""] = ""
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def lossy(self) -> bool:
        """Whether the file holds other pixels than those that were scored."""
        return self.encoding == "jpeg"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One archived frame.

    Attributes:
        format: Of this file.
        verdict: As it went out.
        fuse: How the boxes' verdicts became the frame's, see `Frame.fuse`.
        pixels: None where the frame had none, such as one that could not be decoded.
        bundle: Folder below `bundles/` that holds what judged; empty if it was not known.
        explained: Files that explain the verdict.
    """

    format: int = FORMAT
    verdict: FrameVerdict
    fuse: Literal["max", "mean"] = "max"
    pixels: Pixels | None = None
    bundle: str = ""
    explained: tuple[str, ...] = ()


def stem_of(kept_ns: int, verdict: FrameVerdict) -> tuple[str, str]:
    """Folder (day and hour) and name, without suffix, of an entry.

    Args:
        kept_ns: Unix time, in nanoseconds, at which it is archived; no two entries have the same.
        verdict: Its camera, frame and kind stand in the name.
    """
    seconds, nanoseconds = divmod(kept_ns, 10**9)
    folder = time.strftime("%Y-%m-%d/%H", time.gmtime(seconds))
    moment = time.strftime("%H%M%S", time.gmtime(seconds))
    name = f"{moment}.{nanoseconds:09}-{verdict.camera}-{verdict.frame_id}-{verdict.verdict.value}"
    return folder, name


def write_whole(path: Path, *parts: bytes | memoryview, sync: bool = False) -> int:
    """Writes a file that is whole as soon as it has its name; returns its size.

    Args:
        path: Its folder exists.
        parts: All of it, one behind the other.
        sync: Wait until it would outlive a power cut.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)
    return sum(memoryview(part).nbytes for part in parts)


def encode(
    frame: Frame, stem: str, encoding: Encoding, jpeg_quality: int
) -> tuple[Pixels, list[bytes | memoryview]] | None:
    """A frame's pixels, or vector, as a file's content in parts; None if it has none.

    Nothing large is copied by Python itself: that would keep all other threads waiting.

    Args:
        frame: Its memory must not change meanwhile.
        stem: Of the file's name.
        encoding: Of images; a vector is always `npy`, and what JPEG cannot hold is always `png`.
        jpeg_quality: 1 to 100.
    """
    array: npt.NDArray[Any] = frame.image if frame.vector is None else frame.vector
    if array.size == 0:
        return None
    array = np.ascontiguousarray(array)
    if frame.vector is not None:
        encoding = "npy"
    elif encoding == "jpeg" and frame.pixel_format not in (*_COLOURED, "grey8"):
        encoding = "png"
    pixels = Pixels(
        file=stem + _SUFFIX[encoding],
        encoding=encoding,
        pixel_format=frame.pixel_format if frame.vector is None else "",
        dtype=array.dtype.name,
        shape=array.shape,
        sha256=hashlib.sha256(array.data).hexdigest(),
    )
    if encoding == "npy":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
        return pixels, [header.getvalue(), array.reshape(-1).view(np.uint8).data]
    return pixels, [_as_picture(array, frame.pixel_format, encoding, jpeg_quality)]


def _as_picture(
    array: npt.NDArray[Any], pixel_format: CameraFormat, encoding: Encoding, quality: int
) -> memoryview:
    import cv2

    if pixel_format == "rgb8":
        array = array[..., ::-1]  # so that it looks right in a viewer
    elif pixel_format not in _COLOURED:
        array = array.reshape(array.shape[0], -1)
    # Level 1 by runs: more effort made real frames no smaller, and took twice as long.
    png = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    options = png if encoding == "png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    ok, data = cv2.imencode(_SUFFIX[encoding], np.ascontiguousarray(array), options)
    if not ok:
        raise InputError(f"OpenCV cannot encode {array.dtype} {array.shape} as {encoding}")
    return data.data


def entries(archive: Path) -> Iterator[Path]:
    """The entries' files, oldest first; while a service writes, those that it had when their hour was listed.

    Raises:
        InputError: The folder is no archive.
    """
    if not (archive / LOCK).is_file():
        raise InputError(f"{archive}: expected an archive, a folder that a sink of kind `archive` writes")
    for day in sorted(archive.glob("????-??-??")):
        for hour in sorted(day.iterdir()):
            yield from sorted(hour.glob("[0-9]*.json"))


def read_entry(path: Path) -> Entry:
    """Reads one entry.

    Raises:
        InputError: The file is damaged, gone, or of a newer version.
    """
    try:
        entry = msgspec.json.decode(path.read_bytes(), type=Entry)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no entry of an archive: {error}") from error
    if entry.format > FORMAT:
        raise InputError(f"{path}: is of format {entry.format}, newer than {FORMAT}; update algan-stream")
    return entry


def read_pixels(path: Path, pixels: Pixels) -> npt.NDArray[Any]:
    """The array that was scored; of a lossy entry, something near it.

    Args:
        path: Of the entry.
        pixels: What it says of them.

    Raises:
        InputError: The file is gone, damaged, or not what was scored.
    """
    if Path(pixels.file).name != pixels.file:
        raise InputError(f"{path}: pixels.file: expected a name in the same folder, got {pixels.file!r}")
    file = path.with_name(pixels.file)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    array = _from_npy(data, file) if pixels.encoding == "npy" else _from_picture(data, file, pixels)
    if array.dtype.name != pixels.dtype or array.shape != pixels.shape:
        raise InputError(
            f"{file}: expected {pixels.dtype} {pixels.shape}, got {array.dtype.name} {array.shape}"
        )
    if not pixels.lossy and hashlib.sha256(array.data).hexdigest() != pixels.sha256:
        raise InputError(f"{file}: holds other pixels than those that were scored; it was altered or damaged")
    return array


def _from_npy(data: bytes, file: Path) -> npt.NDArray[Any]:
    try:
        return np.ascontiguousarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file}: is no .npy file: {error}") from error


def _from_picture(data: bytes, file: Path, pixels: Pixels) -> npt.NDArray[Any]:
    import cv2

    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise InputError(f"{file}: cannot be decoded: {error.err}") from error
    if found is None:
        raise InputError(f"{file}: is no image; it is damaged")
    if pixels.pixel_format == "rgb8" and found.ndim == 3:
        found = found[..., ::-1]
    if found.size == int(np.prod(pixels.shape)):
        found = found.reshape(pixels.shape)
    return np.ascontiguousarray(found)
