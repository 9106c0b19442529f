"""The service's side of shared memory: hands each client a ring of its own, and takes it back.

A Unix socket (0600) beside the ZeroMQ one gives out file descriptors. The connection over which a client got
its ring stays open, so that the kernel itself tells us when the client is gone, however it ended. Everything
here runs in the thread of the source; nothing blocks.

Nothing that a client says or writes is trusted: a descriptor must name its own ring, a slot that is free, a
higher generation than the last, and no more bytes than there are; and the slot's control word must agree.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from algan_stream import shm, wire
from algan_stream.errors import ConfigError, ProtocolError, SharedMemoryError
from algan_stream.logs import SeldomWarning

_seldom = SeldomWarning(logging.getLogger(__name__))  # strangers must not fill the log

#: Without a number in the configuration, rings may take this much, or a quarter of what is free.
DEFAULT_BYTES = 512 << 20
#: A client that is gone may have frames on their way through the socket; for so long its ring is kept.
_GRACE_S = 2.0
_LONGEST_PATH = 107
_LONGEST_REQUEST = 256


@dataclass(eq=False)
class Ring:
    """One client's memory, as the service sees it; only `busy` and `used` say who owns a slot."""

    segment: shm.Segment
    busy: set[int] = field(default_factory=set)
    #: Last generation taken from each slot.
    used: dict[int, int] = field(default_factory=dict)

    def take(self, header: wire.SendSlot) -> memoryview:
        """Pixels of an announced frame; the slot is the service's until `give_back`.

        Raises:
            ProtocolError: The descriptor does not fit the ring, or the slot was not written to its end.
        """
        place, slot, count = self.segment.place, header.slot, wire.image_bytes(header)
        if header.ring != place.ring:
            raise ProtocolError(f"ring: expected {place.ring}, got {header.ring}")
        if not 0 <= slot < place.slots:
            raise ProtocolError(f"slot: expected 0 to {place.slots - 1}, got {slot}")
        if count > place.slot_bytes:
            raise ProtocolError(f"slot: expected at most {place.slot_bytes} bytes, got {count}")
        if slot in self.busy:
            raise ProtocolError(f"slot: {slot} still holds a frame without result")
        last = self.used.get(slot, 0)
        if not last < header.generation < 1 << 63:
            raise ProtocolError(
                f"generation: expected more than {last} in slot {slot}, got {header.generation}"
            )
        if not self.intact(header):
            raise ProtocolError(f"slot: {slot} was not written to its end")
        self.busy.add(slot)
        self.used[slot] = header.generation
        return self.segment.pixels(slot, count)

    def intact(self, header: wire.SendSlot) -> bool:
        """Whether the slot still says that it holds that frame, whole."""
        return int(self.segment.words[header.slot]) == header.generation << 1

    def give_back(self, slot: int) -> None:
        """The frame's verdict is out: nobody reads the slot any more."""
        self.busy.discard(slot)


@dataclass(eq=False)
class _Lease:
    """A connection, and the ring that was given over it."""

    connection: socket.socket
    identity: bytes = b""
    ring: Ring | None = None
    gone_s: float = 0.0


