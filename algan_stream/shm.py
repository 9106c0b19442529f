"""Memory that a client and the service both map: its layout, its making, its attachment.

One segment is one client's ring: a header, a control word for each slot, the slots. The service makes it and
seals its size, so that no client can take pages away under the service's hands (reading those would be a bus
error); it lies in no file system, so /dev/shm may be full, tiny or missing. Whoever holds a descriptor of it
may map it; the service gives one to nobody but the client.

    0                 header, see `_HEADER`
    64 (1 + i)        control word of slot i: generation << 1, and the last bit is set while it is written
    first + i stride  pixels of slot i; both are multiples of 4096
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.cpus import own_cgroups
from algan_stream.errors import ProtocolError, SharedMemoryError

#: magic, version, slots, bytes of a slot, stride, first slot, ring; little-endian.
_HEADER = struct.Struct("<8sIIQQQQ")
_MAGIC, _VERSION = b"ALGNRING", 1
_LINE, _PAGE = 64, 4096
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_NOEXEC_SEAL = 8  # Linux 6.3; before that it is an error
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


class Attach(msgspec.Struct, tag="attach", forbid_unknown_fields=True, kw_only=True):
    """What a client sends over the Unix socket of a `RingOffer`.

    Attributes:
        token: From the offer.
        slots: How many, 1 to the client's credits.
        slot_bytes: Room in each, up to the largest frame accepted.
    """

    token: bytes
    slots: int
    slot_bytes: int


class Attached(msgspec.Struct, tag="attached", kw_only=True):
    """The answer; with it comes a file descriptor of the memory (SCM_RIGHTS).

    The ring is the client's as long as this connection lasts.

    Attributes:
        ring: Number of the ring, for `SendSlot`.
        slots: As asked for.
        slot_bytes: As asked for.
        stride_bytes: From the start of one slot to the next.
        first_byte: Start of slot 0.
    """

    ring: int
    slots: int
    slot_bytes: int
    stride_bytes: int
    first_byte: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole segment."""
        return self.first_byte + self.slots * self.stride_bytes


class Unattached(msgspec.Struct, tag="unattached", kw_only=True):
    """The other answer: there is no memory, and why."""

    message: str


def layout(ring: int, slots: int, slot_bytes: int) -> Attached:
    """Where everything stands in a ring of that many slots."""
    return Attached(
        ring=ring,
        slots=slots,
        slot_bytes=slot_bytes,
        stride_bytes=-(-slot_bytes // _PAGE) * _PAGE,
        first_byte=-(-_LINE * (1 + slots) // _PAGE) * _PAGE,
    )


class Segment:
    """A mapped ring.

    Args:
        fd: Of the memory; may be closed afterwards.
        place: What stands where; must be trustworthy.
        writable: The service only reads.
    """

    def __init__(self, fd: int, place: Attached, *, writable: bool) -> None:
        self.place = place
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._memory = memoryview(
            mmap.mmap(fd, place.size_bytes, flags=mmap.MAP_SHARED | _POPULATE, prot=access)
        )
        words = np.frombuffer(self._memory, "<u8", 8 * place.slots, _LINE)
        #: The slots' control words, uint64 (slots,); each has a cache line of its own.
        self.words: npt.NDArray[np.uint64] = words[::8]

    def pixels(self, slot: int, count: int) -> memoryview:
        """The first `count` bytes of a slot; they stay mapped as long as anybody looks at them."""
        if not (0 <= slot < self.place.slots and 0 <= count <= self.place.slot_bytes):
            raise ProtocolError(f"slot {slot}: expected up to {self.place.slot_bytes} bytes, got {count}")
        start = self.place.first_byte + slot * self.place.stride_bytes
        return self._memory[start : start + count]

    def header(self) -> bytes:
        """What stands at its beginning."""
        return bytes(self._memory[: _HEADER.size])


def create(place: Attached) -> int:
    """Makes a ring's memory, all of it reserved at once; returns its file descriptor.

    Raises:
        SharedMemoryError: There is not enough.
    """
    if place.size_bytes > (left := memory_left()):
        raise SharedMemoryError(
            f"shared memory: {place.size_bytes} bytes are wanted and {left} are free; fewer or smaller slots "
            "would do, or more memory for this process"
        )
    fd = _anonymous_file()
    try:
        os.fchmod(fd, 0o600)
        # ftruncate alone promises pages that may not be there when they are touched.
        os.posix_fallocate(fd, 0, place.size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        os.pwrite(fd, header_of(place), 0)
    except OSError as error:
        os.close(fd)
        raise SharedMemoryError(
            f"shared memory: {place.size_bytes} bytes cannot be reserved: {error.strerror}"
        ) from error
    return fd


def attach(fd: int, place: Attached) -> Segment:
    """Maps, for writing, what the service handed out.

    Raises:
        SharedMemoryError: It is not what was said.
    """
    if os.fstat(fd).st_size != place.size_bytes or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise SharedMemoryError("shared memory: what the service handed out is not of a fixed, known size")
    try:
        segment = Segment(fd, place, writable=True)
    except (OSError, ValueError) as error:
        raise SharedMemoryError(f"shared memory: cannot be mapped: {error}") from error
    if segment.header() != header_of(place):
        raise SharedMemoryError("shared memory: its header is not the one that the service announced")
    return segment


def header_of(place: Attached) -> bytes:
    """The 48 bytes at the beginning of a ring."""
    return _HEADER.pack(
        _MAGIC, _VERSION, place.slots, place.slot_bytes, place.stride_bytes, place.first_byte, place.ring
    )


def memory_left() -> int:
    """Bytes that this process can still be given: what the machine has free, and what its cgroups allow."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    left = [int(found[1]) << 10] if found else []
    for folder in own_cgroups():
        with suppress(ValueError):  # `max`, or another version of cgroups
            limit, used = int(_text(folder / "memory.max")), int(_text(folder / "memory.current"))
            cache = re.search(r"^inactive_file (\d+)", _text(folder / "memory.stat"), re.MULTILINE)
            left.append(max(0, limit - used + (int(cache[1]) if cache else 0)))
    return min(left, default=1 << 62)


def _anonymous_file() -> int:
    error: OSError | None = None
    for more in (_NOEXEC_SEAL, 0):
        try:
            return os.memfd_create("algan-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | more)
        except OSError as refused:
            error = refused
    reason = error.strerror if error else ""
    raise SharedMemoryError(f"shared memory: this system gives none: {reason}") from error


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


encode: Callable[[Attach | Attached | Unattached], bytes] = msgspec.msgpack.encode
_to_service = msgspec.msgpack.Decoder(Attach)
_to_client: msgspec.msgpack.Decoder[Attached | Unattached] = msgspec.msgpack.Decoder(Attached | Unattached)


def decode_request(packet: bytes) -> Attach:
    """Unpacks what came over the Unix socket.

    Raises:
        ProtocolError: It is no `Attach`.
    """
    try:
        return _to_service.decode(packet)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"attach: {error}") from error


def decode_answer(packet: bytes) -> Attached | Unattached:
    """Unpacks the service's answer; raises like `decode_request`."""
    try:
        return _to_client.decode(packet)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"attach: {error}") from error
