"""Wire protocol v1: what is sent arrives, and nothing that arrives can do more than raise ProtocolError."""

from __future__ import annotations

import math
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algan_stream import wire
from algan_stream.errors import ProtocolError
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, StageTimes, VerdictKind

_HEADER = wire.SendFrame(frame_id=3, height_px=2, width_px=3, pixel_format="bgr8", captured_ns=5)
_VERDICT = FrameVerdict(
    camera="c",
    frame_id=3,
    part_id="Teil ä",
    verdict=VerdictKind.REJECT,
    reason="score_above_threshold",
    boxes=(BoxVerdict(box=(0, 1, 2, 3.5), verdict=VerdictKind.REJECT, score=1.5, p_value=0.01),),
    outcome=Outcome.SCORED,
    captured_ns=2**62,
    threshold=1.0,
    stages=StageTimes(total_ms=1.5),
)
_DECODERS = (wire.decode_to_service, wire.decode_to_client, wire.decode_verdict)


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello(version=1, camera="press-3"),
        wire.Hello(version=1, next_id=7),
        wire.Bye(),
        _HEADER,
        msgspec.structs.replace(
            _HEADER, boxes=[(0, 0, 1, 1.5)], part_id="π", deadline_ms=2.5, pixel_format="grey8"
        ),
        msgspec.structs.replace(_HEADER, boxes=[]),
    ],
)
def test_round_trip_to_the_service(message: wire.ToService) -> None:
    assert wire.decode_to_service(wire.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        wire.Welcome(version=1, camera="c", credits=4, max_frame_bytes=9),
        wire.Result(verdict=_VERDICT),
        wire.Refusal(code="full", message="m"),
        wire.Refusal(code="malformed", message="m", frame_id=0),
        wire.Closing(),
    ],
)
def test_round_trip_to_the_client(message: wire.ToClient) -> None:
    assert wire.decode_to_client(wire.encode(message)) == message


def test_round_trip_of_a_verdict() -> None:
    assert wire.decode_verdict(wire.encode(_VERDICT)) == _VERDICT


def test_round_trip_of_a_place() -> None:
    place = wire.Place(run=1_700_000_000_000_000_000, sequence=3)
    assert wire.decode_place(wire.encode(place)) == place
    with pytest.raises(ProtocolError):
        wire.decode_place(wire.encode(wire.Bye()))


def test_a_hello_from_the_start_is_what_it_was_before_clients_could_go_on() -> None:
    assert (
        wire.encode(wire.Hello(version=1, camera="c"))
        == b"\x83\xa4type\xa5hello\xa7version\x01\xa6camera\xa1c"
    )


def test_directions_do_not_mix() -> None:
    with pytest.raises(ProtocolError, match="Invalid value 'welcome'"):
        wire.decode_to_service(wire.encode(wire.Welcome(version=1, camera="", credits=1, max_frame_bytes=1)))
    with pytest.raises(ProtocolError, match="Invalid value 'bye'"):
        wire.decode_to_client(wire.encode(wire.Bye()))


def _decodes_or_refuses(raw: bytes) -> None:
    for decode in _DECODERS:
        with suppress(ProtocolError):
            decode(raw)


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_random_bytes(raw: bytes) -> None:
    _decodes_or_refuses(raw)


@given(data=st.data())
@settings(max_examples=500)
def test_messages_with_a_few_bytes_changed(data: st.DataObject) -> None:
    message = data.draw(
        st.sampled_from([_HEADER, wire.Hello(version=1, camera="cam"), wire.Result(verdict=_VERDICT)])
    )
    raw = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _decodes_or_refuses(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


_packed = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=6,
)


