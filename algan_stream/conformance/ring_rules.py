"""Rules about shared memory."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time

import msgspec

from algan_stream.conformance.lab import PATIENCE_MS, PIXELS, SIDE, Broken, Lab, Message, Peer, expect, rule


class Ring:
    """A ring attached by hand."""

    def __init__(self, offer: Message, slots: int, slot_bytes: int) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(PATIENCE_MS / 1000)
        self.connection.connect(offer["path"])
        request = {"type": "attach", "token": offer["token"], "slots": slots, "slot_bytes": slot_bytes}
        self.connection.send(msgspec.msgpack.encode(request))
        packet, descriptors, _, _ = socket.recv_fds(self.connection, 4096, 1)
        self.place: Message = msgspec.msgpack.decode(packet)
        expect("type", self.place["type"], "attached")
        self.size = self.place["first_byte"] + slots * self.place["stride_bytes"]
        expect("size of the memory", os.fstat(descriptors[0]).st_size, self.size)
        try:
            os.ftruncate(descriptors[0], 0)
        except PermissionError:
            pass
        else:
            raise Broken("the memory's size: expected it to be sealed, but it could be shrunk")
        self.memory = mmap.mmap(descriptors[0], self.size)
        os.close(descriptors[0])

    def write(self, slot: int, generation: int, pixels: bytes = PIXELS) -> None:
        """Writes a slot to its end."""
        struct.pack_into("<Q", self.memory, 64 * (1 + slot), generation << 1 | 1)
        start = self.place["first_byte"] + slot * self.place["stride_bytes"]
        self.memory[start : start + len(pixels)] = pixels
        struct.pack_into("<Q", self.memory, 64 * (1 + slot), generation << 1)

    def close(self) -> None:
        """Gives it back."""
        self.connection.close()


def _slot(ring: Ring, slot: int, generation: int) -> Message:
    return {"type": "slot", "ring": ring.place["ring"], "slot": slot, "generation": generation}


def _offer(peer: Peer) -> Message | None:
    offer: Message | None = peer.hello().get("ring")
    return offer if offer is not None and os.path.exists(offer["path"]) else None  # noqa: PTH110


_NO_RING = "the service offers no shared memory here"


@rule
def _ring_header(lab: Lab) -> str | None:
    """The ring has the size and the header that the answer to attach says, and cannot be shrunk."""
    with lab.peer() as peer:
        if (offer := _offer(peer)) is None:
            return _NO_RING
        ring = Ring(offer, 3, len(PIXELS) + 1)
        place = ring.place
        expect("stride_bytes", place["stride_bytes"], 8192)
        expect("first_byte", place["first_byte"], 4096)
        numbers = (1, 3, len(PIXELS) + 1, 8192, 4096, place["ring"])
        expect("header", struct.unpack("<8sIIQQQQ", ring.memory[:48]), (b"ALGNRING", *numbers))
        ring.close()
        return None


@rule
def _ring_frames(lab: Lab) -> str | None:
    """A frame in a slot gets its result; then the slot may be used again, with a higher generation."""
    with lab.peer() as peer:
        if (offer := _offer(peer)) is None:
            return _NO_RING
        ring = Ring(offer, 2, len(PIXELS))
        for frame_id in range(6):
            ring.write(frame_id % 2, 1 + frame_id // 2)
            _announce(peer, frame_id, _slot(ring, frame_id % 2, 1 + frame_id // 2))
            if peer.verdict(frame_id)["reason"].startswith("malformed_frame"):
                raise Broken("a well-formed descriptor was called malformed")
        ring.close()
        return None


@rule
def _ring_distrust(lab: Lab) -> str | None:
    """A descriptor of another ring, slot, size or generation, or of a slot half written, is unknown."""
    with lab.peer() as peer:
        if (offer := _offer(peer)) is None:
            return _NO_RING
        ring = Ring(offer, 2, len(PIXELS))
        ring.write(0, 3)
        struct.pack_into("<Q", ring.memory, 64 * 2, 1 << 1 | 1)  # slot 1 is being written
        good = _slot(ring, 0, 3)
        changes: list[Message] = [
            {"ring": good["ring"] ^ 1},
            {"slot": 2},
            {"slot": -1},
            {"generation": 2},
            {"height_px": SIDE + 1},
            {"slot": 1, "generation": 1},
        ]
        for frame_id, change in enumerate(changes):
            _announce(peer, frame_id, {**good, **change})
            peer.unknown(frame_id, "malformed_frame")
        _announce(peer, len(changes), good)
        peer.verdict(len(changes))
        _announce(peer, len(changes) + 1, good)  # the same generation again
        peer.unknown(len(changes) + 1, "malformed_frame")
        ring.close()
        return None


def _announce(peer: Peer, frame_id: int, slot: Message) -> None:
    header = {
        "frame_id": frame_id,
        "height_px": SIDE,
        "width_px": SIDE,
        "pixel_format": "grey8",
        "captured_ns": time.time_ns(),
    }
    peer.send({**header, **slot})
