"""What every sink must do. A new sink is one line in `SINKS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from algan_stream import plugins, wire
from algan_stream.errors import AlganError, ConfigError
from algan_stream.sinks.base import Sink
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind

Read = Callable[[], list[FrameVerdict]]


def _verdict(frame_id: int, camera: str = "cam", **more: Any) -> FrameVerdict:
    box = BoxVerdict(box=(0.5, 1, 2, 3), verdict=VerdictKind.PASS, score=-1.25, p_value=0.5)
    return FrameVerdict(
        camera=camera,
        frame_id=frame_id,
        verdict=VerdictKind.PASS,
        boxes=(box,),
        outcome=Outcome.SCORED,
        captured_ns=1_700_000_000_000_000_000 + frame_id,
        **more,
    )


def _open(section: dict[str, Any]) -> Sink:
    module, config = plugins.load("sinks", section, "sinks[0]")
    sink: Sink = module.create(config)
    return sink


def _jsonl(folder: Path) -> tuple[Sink, Read]:
    path = folder / "out.jsonl"
    return _open({"kind": "jsonl", "path": str(path)}), lambda: [
        msgspec.json.decode(line, type=FrameVerdict) for line in path.read_bytes().splitlines()
    ]


def _zmq_pub(folder: Path) -> tuple[Sink, Read]:
    sink = _open({"kind": "zmq_pub", "bind": f"ipc://{folder / 'pub'}"})
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, wire.TOPIC_PREFIX)
    socket.connect(f"ipc://{folder / 'pub'}")
    while not socket.poll(20):  # until the subscription has arrived
        sink.write(_verdict(0, camera="warm-up"))

    def read() -> list[FrameVerdict]:
        got = []
        while socket.poll(500):
            topic, payload, _ = socket.recv_multipart()
            verdict = wire.decode_verdict(payload)
            assert topic == wire.TOPIC_PREFIX + verdict.camera.encode()
            got.append(verdict)
        context.destroy(linger=0)
        return [verdict for verdict in got if verdict.camera != "warm-up"]

    return sink, read


#: Opens a sink and says how to read back all that it put out.
SINKS: dict[str, Callable[[Path], tuple[Sink, Read]]] = {"jsonl": _jsonl, "zmq_pub": _zmq_pub}


@pytest.mark.parametrize("kind", SINKS)
def test_every_verdict_comes_out_whole_and_in_order(kind: str, tmp_path: Path) -> None:
    sink, read = SINKS[kind](tmp_path)
    verdicts = [_verdict(i, part_id=f"line\nbreak ä {i}", reason='quote "') for i in range(300)]
    for verdict in verdicts:
        sink.write(verdict)
    sink.close()
    assert read() == verdicts


@pytest.mark.parametrize("kind", SINKS)
def test_close_twice(kind: str, tmp_path: Path) -> None:
    sink, read = SINKS[kind](tmp_path)
    sink.close()
    sink.close()
    assert read() == []


def test_jsonl_is_on_disk_before_the_next_verdict(tmp_path: Path) -> None:
    sink, read = _jsonl(tmp_path)
    for i in range(5):
        sink.write(_verdict(i))
        assert len(read()) == i + 1
    sink.close()


def test_jsonl_appends(tmp_path: Path) -> None:
    for i in range(3):
        sink, read = _jsonl(tmp_path)
        sink.write(_verdict(i))
        sink.close()
    assert [verdict.frame_id for verdict in read()] == [0, 1, 2]


def test_jsonl_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(ConfigError, match="path: cannot write"):
            _open({"kind": "jsonl", "path": str(path)})


def test_zmq_pub_needs_no_subscriber(tmp_path: Path) -> None:
    sink = _open({"kind": "zmq_pub", "bind": f"ipc://{tmp_path / 'pub'}", "high_water_mark": 1})
    for i in range(100):
        sink.write(_verdict(i))
    sink.close()


def test_zmq_pub_that_cannot_be_bound(tmp_path: Path) -> None:
    for bind in ("tcp://0.0.0.0:0", "tcp://127.0.0.1", f"ipc://{tmp_path}"):
        with pytest.raises(AlganError, match="bind: "):
            _open({"kind": "zmq_pub", "bind": bind})
