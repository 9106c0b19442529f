"""Rules about greeting and frames."""

from __future__ import annotations

import math
import struct

from algan_stream.conformance.lab import PIXELS, SIDE, Broken, Lab, Message, expect, rule

# ---- greeting -------------------------------------------------------------------------------------------


@rule
def _welcome(lab: Lab) -> None:
    """Hello is answered by welcome: version 1, the camera, credits, the largest frame."""
    with lab.peer() as peer:
        welcome = peer.hello()
        expect("version", welcome["version"], 1)
        expect("camera", welcome["camera"], "conformance")
        for name in ("credits", "max_frame_bytes"):
            if not (type(welcome[name]) is int and welcome[name] >= 1):
                raise Broken(f"{name}: expected a positive integer, got {welcome[name]!r}")


@rule
def _greeting_refused(lab: Lab) -> None:
    """Another version, a camera name outside [A-Za-z0-9_.-]{1,64}, an unknown key: refused by code."""
    with lab.peer() as peer:
        peer.send({"type": "hello", "version": 2, "camera": "conformance"})
        peer.refusal("version")
        for name in ("a b", "x" * 65, "é"):
            peer.send({"type": "hello", "version": 1, "camera": name})
            peer.refusal("camera")
        peer.send({"type": "hello", "version": 1, "colour": "red"})
        peer.refusal("malformed")
        peer.hello()


@rule
def _hello_first(lab: Lab) -> None:
    """A frame before hello, or after bye, is refused with its id: hello_first."""
    with lab.peer() as peer:
        peer.frame(7)
        peer.refusal("hello_first", 7)
        peer.hello()
        peer.send({"type": "bye"})
        peer.frame(0)
        peer.refusal("hello_first", 0)


@rule
def _garbage(lab: Lab) -> None:
    """What is no message is refused as malformed, and the connection goes on."""
    with lab.peer() as peer:
        for header in (b"", b"\xc1", b"\x81\xa4type\xa5hello", b"\x91" * 100_000, bytes((1 << 20) + 1)):
            peer.send(header)
            peer.refusal("malformed")
        peer.hello()


@rule
def _takes_over(lab: Lab) -> None:
    """A newer client with a camera's name takes it over; the older one is told: superseded."""
    with lab.peer() as older, lab.peer() as newer:
        older.hello()
        newer.hello()
        older.refusal("superseded")
        newer.frame(0)
        newer.verdict(0)


# ---- frames ---------------------------------------------------------------------------------------------


@rule
def _result(lab: Lab) -> None:
    """A frame gets one result, which repeats camera, frame_id, part_id and captured_ns."""
    with lab.peer() as peer:
        peer.hello()
        peer.frame(0, part_id="Teil ä", captured_ns=1 << 62)
        verdict = peer.verdict(0)
        expect("camera", verdict["camera"], "conformance")
        expect("part_id", verdict["part_id"], "Teil ä")
        expect("captured_ns", verdict["captured_ns"], 1 << 62)
        if verdict["outcome"] not in ("scored", "dropped", "expired", "failed"):
            raise Broken(f"outcome: got {verdict['outcome']!r}")


@rule
def _boxes(lab: Lab) -> None:
    """Boxes come back in order, one verdict each; an empty list of them is unknown, never pass."""
    with lab.peer() as peer:
        peer.hello()
        boxes = [[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 40.0, 24.5], [100.0, 100.0, 120.0, 120.0]]
        peer.frame(0, boxes=boxes)
        verdict = peer.verdict(0)
        expect("boxes", [box["box"] for box in verdict["boxes"]], boxes)
        expect("verdict on a box outside the image", verdict["boxes"][2]["verdict"], "unknown")
        peer.frame(1, boxes=[])
        expect("verdict", peer.verdict(1)["verdict"], "unknown")


@rule
def _malformed_frames(lab: Lab) -> None:
    """A frame that says something impossible is answered, unknown, malformed_frame; the next one counts."""
    broken: list[tuple[Message, tuple[bytes, ...]]] = [
        ({"height_px": SIDE + 1}, (PIXELS,)),
        ({"width_px": 0}, (PIXELS,)),
        ({"pixel_format": "bgr8"}, (PIXELS,)),
        ({"deadline_ms": math.nan}, (PIXELS,)),
        ({"deadline_ms": 3_600_001.0}, (PIXELS,)),
        ({"boxes": [[0.0, 0.0, 1.0, 1.0]] * 4097}, (PIXELS,)),
        ({}, (PIXELS, b"more")),
    ]
    with lab.peer() as peer:
        peer.hello()
        for frame_id, (change, payload) in enumerate(broken):
            peer.frame(frame_id, *payload, **change)
            peer.unknown(frame_id, "malformed_frame")
        peer.frame(len(broken))
        peer.verdict(len(broken))


@rule
def _ids(lab: Lab) -> None:
    """Ids may leave gaps and start at hello's next_id, but never go back: refused, malformed, by id."""
    with lab.peer() as peer:
        peer.hello(next_id=5)
        for frame_id in (5, 9):
            peer.frame(frame_id)
            peer.verdict(frame_id)
        for frame_id in (9, 3, -1):
            peer.frame(frame_id)
            peer.refusal("malformed", frame_id)


@rule
def _deadline(lab: Lab) -> None:
    """A frame whose deadline is over is unknown."""
    with lab.peer() as peer:
        peer.hello()
        peer.frame(0, deadline_ms=-1.0)
        expect("verdict", peer.verdict(0)["verdict"], "unknown")


@rule
def _credits(lab: Lab) -> None:
    """Frames beyond the credits are answered all the same, each of them once."""
    with lab.peer() as peer:
        count = peer.hello()["credits"] + 20
        for frame_id in range(count):
            peer.frame(frame_id)
        answered = sorted(peer.answer("result")["verdict"]["frame_id"] for _ in range(count))
        expect("frames answered", answered, list(range(count)))


@rule
def _vectors(lab: Lab) -> None:
    """A vector counts with the frames; one of the wrong length is unknown, malformed_frame."""
    with lab.peer() as peer:
        peer.hello()
        header = {"type": "vector", "frame_id": 0, "dtype": "f32", "length": 3, "captured_ns": 1}
        peer.send(header, struct.pack("<3f", 1, 2, 3))
        peer.verdict(0)
        peer.send({**header, "frame_id": 1}, struct.pack("<2f", 1, 2))
        peer.unknown(1, "malformed_frame")
