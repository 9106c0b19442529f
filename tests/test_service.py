"""The service around the pipeline, in one process: what ends it, and how."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from algan_stream import service as service_module
from algan_stream.bundle import Bundle
from algan_stream.client import Client
from algan_stream.config import LineConfig
from algan_stream.errors import AlganError, ConfigError, GateError, ProtocolError
from algan_stream.ledger import Tally
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.types import Frame
from fakes import BrokenSink, FakeEngine, ListSink


@pytest.fixture
def engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Serves instead of the configured engine."""
    made = FakeEngine(spec=bundle.manifest.input_spec)
    monkeypatch.setattr(service_module, "open_engine", lambda *_: made)
    return made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(folder / f"{i:02}.png")
    return folder


def _line(bundle: Bundle, *sources: dict[str, Any], **more: Any) -> LineConfig:
    cameras = [{"id": f"cam{i}", "source": source} for i, source in enumerate(sources)]
    line: LineConfig = convert({"bundle": str(bundle.path), "cameras": cameras, **more}, LineConfig, "")
    return line


def _folder(images: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "path": str(images), **more}


def _runs_within(service: Service, seconds: float) -> list[Any]:
    """What `run` gave or raised; fails if it hangs."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(service.run())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert ended, "run hangs"
    return ended


def test_two_folders_to_their_end(bundle: Bundle, engine: FakeEngine, images: Path) -> None:
    sink = ListSink()
    accounts = Service(_line(bundle, _folder(images), _folder(images)), [sink]).run()
    assert {name: account.frames for name, account in accounts.items()} == {
        "cam0": Tally(received=12, scored=12),
        "cam1": Tally(received=12, scored=12),
    }
    for camera in accounts:
        assert [v.part_id for v in sink.verdicts if v.camera == camera] == [f"{i:02}.png" for i in range(12)]
    assert (engine.closed, sink.closed) == (1, 1)


def test_stop_ends_an_endless_source(bundle: Bundle, engine: FakeEngine, images: Path) -> None:
    service = Service(_line(bundle, _folder(images, loop=True, fps=500)))
    threading.Timer(0.2, service.stop).start()
    (accounts,) = _runs_within(service, 20)
    frames = accounts["cam0"].frames
    assert frames.received == frames.scored > 12


def test_a_thread_of_the_pipeline_that_dies_ends_the_service(
    bundle: Bundle, engine: FakeEngine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = ListSink()
    service = Service(_line(bundle, _folder(images, loop=True)), [sink])

    def dies(*_: object) -> None:
        raise MemoryError("boom")

    monkeypatch.setattr(service.pipeline.model.decider, "decide", dies)
    (error,) = _runs_within(service, 15)
    assert isinstance(error, AlganError)
    assert "the pipeline broke: boom" in str(error)
    assert (engine.closed, sink.closed) == (1, 1)
    frames = service.pipeline.ledger.snapshot()["cam0"].frames
    assert frames.in_flight == 0
    assert len(sink.verdicts) == frames.received


def test_accounts_that_do_not_add_up_end_the_service(
    bundle: Bundle, engine: FakeEngine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(_line(bundle, _folder(images, loop=True)))
    close = service.pipeline.ledger.close

    def twice(*arguments: Any) -> None:
        close(*arguments)
        close(*arguments)

    monkeypatch.setattr(service.pipeline.ledger, "close", twice)
    (error,) = _runs_within(service, 15)
    assert isinstance(error, AlganError)
    assert "ended twice" in str(error)


def test_a_source_that_breaks_is_reported_and_what_came_before_is_scored(
    bundle: Bundle, engine: FakeEngine, images: Path
) -> None:
    sink = ListSink()
    service = Service(_line(bundle, _folder(images)), [sink])
    source = service.sources[0][1]
    real = source.frames

    def breaks(stop: threading.Event) -> Iterator[Frame]:
        for i, frame in enumerate(real(stop)):
            if i == 5:
                raise RuntimeError("cable cut")
            yield frame

    source.frames = breaks  # type: ignore[method-assign]
    (error,) = _runs_within(service, 15)
    assert isinstance(error, AlganError)
    assert "a source broke: cable cut" in str(error)
    assert len(sink.verdicts) == 5
    assert engine.closed == 1


def test_sinks_that_fail_harm_no_other_not_even_at_the_end(
    bundle: Bundle, engine: FakeEngine, images: Path
) -> None:
    sink = ListSink()
    service = Service(_line(bundle, _folder(images)), [BrokenSink(), sink])
    (accounts,) = _runs_within(service, 15)
    assert accounts["cam0"].frames == Tally(received=12, scored=12)
    assert service.pipeline.out.errors == 12
    assert len(sink.verdicts) == 12
    assert (engine.closed, sink.closed) == (1, 1)


def test_what_was_opened_is_closed_when_a_later_part_cannot_be(
    bundle: Bundle, engine: FakeEngine, images: Path, tmp_path: Path
) -> None:
    sink = ListSink()
    endpoint = f"ipc://{tmp_path / 's'}"
    line = _line(bundle, {"kind": "zmq", "bind": endpoint}, _folder(images, fpss=3))
    with pytest.raises(ConfigError, match=r"cameras\[1\].source.fpss"):
        Service(line, [sink])
    assert (engine.closed, sink.closed) == (1, 1)
    again = Service(_line(bundle, {"kind": "zmq", "bind": endpoint}))  # the socket is free again
    again.stop()
    assert _runs_within(again, 15) == [{}]


def test_an_engine_that_fails_the_gate_is_closed_and_never_serves(
    bundle: Bundle, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = FakeEngine(spec=bundle.manifest.input_spec)
    monkeypatch.setattr("algan_stream.engines.openvino.create", lambda *_: wrong)
    with pytest.raises(GateError, match="differs from the bundle's golden logits"):
        Service(_line(bundle, _folder(images)))
    assert wrong.closed == 1
    assert sum(wrong.batch_sizes) == 4  # the golden images, and nothing else


def test_live_sources_drop_and_others_block_unless_told(
    bundle: Bundle, engine: FakeEngine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = {}
    monkeypatch.setattr(
        "algan_stream.pipeline.Pipeline.open_camera",
        lambda _, name, size, policy: lanes.update({name: policy}),
    )
    line = _line(bundle, _folder(images))
    Service(line)
    assert lanes == {"cam0": "block"}
    monkeypatch.setattr("algan_stream.sources.folder.FolderSource.live", True)
    Service(line)
    assert lanes == {"cam0": "drop_oldest"}


def test_boxes_that_are_required(bundle: Bundle, engine: FakeEngine, images: Path) -> None:
    sink = ListSink()
    camera = {"id": "cam", "source": _folder(images), "boxes": {"kind": "attached", "required": True}}
    line = convert({"bundle": str(bundle.path), "cameras": [camera]}, LineConfig, "")
    accounts = Service(line, [sink]).run()
    assert accounts["cam"].frames == Tally(received=12, failed=12)
    assert {v.reason for v in sink.verdicts} == {"boxes_missing"}


def test_the_second_signal_is_for_those_in_a_hurry(bundle: Bundle, engine: FakeEngine, images: Path) -> None:
    import signal

    service = Service(_line(bundle, _folder(images, loop=True, fps=100)))
    before = signal.getsignal(signal.SIGTERM)
    with service_module.stop_on_signals(service):
        threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGTERM)).start()
        started = time.monotonic()
        service.run()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert time.monotonic() - started < 20
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_client_sends_under_another_cameras_name(
    bundle: Bundle, engine: FakeEngine, images: Path, tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path / 's'}"
    line = _line(bundle, _folder(images, loop=True, fps=50), {"kind": "zmq", "bind": endpoint})
    service = Service(line)
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(service.run()), daemon=True)
    thread.start()
    with pytest.raises(ProtocolError, match="camera cam0 is another source's in this line"):
        Client(endpoint, "cam0")
    with Client(endpoint) as client:
        client.send(np.zeros((8, 8, 3), np.uint8))
        assert len(list(client.drain(10))) == 1
    service.stop()
    thread.join(15)
    assert ended[0]["cam1"].frames == Tally(received=1, scored=1)
    assert service.refusals() == {"camera": 1}
