"""The client's side of shared memory: a ring to write frames into, and who owns its slots."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from algan_stream import shm, wire
from algan_stream.endpoints import is_loopback
from algan_stream.errors import InputError, ProtocolError, SharedMemoryError

log = logging.getLogger(__name__)

ShmMode: TypeAlias = Literal["auto", "always", "never"]
#: Smaller frames are as fast through the socket, and take no memory there.
SMALLEST_BYTES = 64 << 10


class RingLease:
    """A ring that the service gave us, for as long as this object is not closed.

    Args:
        connection: Over which it came; its end gives the ring back.
        segment: Mapped for writing.
    """

    def __init__(self, connection: socket.socket, segment: shm.Segment) -> None:
        self._connection, self._segment = connection, segment
        self.place = segment.place
        # The last one given back is taken first: its memory is in the processor's caches.
        self._free = list(reversed(range(self.place.slots)))
        self._generations = [0] * self.place.slots
        self._by_frame: dict[int, int] = {}

    @property
    def idle(self) -> bool:
        """Whether no frame of ours is in it."""
        return len(self._free) == self.place.slots

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def alive(self) -> bool:
        """Whether the service still holds its end."""
        try:
            return bool(self._connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def begin(self) -> int | None:
        """Takes a free slot and marks it as being written; None if there is none."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._generations[slot] += 1
        self._segment.words[slot] = self._generations[slot] << 1 | 1
        return slot

    def pixels(self, slot: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """A slot as an array to write to."""
        count = int(np.prod(shape))
        return np.frombuffer(self._segment.pixels(slot, count), np.uint8).reshape(shape)

    def commit(self, slot: int, header: wire.SendFrame) -> wire.SendSlot:
        """Marks a slot as written, and the service's from now on; returns what is to be sent."""
        self._segment.words[slot] = self._generations[slot] << 1
        self._by_frame[header.frame_id] = slot
        fields = {name: getattr(header, name) for name in header.__struct_fields__}
        return wire.SendSlot(**fields, ring=self.place.ring, slot=slot, generation=self._generations[slot])

    def cancel(self, slot: int) -> None:
        """Gives a slot back that was not sent."""
        self._free.append(slot)

    def answered(self, frame_id: int) -> None:
        """The service has done with a frame; its slot, if it had one, is free."""
        if (slot := self._by_frame.pop(frame_id, None)) is not None:
            self._free.append(slot)

    @property
    def usable(self) -> bool:
        """Whether it was not closed."""
        return self._connection.fileno() >= 0

    def close(self) -> None:
        """Gives the ring back; what is mapped stays so until nobody looks at it."""
        self._connection.close()


class RingUser:
    """Decides which frames go through shared memory, and holds the ring for them.

    Args:
        endpoint: Of the service.
        mode: `auto`: large frames, where the service is on this host and offers it; `always`: all frames, and
            it is an error if that cannot be; `never`.
        slots: Most frames in it at a time.
        timeout_s: Longest wait for the service to hand out a ring.
    """

    def __init__(self, endpoint: str, mode: ShmMode, slots: int, timeout_s: float) -> None:
        if mode not in get_args(ShmMode):
            raise InputError(f"shm: expected one of {', '.join(get_args(ShmMode))}, got {mode!r}")
        if slots < 1:
            raise InputError(f"slots: expected at least 1, got {slots}")
        self._wanted = mode == "always" or (mode == "auto" and is_local(endpoint))
        self._mode, self._slots, self._timeout_s = mode, slots, timeout_s
        self._lease: RingLease | None = None
        self._refused: tuple[bytes, int] | None = None  # token and size of an offer that came to nothing

    @property
    def active(self) -> bool:
        """Whether there is a ring now."""
        return self._lease is not None

    def wants(self, nbytes: int) -> bool:
        """Whether a frame of that size should go through shared memory, if there is any."""
        return self._wanted and (self._mode == "always" or nbytes >= SMALLEST_BYTES)

    def lease_for(
        self, welcome: wire.Welcome, nbytes: int, settle: Callable[[RingLease], None]
    ) -> RingLease | None:
        """The ring for a frame of that size, or None: through the socket.

        Args:
            welcome: The service's latest.
            nbytes: Of the frame.
            settle: Waits until a ring is idle; called before a larger one takes its place.

        Raises:
            SharedMemoryError: `always`, and there is none.
        """
        lease = self._lease
        if lease is not None and not lease.alive():  # the service is gone, and its ring with it
            self.close()
            lease = None
        if lease is not None and lease.place.slot_bytes >= nbytes:
            return lease
        if welcome.ring is None or self._refused == (welcome.ring.token, nbytes):
            self._complain("the service offers no shared memory")
            return None
        if lease is not None:
            settle(lease)
            self.close()
        try:
            slots = min(self._slots, welcome.credits)
            self._lease = attach(welcome.ring, slots, nbytes, self._timeout_s)
        except SharedMemoryError as error:
            self._refused = welcome.ring.token, nbytes
            log.info("frames go through the socket: %s", error)
            self._complain(str(error))
        return self._lease

    def answered(self, frame_id: int | None) -> None:
        """The service has done with a frame."""
        if self._lease is not None and frame_id is not None:
            self._lease.answered(frame_id)

    def close(self) -> None:
        """Gives the ring back, if there is one."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def _complain(self, why: str) -> None:
        if self._mode == "always":
            raise SharedMemoryError(f"{why}; shm='auto' would send frames through the socket")


class Slot:
    """Room for one frame, to be written to in place; see `Client.slot`.

    Attributes:
        image: uint8 (H, W, 3) or (H, W), to be filled; read-only once it is sent. At first it holds what is
            left over from another frame.
        sent: Whether it was.
    """

    def __init__(self, image: npt.NDArray[np.uint8], send: Callable[..., int]) -> None:
        self.image = image
        self.sent = False
        self._send = send

    def send(
        self,
        *,
        boxes: npt.ArrayLike | None = None,
        part_id: str = "",
        deadline_ms: float | None = None,
        captured_ns: int | None = None,
    ) -> int:
        """Sends what stands in `image`; arguments, result and errors as of `Client.send`. Once only."""
        if self.sent:
            raise InputError("slot: expected to be sent once; take another one for the next frame")
        frame_id = self._send(boxes, part_id, deadline_ms, captured_ns)
        self.sent = True
        self.image.flags.writeable = False  # it is the service's now
        return frame_id


def attach(offer: wire.RingOffer, slots: int, slot_bytes: int, timeout_s: float) -> RingLease:
    """Gets a ring from the service.

    Raises:
        SharedMemoryError: The service has none to give, or is on another host or another user's.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptors: list[int] = []
    try:
        connection.settimeout(timeout_s)
        connection.connect(offer.path)
        connection.send(shm.encode(shm.Attach(token=offer.token, slots=slots, slot_bytes=slot_bytes)))
        packet, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        answer = shm.decode_answer(packet)
        if isinstance(answer, shm.Unattached):
            raise SharedMemoryError(answer.message)
        wanted = shm.layout(answer.ring, slots, slot_bytes)
        if answer != wanted or len(descriptors) != 1:
            raise SharedMemoryError(f"shared memory: expected {wanted} and memory, got {answer}")
        segment = shm.attach(descriptors[0], answer)
        connection.setblocking(False)
        return RingLease(connection, segment)
    except (OSError, ProtocolError) as error:
        connection.close()
        raise SharedMemoryError(f"shared memory: {offer.path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    finally:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)


def is_local(endpoint: str) -> bool:
    """Whether an endpoint can only be on this host."""
    scheme, _, rest = endpoint.partition("://")
    return scheme == "ipc" or is_loopback(rest.rpartition(":")[0].strip("[]"))
