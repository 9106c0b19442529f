"""Receivers of a running service that go and come back, with exact accounts."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from algan_stream.bundle import Bundle
from algan_stream.client import Client
from algan_stream.types import FrameVerdict
from lines import get, line_of, running
from lines import wait_for as soon
from processes import Service
from servers import WebServer, free_port, wait_for

_IMAGE = np.full((48, 64, 3), 90, np.uint8)
_QUICK = {"retry_first_s": 0.02, "retry_most_s": 0.2, "drain_s": 0.5}


def _hook(port: int, **delivery: Any) -> dict[str, Any]:
    return {"kind": "webhook", "url": f"http://127.0.0.1:{port}/", "delivery": {**_QUICK, **delivery}}


def _ids(server: WebServer) -> list[int]:
    return [msgspec.json.decode(body, type=FrameVerdict).frame_id for body, _ in server.got]


def _send(service: Service, count: int) -> None:
    with Client(service.endpoint, "cam") as client:
        for _ in range(count):
            client.send(_IMAGE)
        assert len(list(client.drain(30))) == count


def test_a_receiver_that_comes_back_gets_everything(bundle: Bundle, tmp_path: Path) -> None:
    """Over a restart of the service too; nobody else waits for it meanwhile."""
    port = free_port()
    sinks = [
        {"kind": "jsonl", "path": "verdicts.jsonl"},
        _hook(port, spill="spill"),
        _hook(port),  # the same receiver, but nothing kept on disk
        {"kind": "database", "path": "history.db"},
    ]
    with Service(tmp_path, bundle.path, sinks=sinks) as service:
        _send(service, 40)  # the receiver is not there
        assert service.stop() == 0
        assert service.frames()["scored"] == 40
        kept, lost = (service.stopped["deliveries"][f"sinks[{i}] (webhook)"] for i in (1, 2))
    assert (kept["waiting"], kept["lost"], kept["delivered"]) == (40, 0, 0)
    assert (lost["lost"], lost["delivered"]) == (40, 0)
    server = WebServer(port)
    sinks = [sinks[0], sinks[1], sinks[3]]
    with Service(tmp_path, bundle.path, sinks=sinks) as service:
        _send(service, 10)
        wait_for(lambda: len(server.got) == 50)
        assert service.stop() == 0
        assert service.stopped["deliveries"]["sinks[1] (webhook)"]["delivered"] == 50
    assert _ids(server) == [*range(40), *range(10)]
    assert [json.loads(body) for body, _ in server.got] == service.verdicts()
    connection = sqlite3.connect(tmp_path / "history.db")
    assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (50,)
    connection.close()
    server.stop()


def test_deliveries_are_metrics(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "no-image", _IMAGE)
    (tmp_path / "bad.png").write_bytes(b"no image")
    server = WebServer()
    server.statuses = [404, 200, 404]
    source = {"kind": "folder", "path": str(tmp_path), "fps": 50, "loop": True}
    line = line_of(bundle, source, sinks=[_hook(server.port)])
    sink = "sinks[0] (webhook)"
    with running(line) as service:
        soon(lambda: service.deliveries()[sink].delivered >= 5)
        families = {f.name: f for f in text_string_to_metric_families(get(service, "/metrics")[2])}
        counted = {s.labels["outcome"]: s.value for s in families["algan_sink_verdicts"].samples}
        assert counted["refused"] == 2
        assert counted["lost"] == 0
        assert counted["delivered"] >= 5
        assert [s.labels for s in families["algan_sink_waiting"].samples] == [{"sink": sink}]
    server.stop()
