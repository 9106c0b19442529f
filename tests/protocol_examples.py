"""The byte-level examples of docs/protocol.md, made by the code; this file, run, prints them."""

from __future__ import annotations

import sys

from algan_stream import shm, wire
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, StageTimes, VerdictKind

_TOKEN = bytes(range(16))
_VERDICT = FrameVerdict(
    camera="c1",
    frame_id=0,
    part_id="A-17",
    verdict=VerdictKind.PASS,
    boxes=(BoxVerdict(verdict=VerdictKind.PASS, score=-1.5, p_value=0.5),),
    outcome=Outcome.SCORED,
    captured_ns=1_800_000_000_000_000_000,
    threshold=0.25,
    model="0123456789ab",
    engine="openvino 2026.4 CPU fp32",
    stages=StageTimes(queue_ms=0.5, preprocess_ms=0.25, infer_ms=2.0, total_ms=3.0),
)
_FRAME = wire.SendFrame(
    frame_id=0,
    height_px=2,
    width_px=2,
    pixel_format="bgr8",
    captured_ns=1_800_000_000_000_000_000,
    boxes=[(0.0, 0.0, 2.0, 1.5)],
    part_id="A-17",
    deadline_ms=100.0,
)
_PLACE = shm.layout(0x0123456789ABCDEF, 8, 6_220_800)
_FIELDS = {name: getattr(_FRAME, name) for name in _FRAME.__struct_fields__}

EXAMPLES: dict[str, bytes] = {
    "hello": wire.encode(wire.Hello(version=1, camera="c1")),
    "welcome": wire.encode(
        wire.Welcome(
            version=1,
            camera="c1",
            credits=16,
            max_frame_bytes=64 << 20,
            ring=wire.RingOffer(path="/run/a.ring", token=_TOKEN),
        )
    ),
    "frame, first part": wire.encode(_FRAME),
    "frame, second part": bytes(range(12)),
    "slot": wire.encode(wire.SendSlot(**_FIELDS, ring=_PLACE.ring, slot=3, generation=1)),
    "vector, first part": wire.encode(
        wire.SendVector(frame_id=1, dtype="f32", length=2, captured_ns=1_800_000_000_000_000_000)
    ),
    "vector, second part": b"\x00\x00\x80\x3f\x00\x00\x00\xc0",
    "result": wire.encode(wire.Result(verdict=_VERDICT)),
    "refusal": wire.encode(wire.Refusal(code="hello_first", message="expected hello", frame_id=7)),
    "closing": wire.encode(wire.Closing()),
    "bye": wire.encode(wire.Bye()),
    "published, topic": wire.TOPIC_PREFIX + b"c1",
    "published, place": wire.encode(wire.Place(run=1_800_000_000_000_000_000, sequence=41)),
    "attach": shm.encode(shm.Attach(token=_TOKEN, slots=8, slot_bytes=6_220_800)),
    "attached": shm.encode(_PLACE),
    "unattached": shm.encode(shm.Unattached(message="none left")),
    "ring header": shm.header_of(_PLACE),
    "control word of a slot that is written for the first time": (1 << 1 | 1).to_bytes(8, "little"),
    "control word of a slot that holds its first frame": (1 << 1).to_bytes(8, "little"),
}


def dump(data: bytes) -> str:
    """As `hexdump -C` has it."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:04x}  {row.hex(' '):<47}  |{text}|")
    return "\n".join(lines)


if __name__ == "__main__":
    for name, data in EXAMPLES.items():
        sys.stdout.write(f"Example, {name}:\n\n```\n{dump(data)}\n```\n\n")
