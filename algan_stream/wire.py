"""Wire protocol v1: ZeroMQ multipart messages, a msgpack header and for frames one payload of raw pixels.

A vector of features is a frame of another shape: it shares ids, credits and results with images. On one
host pixels may lie in shared memory instead (see `shm.py`), and `SendSlot` says where. In full:
docs/protocol.md.

Client (DEALER) → service (ROUTER): `Hello`, `SendFrame` + pixels, `SendSlot`, `SendVector` + numbers, `Bye`.
Service → client: `Welcome`, `Result`, `Refusal`, `Closing`.
Service → anyone (PUB): topic `verdict.CAMERA`, a `FrameVerdict`, and its `Place` in what is published.

A client whose connection broke begins anew with `Hello`: what it had no answer to by then never gets one.
A client may have `credits` frames without a result; each `Result` gives one credit back.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import ProtocolError
from algan_stream.types import MAX_FEATURES, FrameVerdict, PixelFormat

VERSION = 1
#: Longest header accepted; boxes of one frame make up nearly all of it.
MAX_HEADER_BYTES = 1 << 20
#: Most boxes of one frame.
MAX_BOXES = 4096
#: Furthest deadline of a frame: an hour.
MAX_DEADLINE_MS = 3_600_000
TOPIC_PREFIX = b"verdict."


class Hello(msgspec.Struct, tag="hello", forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """First message of a client.

    Attributes:
        version: Of this protocol.
        camera: Name under which the frames are accounted; empty: the service's configured one. A newer
            client with the same name takes the camera over.
        next_id: Frame id that comes next; more than 0 for a client that goes on over a new connection.
    """

    version: int
    camera: str = ""
    next_id: int = 0


class SendFrame(msgspec.Struct, tag="frame", forbid_unknown_fields=True, kw_only=True):
    """Header of a frame; the second part of the message is its pixels, row after row without gaps.

    Attributes:
        frame_id: Counts up by one from the `next_id` of `Hello`; a gap means that frames were lost before.
        height_px: Height of the image.
        width_px: Width of the image.
        pixel_format: Order of the bytes of a pixel.
        captured_ns: Unix time of capture in nanoseconds.
        boxes: xyxy float pixels, or None: the whole frame is scored.
        part_id: The caller's own name for the frame or part.
        deadline_ms: A verdict later than this after arrival is worthless.
    """

    frame_id: int
    height_px: int
    width_px: int
    pixel_format: PixelFormat
    captured_ns: int
    boxes: list[tuple[float, float, float, float]] | None = None
    part_id: str = ""
    deadline_ms: float | None = None


class SendSlot(SendFrame, tag="slot", forbid_unknown_fields=True, kw_only=True):
    """Header of a frame whose pixels stand in a slot of the client's ring; it has no second part.

    Attributes:
        ring: The ring, as the service numbered it when it was attached.
        slot: Which one, from 0; the client may not touch it until the frame's result is there.
        generation: How often the slot has been used, this time included; the slot's control word must say
            the same.
    """

    ring: int
    slot: int
    generation: int


class SendVector(msgspec.Struct, tag="vector", forbid_unknown_fields=True, kw_only=True):
    """Header of a feature vector; the second part of the message is its numbers, little-endian.

    Attributes:
        frame_id: As for `SendFrame`; both count together.
        dtype: Of a number; `f32` takes 4 bytes.
        length: How many there are.
        captured_ns: Unix time of measurement in nanoseconds.
        part_id: The caller's own name for the vector or part.
        deadline_ms: A verdict later than this after arrival is worthless.
    """

    frame_id: int
    dtype: Literal["f32"]
    length: int
    captured_ns: int
    part_id: str = ""
    deadline_ms: float | None = None


class Bye(msgspec.Struct, tag="bye", forbid_unknown_fields=True):
    """The client will send no more."""


class RingOffer(msgspec.Struct, kw_only=True):
    """Where a client on the same host gets shared memory.

    Attributes:
        path: Unix socket (SEQPACKET) that hands it out.
        token: Says there which client asks; 16 bytes.
    """

    path: str
    token: bytes


class Welcome(msgspec.Struct, tag="welcome", kw_only=True, omit_defaults=True):
    """Answer to `Hello`.

    Attributes:
        version: Of this protocol.
        camera: Name under which the frames are accounted.
        credits: Frames that may be without a result at any time.
        max_frame_bytes: Largest payload accepted.
        ring: The offer of shared memory, if there is one; who does not know it may ignore it.
    """

    version: int
    camera: str
    credits: int
    max_frame_bytes: int
    ring: RingOffer | None = None


class Result(msgspec.Struct, tag="result", kw_only=True):
    """The verdict on one frame; gives one credit back."""

    verdict: FrameVerdict


class Refusal(msgspec.Struct, tag="refusal", kw_only=True):
    """A message that could not be taken, and why.

    Attributes:
        code: `malformed`, `version`, `camera`, `hello_first`, `superseded`, `full`.
        message: What was expected and what came.
        frame_id: The frame in question, if the message was one; it has no other answer.
    """

    code: str
    message: str
    frame_id: int | None = None


class Closing(msgspec.Struct, tag="closing"):
    """The service stops: send no more; results on frames it has will still come."""


class Place(msgspec.Struct, kw_only=True):
    """Where a published verdict stands, so that a subscriber can count what it missed.

    Attributes:
        run: Unix time in nanoseconds at which the publisher was opened; another one after a restart.
        sequence: Counts up by one from 0 in each run, for each topic.
    """

    run: int
    sequence: int


Announcement: TypeAlias = SendFrame | SendSlot | SendVector
ToService: TypeAlias = Hello | Announcement | Bye
ToClient: TypeAlias = Welcome | Result | Refusal | Closing

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_to_service: msgspec.msgpack.Decoder[ToService] = msgspec.msgpack.Decoder(ToService)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)
_verdict = msgspec.msgpack.Decoder(FrameVerdict)
_place = msgspec.msgpack.Decoder(Place)


def encode(message: ToService | ToClient | FrameVerdict | Place) -> bytes:
    """Packs a header."""
    return _encoder.encode(message)


def decode_to_service(header: bytes | memoryview) -> ToService:
    """Unpacks what a client sent.

    Raises:
        ProtocolError: It is too long, not msgpack, or not a message of this protocol.
    """
    return _decode(_to_service, header)


def decode_to_client(header: bytes | memoryview) -> ToClient:
    """Unpacks what the service sent to a client; raises like `decode_to_service`."""
    return _decode(_to_client, header)


def decode_verdict(payload: bytes | memoryview) -> FrameVerdict:
    """Unpacks what the service published; raises like `decode_to_service`."""
    return _decode(_verdict, payload)


def decode_place(payload: bytes | memoryview) -> Place:
    """Unpacks the third part of what the service published; raises like `decode_to_service`."""
    return _decode(_place, payload)


def image_of(header: SendFrame, payload: memoryview) -> npt.NDArray[np.uint8]:
    """Views a frame's payload as an image, without copying: (H, W, 3), or (H, W) for grey.

    Raises:
        ProtocolError: Size and payload disagree.
    """
    expected, channels = image_bytes(header), 1 if header.pixel_format == "grey8" else 3
    if payload.nbytes != expected:
        raise ProtocolError(
            f"payload: expected {header.height_px}×{header.width_px}×{channels} = {expected} bytes for "
            f"{header.pixel_format}, got {payload.nbytes}"
        )
    shape = (header.height_px, header.width_px) + ((3,) if channels == 3 else ())
    return np.frombuffer(payload, np.uint8).reshape(shape)


def image_bytes(header: SendFrame) -> int:
    """Size of a frame's pixels.

    Raises:
        ProtocolError: A side is out of range.
    """
    if not (1 <= header.height_px <= 65_535 and 1 <= header.width_px <= 65_535):
        raise ProtocolError(f"size: expected 1 to 65535 px, got {header.width_px}×{header.height_px}")
    return header.height_px * header.width_px * (1 if header.pixel_format == "grey8" else 3)


def vector_of(header: SendVector, payload: memoryview) -> npt.NDArray[np.float32]:
    """Views a payload as a vector, (length,) little-endian float32, without copying.

    Raises:
        ProtocolError: Length and payload disagree.
    """
    if not 1 <= header.length <= MAX_FEATURES:
        raise ProtocolError(f"length: expected 1 to {MAX_FEATURES}, got {header.length}")
    if payload.nbytes != 4 * header.length:
        raise ProtocolError(
            f"payload: expected {header.length}×4 = {4 * header.length} bytes for f32, got {payload.nbytes}"
        )
    return np.frombuffer(payload, "<f4")


def boxes_of(header: SendFrame) -> npt.NDArray[np.float32] | None:
    """The frame's boxes as (N, 4) float32 xyxy, or None.

    Raises:
        ProtocolError: There are more than `MAX_BOXES`.
    """
    if header.boxes is None:
        return None
    if len(header.boxes) > MAX_BOXES:
        raise ProtocolError(f"boxes: expected at most {MAX_BOXES}, got {len(header.boxes)}")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and then no usable box
        return np.asarray(header.boxes, np.float32).reshape(-1, 4)


def deadline_of(header: Announcement) -> float | None:
    """The frame's deadline in milliseconds after its arrival, or None; below 0 it is over already.

    Raises:
        ProtocolError: It is not a number, or further away than `MAX_DEADLINE_MS`.
    """
    if header.deadline_ms is not None and not abs(header.deadline_ms) <= MAX_DEADLINE_MS:
        raise ProtocolError(f"deadline_ms: expected up to {MAX_DEADLINE_MS}, got {header.deadline_ms}")
    return header.deadline_ms


def _decode(decoder: msgspec.msgpack.Decoder[_T], header: bytes | memoryview) -> _T:
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(f"header: expected at most {MAX_HEADER_BYTES} bytes, got {len(header)}")
    try:
        return decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"header: {error}") from error