@given(
    fields=st.dictionaries(st.sampled_from((*wire.SendFrame.__struct_fields__, "extra")), _packed, max_size=4)
)
@settings(max_examples=300)
def test_frames_with_any_fields(fields: dict[str, object]) -> None:
    raw = msgspec.msgpack.encode({"type": "frame", **msgspec.to_builtins(_HEADER), **fields})
    try:
        header = wire.decode_to_service(raw)
        assert isinstance(header, wire.SendFrame)
        wire.boxes_of(header)
        wire.image_of(header, memoryview(b"123456"))
        wire.deadline_of(header)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b"\x82\xa4type\xa5hello\xa6camera\xa2\xff\xfe",  # not UTF-8
        b"\x82\xa4type\xa2\xff\xfe",
        b"\x81\xa1x" + b"\x91" * 100_000,  # nested deeper than any stack
        b"",
        b"\xc1",
        b"\x00" * wire.MAX_HEADER_BYTES,
    ],
)
def test_bytes_that_are_meant_to_hurt(raw: bytes) -> None:
    for decode in _DECODERS:
        with pytest.raises(ProtocolError, match=r"^header: "):
            decode(raw)
        with pytest.raises(ProtocolError, match=r"^header: "):
            decode(memoryview(raw))


def test_a_header_that_is_too_long_is_not_even_read() -> None:
    with pytest.raises(ProtocolError, match="expected at most 1048576 bytes, got 1048577"):
        wire.decode_to_service(bytes(wire.MAX_HEADER_BYTES + 1))


@pytest.mark.parametrize(("pixel_format", "size"), [("bgr8", 18), ("rgb8", 18), ("grey8", 6)])
def test_an_image_is_a_view_of_its_payload(pixel_format: str, size: int) -> None:
    payload = bytes(range(size))
    image = wire.image_of(msgspec.structs.replace(_HEADER, pixel_format=pixel_format), memoryview(payload))
    assert image.shape == ((2, 3) if size == 6 else (2, 3, 3))
    assert image.ravel().tolist() == list(payload)
    assert not image.flags.owndata


@pytest.mark.parametrize("size", [0, 17, 19, 6])
def test_payload_and_size_must_agree(size: int) -> None:
    with pytest.raises(ProtocolError, match=rf"payload: expected 2×3×3 = 18 bytes for bgr8, got {size}"):
        wire.image_of(_HEADER, memoryview(bytes(size)))


@pytest.mark.parametrize(("height", "width"), [(0, 3), (2, 0), (-2, -3), (65_536, 1), (1, 2**63)])
def test_sizes_without_sense(height: int, width: int) -> None:
    header = msgspec.structs.replace(_HEADER, height_px=height, width_px=width)
    with pytest.raises(ProtocolError, match="size: expected 1 to 65535 px"):
        wire.image_of(header, memoryview(bytes(18)))


def test_boxes() -> None:
    assert wire.boxes_of(_HEADER) is None
    for boxes in ([], [(0.0, 1.0, 2.0, 3.0)], [(0.0,) * 4] * wire.MAX_BOXES):
        array = wire.boxes_of(msgspec.structs.replace(_HEADER, boxes=boxes))
        assert array is not None
        assert (array.shape, array.dtype) == ((len(boxes), 4), np.float32)
    with pytest.raises(ProtocolError, match="boxes: expected at most 4096, got 4097"):
        wire.boxes_of(msgspec.structs.replace(_HEADER, boxes=[(0.0,) * 4] * (wire.MAX_BOXES + 1)))


def test_a_box_beyond_float32_is_infinite_not_a_warning() -> None:
    array = wire.boxes_of(msgspec.structs.replace(_HEADER, boxes=[(0, 0, 1e300, math.nan)]))
    assert array is not None
    assert array[0, 2] == np.inf
    assert np.isnan(array[0, 3])


@pytest.mark.parametrize("deadline_ms", [None, 0.0, -5.0, 0.25, 3_600_000.0])
def test_deadlines(deadline_ms: float | None) -> None:
    assert wire.deadline_of(msgspec.structs.replace(_HEADER, deadline_ms=deadline_ms)) == deadline_ms


@pytest.mark.parametrize("deadline_ms", [math.nan, math.inf, -math.inf, 1e300, 3_600_001.0])
def test_deadlines_without_sense(deadline_ms: float) -> None:
    with pytest.raises(ProtocolError, match="deadline_ms: expected up to 3600000"):
        wire.deadline_of(msgspec.structs.replace(_HEADER, deadline_ms=deadline_ms))