class RingHost:
    """Gives out rings over a Unix socket.

    Args:
        endpoint: Where the ZeroMQ socket is bound; for `ipc://PATH` the Unix socket is `PATH.ring`.
        limit_bytes: Most memory of all rings together; None: `DEFAULT_BYTES`, or a quarter of what is free.
        max_slots: Most slots of a ring.
        max_slot_bytes: Most bytes of a slot.
        max_clients: Rings at the same time.

    Raises:
        ConfigError: There is not that much memory, or no shared memory at all.
    """

    def __init__(
        self, endpoint: str, limit_bytes: int | None, max_slots: int, max_slot_bytes: int, max_clients: int
    ) -> None:
        self._limit = _checked_limit(limit_bytes)
        self._max_slots, self._max_slot_bytes = max_slots, max_slot_bytes
        self._most_connections = 2 * max_clients + 16
        self._tokens: dict[bytes, bytes] = {}  # by identity
        self._owners: dict[bytes, bytes] = {}  # by token
        self._rings: dict[bytes, _Lease] = {}  # by identity
        self._leases: dict[int, _Lease] = {}  # by file descriptor
        self._orphans: list[_Lease] = []  # their client is gone, or has another ring
        self._folder: Path | None = None
        self._path = self._free_path(endpoint)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        previous = os.umask(0o177)  # 0600 from its first moment
        try:
            self._listener.bind(str(self._path))
            self._listener.listen(64)
        except OSError as error:
            self._listener.close()
            raise ConfigError(f"bind: cannot bind {self._path}: {error.strerror}") from error
        finally:
            os.umask(previous)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when `serve` has something to do."""
        return self._epoll.fileno()

    def offer(self, identity: bytes) -> wire.RingOffer:
        """What a client's welcome says; the same for the same client."""
        if identity not in self._tokens:
            token = self._tokens[identity] = secrets.token_bytes(16)
            self._owners[token] = identity
        return wire.RingOffer(path=str(self._path), token=self._tokens[identity])

    def take(self, identity: bytes, header: wire.SendSlot) -> tuple[Ring, memoryview]:
        """The ring and the pixels of an announced frame.

        Raises:
            ProtocolError: As `Ring.take`, or the client has no ring.
        """
        lease = self._rings.get(identity)
        if lease is None or lease.ring is None:
            raise ProtocolError("ring: expected a client that has attached one")
        return lease.ring, lease.ring.take(header)

    def serve(self, *, quiet: bool) -> None:
        """Accepts, answers and notices who is gone.

        Args:
            quiet: No message of a client waits any more: what the dead have announced has been taken.
        """
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept()
            elif (lease := self._leases.get(descriptor)) is not None:
                self._read(lease)
        overdue = time.monotonic() - _GRACE_S
        for lease in [lease for lease in self._rings.values() if quiet and 0 < lease.gone_s < overdue]:
            self._retire(lease)
        self._orphans = [lease for lease in self._orphans if lease.ring and lease.ring.busy]

    def drop(self, identity: bytes) -> None:
        """Takes a client's ring back at once; pixels that are still in use stay until they are not."""
        self._owners.pop(self._tokens.pop(identity, b""), None)
        if (lease := self._rings.get(identity)) is not None:
            self._hang_up(lease)
            self._retire(lease)

    def held_bytes(self) -> int:
        """Memory of all rings."""
        leases = (*self._rings.values(), *self._orphans)
        return sum(lease.ring.segment.place.size_bytes for lease in leases if lease.ring)

    def close(self) -> None:
        """Ends all connections and removes the socket."""
        for lease in list(self._leases.values()):
            self._hang_up(lease)
        self._rings.clear()
        self._epoll.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _free_path(self, endpoint: str) -> Path:
        scheme, _, rest = endpoint.partition("://")
        path = Path(f"{rest}.ring")
        if scheme != "ipc" or len(os.fsencode(path)) > _LONGEST_PATH:
            self._folder = Path(tempfile.mkdtemp(prefix="algan-"))  # 0700
            return self._folder / "ring"
        # The ZeroMQ socket is ours by now, so what a killed service left beside it is nobody's.
        if path.is_socket():
            path.unlink()
        return path

    def _accept(self) -> None:
        with suppress(OSError):  # it is gone again, or we have no descriptors left
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._leases) >= self._most_connections:
                for idle in [lease for lease in self._leases.values() if lease.ring is None]:
                    self._hang_up(idle)
            self._leases[connection.fileno()] = _Lease(connection)
            self._epoll.register(connection, select.EPOLLIN)

    def _read(self, lease: _Lease) -> None:
        try:
            packet = lease.connection.recv(_LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet or lease.ring is not None:  # the end; nothing else is said over it
            self._hang_up(lease)
            lease.gone_s = time.monotonic()
            return
        try:
            self._answer(lease, shm.decode_request(packet))
        except (ProtocolError, SharedMemoryError) as error:
            _seldom.warning("no shared memory for a client: %s", error)
            with suppress(OSError):
                lease.connection.send(shm.encode(shm.Unattached(message=str(error))))
            self._hang_up(lease)
        except OSError as error:
            _seldom.warning("no shared memory for a client: %s", error.strerror)
            self._hang_up(lease)

    def _answer(self, lease: _Lease, request: shm.Attach) -> None:
        identity = self._owners.get(request.token)
        if identity is None:
            raise ProtocolError("attach: expected the token of a welcome")
        for name, value, most in (
            ("slots", request.slots, self._max_slots),
            ("slot_bytes", request.slot_bytes, self._max_slot_bytes),
        ):
            if not 1 <= value <= most:
                raise ProtocolError(f"attach: {name}: expected 1 to {most}, got {value}")
        if (old := self._rings.get(identity)) is not None:
            self._hang_up(old)
            self._retire(old)
        place = shm.layout(secrets.randbits(62), request.slots, request.slot_bytes)
        if place.size_bytes > (left := self._limit - self.held_bytes()):
            raise SharedMemoryError(
                f"shared memory: {place.size_bytes} bytes are wanted, {left} of shared_memory_bytes are left"
            )
        descriptor = shm.create(place)
        try:
            segment = shm.Segment(descriptor, place, writable=False)
            socket.send_fds(lease.connection, [shm.encode(place)], [descriptor])
        finally:
            os.close(descriptor)
        lease.identity, lease.ring = identity, Ring(segment)
        self._rings[identity] = lease

    def _retire(self, lease: _Lease) -> None:
        if self._rings.get(lease.identity) is lease:
            del self._rings[lease.identity]
        self._orphans.append(lease)

    def _hang_up(self, lease: _Lease) -> None:
        if self._leases.pop(lease.connection.fileno(), None) is not None:
            self._epoll.unregister(lease.connection)
            lease.connection.close()


def _checked_limit(limit_bytes: int | None) -> int:
    """What all rings together may take; tries once whether this system can do it at all."""
    left = shm.memory_left()
    limit = min(DEFAULT_BYTES, left // 4) if limit_bytes is None else limit_bytes
    if limit > left:
        raise ConfigError(
            f"shared_memory_bytes: expected at most the {left} bytes that are free, got {limit}; "
            "choose fewer, or 0 for none"
        )
    try:
        os.close(shm.create(shm.layout(0, 1, 4096)))
    except SharedMemoryError as error:
        raise ConfigError(f"{error}; `shared_memory_bytes: 0` does without") from error
    return limit
