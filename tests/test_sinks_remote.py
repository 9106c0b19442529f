"""Sinks whose receiver is a server, each against a real one that goes and comes back."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from algan_stream.errors import AlganError, ConfigError, PluginError
from algan_stream.sinks.outlet import Outlet, open_sink
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, StageTimes, VerdictKind
from servers import Mosquitto, PostgreSql, WebServer, wait_for

_QUICK = {"retry_first_s": 0.02, "retry_most_s": 0.2, "drain_s": 20.0}


def _verdict(frame_id: int, kind: VerdictKind = VerdictKind.PASS, **more: Any) -> FrameVerdict:
    box = BoxVerdict(box=(0.5, 1, 2, 3), verdict=kind, score=-1.25 + frame_id, p_value=0.5)
    return FrameVerdict(
        camera="cam",
        frame_id=frame_id,
        verdict=kind,
        boxes=(box,),
        outcome=Outcome.SCORED,
        captured_ns=1_700_000_000_000_000_000 + frame_id,
        threshold=2.0,
        model="abc",
        engine="e",
        stages=StageTimes(total_ms=1.5),
        **more,
    )


def _open(section: dict[str, Any], **delivery: Any) -> Outlet:
    sink = open_sink({**section, "delivery": {**_QUICK, **delivery}}, "sinks[0]")
    assert isinstance(sink, Outlet)
    return sink


# ---- MQTT -----------------------------------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    pytest.importorskip("paho.mqtt.client")
    server = Mosquitto(tmp_path)
    yield server
    server.stop()


def _subscribe(port: int, topic: str) -> tuple[Any, list[tuple[str, FrameVerdict]]]:
    import paho.mqtt.client as paho

    got: list[tuple[str, FrameVerdict]] = []
    ready: list[bool] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "subscriber", clean_session=False)
    client.on_connect = lambda c, *_: c.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: ready.append(True)
    decode = msgspec.json.Decoder(FrameVerdict).decode
    client.on_message = lambda _, __, message: got.append((message.topic, decode(message.payload)))
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    wait_for(lambda: bool(ready))
    return client, got


def test_mqtt(broker: Mosquitto) -> None:
    client, got = _subscribe(broker.port, "plant/7/#")
    sink = _open({"kind": "mqtt", "port": broker.port, "topic": "plant/7"})
    verdicts = [_verdict(i, part_id=f"Teil ä {i}") for i in range(50)]
    for verdict in verdicts:
        sink.write(verdict)
    wait_for(lambda: len(got) == 50)
    assert [verdict for _, verdict in got] == verdicts
    assert {topic for topic, _ in got} == {"plant/7/cam"}
    sink.close()
    client.loop_stop()


def test_mqtt_broker_gone_and_back(broker: Mosquitto) -> None:
    sink = _open({"kind": "mqtt", "port": broker.port, "timeout_s": 2.0})
    for i in range(20):
        sink.write(_verdict(i))
    wait_for(lambda: sink.counts().delivered == 20)
    broker.stop()
    for i in range(20, 40):
        sink.write(_verdict(i))
    wait_for(lambda: sink.counts().failures >= 2)
    broker.start()
    client, got = _subscribe(broker.port, "algan/#")
    for i in range(40, 50):
        sink.write(_verdict(i))
    wait_for(lambda: sink.counts().delivered == 50)
    wait_for(lambda: bool(got) and got[-1][1].frame_id == 49)
    ids = [verdict.frame_id for _, verdict in got]
    assert ids == sorted(ids)
    assert set(range(40, 50)) <= set(ids)
    assert sink.counts().lost == 0
    sink.close()
    client.loop_stop()


def test_mqtt_wrong_password(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client")
    (tmp_path / "passwords").write_text("")
    broker = Mosquitto(tmp_path, f"password_file {tmp_path / 'passwords'}", "allow_anonymous false")
    (tmp_path / "password").write_text("wrong\n")
    user = {"user": "line", "password_file": str(tmp_path / "password")}
    sink = _open({"kind": "mqtt", "port": broker.port, **user}, drain_s=0.1)
    sink.write(_verdict(0))
    wait_for(lambda: sink.counts().failures >= 1)
    sink.close()
    assert sink.counts().lost == 1
    broker.stop()


# ---- web hook -------------------------------------------------------------------------------------------


def test_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "secret")
    server = WebServer()
    url = f"http://127.0.0.1:{server.port}/verdicts?line=3"
    sink = _open({"kind": "webhook", "url": url, "verdicts": ["reject"], "token_env": "HOOK_TOKEN"})
    server.statuses = [204, 503, 200, 400, 429, 201]
    kinds = [VerdictKind.REJECT, VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.REJECT, VerdictKind.REJECT]
    for i, kind in enumerate(kinds):
        sink.write(_verdict(i, kind))
    sink.close()
    got = [msgspec.json.decode(body, type=FrameVerdict) for body, _ in server.got]
    assert got == [_verdict(i, VerdictKind.REJECT) for i in (0, 2, 4)]  # 3 was refused by 400
    assert {headers["authorization"] for _, headers in server.got} == {"Bearer secret"}
    assert {headers["content-type"] for _, headers in server.got} == {"application/json"}
    counts = sink.counts()
    assert (counts.delivered, counts.refused, counts.failures, counts.lost) == (4, 1, 2, 0)
    server.stop()


def test_webhook_that_refuses_or_has_moved_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    server = WebServer()
    server.statuses = [*[400] * 5, 301, 308, 307]
    sink = _open({"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"})
    for i in range(9):
        sink.write(_verdict(i))
    sink.close()
    counts = sink.counts()  # 307 is for the moment: it is tried again
    assert (counts.refused, counts.failures, counts.delivered, counts.lost) == (7, 1, 2, 0)
    assert len([r for r in caplog.records if "refused for good" in r.message]) == 1
    sink = _open({"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"})
    server.statuses = [308]
    sink.write(_verdict(0))
    sink.close()
    assert "it has moved to https://mes.plant/new; correct `url`" in caplog.text
    server.stop()


def test_webhook_server_gone() -> None:
    server = WebServer()
    server.stop()
    sink = _open({"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"}, drain_s=0.1)
    sink.write(_verdict(0))
    wait_for(lambda: sink.counts().failures >= 1)
    sink.close()
    assert sink.counts().lost == 1


# ---- databases ------------------------------------------------------------------------------------------

_COLUMNS = "frame_id, verdict, score, p_value, total_ms, part_id, boxes"
_QUERY = f"SELECT {_COLUMNS} FROM verdicts ORDER BY captured_ns"


def test_sqlite(tmp_path: Path) -> None:
    path = str(tmp_path / "history.db")
    sink = _open({"kind": "database", "path": path})
    odd = "quote ' \" \0 ä"
    for i in (0, 1, 2, 1):  # one of them twice
        sink.write(_verdict(i, part_id=odd))
    unknown = VerdictKind.UNKNOWN
    sink.write(FrameVerdict(camera="b", frame_id=0, verdict=unknown, outcome=Outcome.FAILED, captured_ns=1))
    sink.close()
    assert sink.counts().delivered == 5
    connection = sqlite3.connect(path)
    rows = connection.execute(_QUERY).fetchall()
    connection.close()
    assert [row[:5] for row in rows] == [
        (0, "unknown", None, None, 0.0),
        *((i, "pass", -1.25 + i, 0.5, 1.5) for i in range(3)),
    ]
    assert rows[1][5] == odd.replace("\0", "�")
    assert msgspec.json.decode(rows[3][6], type=tuple[BoxVerdict, ...]) == _verdict(2).boxes


def test_sqlite_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    for path in ("text", "missing/db"):
        with pytest.raises(ConfigError, match=r"sinks\[0\]: path: cannot keep verdicts in"):
            open_sink({"kind": "database", "path": str(tmp_path / path)}, "sinks[0]")


def test_postgresql_gone_and_back(tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg")
    server = PostgreSql(tmp_path)
    sink = _open({"kind": "database", "url": server.url}, spill=str(tmp_path / "spill"))
    for i in range(20):
        sink.write(_verdict(i, part_id="nul \0"))
    wait_for(lambda: sink.counts().delivered == 20)
    server.stop()
    for i in range(20, 40):
        sink.write(_verdict(i))
    wait_for(lambda: sink.counts().failures >= 2)
    server.start()
    for i in range(40, 50):
        sink.write(_verdict(i))
    wait_for(lambda: sink.counts().delivered == 50)
    sink.close()
    with psycopg.connect(server.url) as connection:
        rows = connection.execute(_QUERY).fetchall()
    assert [row[0] for row in rows] == list(range(50))
    assert [row[2] for row in rows] == [-1.25 + i for i in range(50)]
    server.stop()


# ---- misuse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "mqtt", "host": "broker.plant"}, "host: broker.plant is another host"),
        ({"kind": "mqtt", "topic": "a/#"}, "topic: expected a topic without '#' and '\\+'"),
        ({"kind": "mqtt", "port": 0}, "port: expected 1 to 65535, got 0"),
        ({"kind": "mqtt", "qos": 0}, "qos"),
        ({"kind": "mqtt", "password_file": "x"}, "user: is required with password_file"),
        ({"kind": "mqtt", "user": "u", "password_file": "/no"}, "password_file: no password in /no"),
        ({"kind": "webhook", "url": "ftp://x/"}, "url: expected https://HOST/PATH, got 'ftp://x/'"),
        ({"kind": "webhook", "url": "https:///x"}, "url: expected https://HOST/PATH"),
        ({"kind": "webhook", "url": "http://127.0.0.1:99999/"}, "url: Port out of range"),
        ({"kind": "webhook", "url": "http://mes.plant/"}, "url: http://mes.plant/ leads to another host"),
        ({"kind": "webhook", "url": "https://x/", "token_env": "NOT_SET"}, "token_env: .* NOT_SET is not"),
        ({"kind": "database"}, "path: expected path \\(SQLite\\) or url \\(PostgreSQL\\), got neither"),
        ({"kind": "database", "path": "x", "url": "postgresql://x/y"}, "got both; remove one"),
        (
            {"kind": "mqtt", "host": "mqtts://broker.plant"},
            "host: .* without a scheme.*`host: broker.plant` and `tls: true`",
        ),
        ({"kind": "mqtt", "host": "tcp://localhost:1883"}, "host: .* `host: localhost` and `port: 1883`"),
        ({"kind": "database", "url": "mysql://x/y"}, "url: expected postgresql://"),
        ({"kind": "database", "url": "postgresql://u:secret@localhost/y"}, "url: holds a password"),
        ({"kind": "database", "url": "postgresql://u@db.plant/y"}, "url: db.plant is another host"),
    ],
)
def test_a_wrong_section(section: dict[str, Any], message: str) -> None:
    for module in {"mqtt": ("paho.mqtt.client",), "database": ("psycopg",)}.get(section["kind"], ()):
        pytest.importorskip(module)
    with pytest.raises(ConfigError, match=message) as caught:
        open_sink(section, "sinks[0]")
    assert str(caught.value).startswith("sinks[0]")
    assert "secret" not in str(caught.value)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(AlganError, match="needs the Python package psycopg") as caught:
        open_sink({"kind": "database", "url": "postgresql://localhost/y"}, "sinks[0]")
    assert isinstance(caught.value, PluginError)
