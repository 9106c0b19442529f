"""What waits for a sink: in memory, or in a file that outlives the process."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Protocol

from algan_stream.errors import ConfigError

log = logging.getLogger(__name__)

#: Before each record: its length and its CRC-32, little-endian.
_HEAD = struct.Struct("<II")
#: At the file's start: where the oldest record that is not delivered begins.
_POSITION = struct.Struct("<Q")
#: A verdict of 10,000 boxes is about 1 MiB; a longer record can only be a broken file.
_MAX_RECORD_BYTES = 64 << 20
#: Records that are delivered are cut off the file's front once they are this many bytes and half of the file.
_COMPACT_BYTES = 8 << 20


class Backlog(Protocol):
    """A bounded queue of records, first in, first out; one thread puts, one takes."""

    def put(self, record: bytes) -> int:
        """Takes a record; returns how many were lost for it, this one or older ones."""

    def peek(self) -> bytes | None:
        """The oldest record, or None; it stays until `pop`."""

    def pop(self) -> None:
        """Forgets the oldest record."""

    def __len__(self) -> int: ...

    def close(self) -> int:
        """Ends it; returns how many records are lost by that."""


class MemoryBacklog:
    """The newest records, up to a number; older ones fall out when it is full.

    Args:
        size: Most records, besides the one that `peek` has shown: that one is being delivered.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: deque[bytes] = deque()
        self._shown: bytes | None = None
        self._lock = threading.Lock()

    def put(self, record: bytes) -> int:
        """Takes a record; the oldest falls out of a full queue."""
        with self._lock:
            self._records.append(record)
            if len(self._records) <= self._size:
                return 0
            self._records.popleft()
            return 1

    def peek(self) -> bytes | None:
        """The oldest record."""
        with self._lock:
            if self._shown is None and self._records:
                self._shown = self._records.popleft()
            return self._shown

    def pop(self) -> None:
        """Forgets the record that was shown."""
        with self._lock:
            self._shown = None

    def __len__(self) -> int:
        with self._lock:
            return len(self._records) + (self._shown is not None)

    def close(self) -> int:
        """Forgets everything."""
        lost = len(self)
        with self._lock:
            self._records.clear()
            self._shown = None
        return lost


class FileBacklog:
    """Records in a file until they are delivered, also across restarts.

    Every record is handed to the operating system before `put` returns: it survives the end of this process,
    not a power cut. What was delivered just before a kill may be delivered once more.

    Args:
        folder: Made if it is missing; belongs to one backlog alone.
        max_bytes: Most bytes that wait; beyond that the newest records are lost.

    Raises:
        ConfigError: The folder cannot be used, or another process uses it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._path = folder / "records"
        self._file = self._hold = -1
        self._start = self._end = _POSITION.size  # of what waits, in the file
        self._count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._hold = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _lock(self._hold, folder)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._recover()
        except OSError as error:
            self._shut()
            raise ConfigError(f"spill: cannot use {folder}: {error.strerror}") from error
        except BaseException:
            self._shut()
            raise

    def put(self, record: bytes) -> int:
        """Appends a record; it is lost when the file has its greatest size or the disk is full."""
        framed = _HEAD.pack(len(record), zlib.crc32(record)) + record
        with self._lock:
            if self._end - self._start + len(framed) > self._max_bytes:
                return 1
            try:
                written = os.pwrite(self._file, framed, self._end)
            except OSError:
                return 1
            if written < len(framed):  # the disk is full; this part lies beyond the end
                return 1
            self._end += len(framed)
            self._count += 1
        return 0

    def peek(self) -> bytes | None:
        """The oldest record that is not delivered."""
        with self._lock:
            found = _record_at(self._file, self._start, self._end)
            return None if found is None else found[0]

    def pop(self) -> None:
        """Notes that the oldest record is delivered."""
        with self._lock:
            found = _record_at(self._file, self._start, self._end)
            if found is None:
                return
            self._start, self._count = found[1], self._count - 1
            if self._start == self._end:  # in this order: cut off in between, the position is simply too far
                os.ftruncate(self._file, _POSITION.size)
                self._start = self._end = _POSITION.size
            os.pwrite(self._file, _POSITION.pack(self._start), 0)
            if self._start > max(_COMPACT_BYTES, self._end // 2):
                self._compact()

    def __len__(self) -> int:
        return self._count

    def close(self) -> int:
        """Closes the file; what is in it waits for the next start."""
        with self._lock:
            self._shut()
        return 0

    def _recover(self) -> None:
        """Finds the whole records that an earlier process left; what follows them is set aside."""
        size = os.fstat(self._file).st_size
        raw = os.pread(self._file, _POSITION.size, 0)
        start = _POSITION.unpack(raw)[0] if len(raw) == _POSITION.size else 0
        self._start = start if _POSITION.size <= start <= size else _POSITION.size
        self._end, self._count = self._start, 0
        while (found := _record_at(self._file, self._end, size)) is not None:
            self._end, self._count = found[1], self._count + 1
        if size > self._end:
            aside = self._path.with_name(f"broken-{time.time_ns()}")
            _write_whole(aside, os.pread(self._file, size - self._end, self._end))
            log.warning(
                "%s: its last %d bytes are no whole record, from a kill or a full disk; they are kept in %s",
                self._path,
                size - self._end,
                aside.name,
            )
        os.ftruncate(self._file, self._end)
        os.pwrite(self._file, _POSITION.pack(self._start), 0)

    def _compact(self) -> None:
        """Cuts delivered records off the file's front; without room for that it is tried again later."""
        shorter = self._path.with_suffix(".new")
        try:
            rest = os.pread(self._file, self._end - self._start, self._start)
            _write_whole(shorter, _POSITION.pack(_POSITION.size) + rest)
            replaced = os.open(shorter, os.O_RDWR | os.O_CLOEXEC)
            shorter.replace(self._path)
        except OSError:
            return
        os.close(self._file)
        self._file, self._start, self._end = replaced, _POSITION.size, _POSITION.size + len(rest)

    def _shut(self) -> None:
        for descriptor in (self._file, self._hold):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._hold = -1


def _write_whole(file: Path, data: bytes) -> None:
    """Writes a new file; on a full disk, what was written of it goes again."""
    try:
        file.write_bytes(data)
    except OSError:
        file.unlink(missing_ok=True)
        raise


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"spill: {folder} is in use by another sink or service; give each a folder of its own"
        ) from error


def _record_at(file: int, start: int, end: int) -> tuple[bytes, int] | None:
    """The record that begins at `start` and where it ends; None if no whole record is there before `end`."""
    if start + _HEAD.size > end:
        return None
    length, checksum = _HEAD.unpack(os.pread(file, _HEAD.size, start))
    stop = start + _HEAD.size + length
    if length > _MAX_RECORD_BYTES or stop > end:
        return None
    record = os.pread(file, length, start + _HEAD.size)
    if len(record) != length or zlib.crc32(record) != checksum:
        return None
    return record, stop
