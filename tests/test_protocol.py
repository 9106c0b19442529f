"""docs/protocol.md says what the code does, and the conformance check tells services that do not."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from algan_stream import shm, wire
from algan_stream.bundle import Bundle
from algan_stream.conformance import RULES, Lab
from algan_stream.types import MAX_FEATURES, BoxVerdict, FrameVerdict, StageTimes
from processes import Service, algan_stream
from protocol_examples import EXAMPLES, dump
from test_zmq_source import Host, hosts

__all__ = ["hosts"]  # a fixture

_DOCUMENT = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text("utf-8")


def test_every_example_is_what_the_code_makes() -> None:
    shown = dict(re.findall(r"^Example, ([^:]+):\n\n```\n(.*?)\n```$", _DOCUMENT, re.MULTILINE | re.DOTALL))
    assert shown == {name: dump(data) for name, data in EXAMPLES.items()}


@pytest.mark.parametrize(
    "message",
    [
        *(
            wire.Hello,
            wire.SendFrame,
            wire.SendSlot,
            wire.SendVector,
            wire.Welcome,
            wire.Result,
            wire.Refusal,
        ),
        *(wire.Place, wire.RingOffer, shm.Attach, shm.Attached, shm.Unattached),
        *(FrameVerdict, BoxVerdict, StageTimes),
    ],
)
def test_every_key_is_in_the_document(message: type[msgspec.Struct]) -> None:
    for key in message.__struct_fields__:
        assert f"`{key}`" in _DOCUMENT or f"`boxes[].{key}`" in _DOCUMENT, key


def test_every_limit_is_in_the_document() -> None:
    for limit in (wire.MAX_HEADER_BYTES, wire.MAX_BOXES, wire.MAX_DEADLINE_MS, MAX_FEATURES):
        assert f"{limit:,}" in _DOCUMENT


def test_a_real_service_conforms(bundle: Bundle, tmp_path: Path) -> None:
    with Service(tmp_path, bundle.path) as service:
        said = algan_stream("conformance", service.endpoint)
        assert said.returncode == 0, said.stdout + said.stderr
        assert said.stdout.count("pass  ") == len(RULES)
        assert f"{len(RULES)} of {len(RULES)} rules hold" in said.stdout
        assert service.stop() == 0
        frames = service.frames("conformance")
        ends = ("scored", "dropped", "expired", "failed")
        assert frames["received"] == sum(frames[end] for end in ends) > 50


def test_without_shared_memory_its_rules_are_skipped(hosts: Callable[..., Host]) -> None:
    lab = Lab(hosts(shared_memory_bytes=0).endpoint)
    verdicts = list(lab.run())
    lab.close()
    assert [v.why for v in verdicts if v.holds is None] == ["the service offers no shared memory here"] * 3
    assert all(v.holds is not False for v in verdicts)


def test_a_service_that_says_pass_to_everything_does_not(tmp_path: Path) -> None:
    """A conformance check that cannot fail would be worth nothing."""
    endpoint, stop = f"ipc://{tmp_path / 's'}", threading.Event()
    with zmq.Context() as context:
        thread = threading.Thread(target=_yes_man, args=(context, endpoint, stop))
        thread.start()
        lab = Lab(endpoint, patience_ms=500)
        verdicts = list(lab.run())
        lab.close()
        stop.set()
        thread.join(10)
    held = [v.rule for v in verdicts if v.holds]
    assert len(held) <= 3, held
    text = " ".join(v.why for v in verdicts)
    assert "verdict: expected 'unknown', got 'pass'" in text
    assert "expected one part of type refusal" in text


def _yes_man(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, stop: threading.Event) -> None:
    with context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.bind(endpoint)
        while not stop.is_set():
            if not router.poll(50):
                continue
            identity, header, *_ = router.recv_multipart()
            try:
                message = msgspec.msgpack.decode(header)
            except msgspec.DecodeError:
                message = {}
            message = message if isinstance(message, dict) else {}
            answer: dict[str, object] = {"type": "welcome", "version": 1, "credits": 4, "max_frame_bytes": 9}
            answer["camera"] = message.get("camera")
            if "frame_id" in message:
                same = {key: message.get(key) for key in ("frame_id", "part_id", "captured_ns")}
                verdict = {**same, "camera": "conformance", "verdict": "pass", "reason": "", "boxes": []}
                answer = {"type": "result", "verdict": verdict | {"outcome": "scored"}}
            if message.get("type") != "bye":
                router.send_multipart((identity, msgspec.msgpack.encode(answer)))
