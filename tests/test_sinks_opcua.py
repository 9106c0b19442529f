"""The PLC sink against a real OPC UA server in another process, which is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from algan_stream.errors import ConfigError
from algan_stream.sinks.opcua import VARIABLES
from algan_stream.sinks.outlet import Outlet, open_sink
from algan_stream.types import BoxVerdict, FrameVerdict, Outcome, VerdictKind
from servers import free_port, wait_for

pytest.importorskip("asyncua")

_IDS = {name: f"ns=2;s=Algan.{name}" for name in VARIABLES}
_SIEMENS = {name: f'ns=2;s="Line 3"."{name}"' for name in VARIABLES} | {"Acknowledged": "ns=2;i=77"}
_INCOMPLETE = {name: f"ns=2;s=Half.{name}" for name in VARIABLES if name != "Reason"}


class Plc:
    """The process, and what it said."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.settings = {
            "port": free_port(),
            "blocks": [_IDS, _SIEMENS, _INCOMPLETE],
            "folder": str(folder),
            **more,
        }
        self.url = f"opc.tcp://127.0.0.1:{self.settings['port']}/plc"
        self.took: list[dict[str, Any]] = []
        self.statuses: list[list[bool]] = []
        self.beats: list[int] = []
        self.block = 0
        self.start()

    def start(self) -> None:
        program = Path(__file__).with_name("opcua_plc.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), json.dumps(self.settings)], stdout=subprocess.PIPE, text=True
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if "ready" in said:
                self._ready.set()
            if said.get("block") == self.block:
                self.took += [said["took"]] if "took" in said else []
                self.statuses += [said["status"]] if "status" in said else []
            self.beats += [said["beat"]] if "beat" in said else []

    def beat(self) -> int:
        count = len(self.beats)
        (self.folder / "tell").touch()
        wait_for(lambda: len(self.beats) > count)
        return self.beats[-1]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(30)
        self._thread.join(30)
        if self._process.stdout:
            self._process.stdout.close()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plc]:
    made = Plc(tmp_path_factory.mktemp("plc"))
    yield made
    made.stop()


@pytest.fixture
def plc(process: Plc) -> Plc:
    """The one process, with nothing said yet."""
    process.took, process.statuses, process.beats, process.block = [], [], [], 0
    return process


def _open(url: str, **more: Any) -> Outlet:
    delivery = {"retry_first_s": 0.05, "retry_most_s": 0.2, "drain_s": more.pop("drain_s", 10.0)}
    section = {"kind": "opcua", "url": url, "heartbeat_s": 0.05, "max_age_ms": 60_000.0}
    sink = open_sink({**section, **more, "delivery": delivery}, "sinks[0]")
    assert isinstance(sink, Outlet)
    return sink


def _verdict(frame_id: int, kind: VerdictKind = VerdictKind.PASS, **more: Any) -> FrameVerdict:
    score = None if kind is VerdictKind.UNKNOWN else -0.5 + frame_id
    box = BoxVerdict(verdict=kind, score=score)
    more.setdefault("captured_ns", time.time_ns())
    return FrameVerdict(
        camera="cam", frame_id=frame_id, verdict=kind, boxes=(box,), outcome=Outcome.SCORED, **more
    )


def test_every_verdict_is_taken_once_and_in_order(plc: Plc) -> None:
    sink = _open(plc.url)
    kinds = [VerdictKind.PASS, VerdictKind.REJECT, VerdictKind.UNKNOWN]
    for i in range(30):
        sink.write(_verdict(i, kinds[i % 3], part_id=f"Teil ä {i}", reason="r" if i % 3 else ""))
    sink.close()
    wait_for(
        lambda: len(plc.took) == 30 and plc.statuses[-1] == [False, False, False]
    )  # at the end it is not ready any more
    assert [values["Sequence"] for values in plc.took] == list(range(1, 31))
    assert [values["Verdict"] for values in plc.took] == [1, 2, 0] * 10
    assert [values["FrameId"] for values in plc.took] == list(range(30))
    assert [values["PartId"] for values in plc.took] == [f"Teil ä {i}" for i in range(30)]
    assert [values["Score"] for values in plc.took] == [
        "nan" if i % 3 == 2 else repr(-0.5 + i) for i in range(30)
    ]
    assert {values["Camera"] for values in plc.took} == {"cam"}
    assert all(values["Ready"] and values["Busy"] and values["Valid"] for values in plc.took)
    assert sink.counts().delivered == 30


def test_the_heart_beats_without_a_verdict(plc: Plc) -> None:
    sink = _open(plc.url)
    wait_for(lambda: [True, False, False] in plc.statuses)
    first = plc.beat()
    wait_for(lambda: plc.beat() >= first + 5)
    sink.close()
    last = plc.beat()
    time.sleep(0.2)
    assert plc.beat() == last


def test_a_plc_that_does_not_acknowledge(plc: Plc) -> None:
    (plc.folder / "silent").touch()
    sink = _open(plc.url, acknowledge_ms=50)
    sink.write(_verdict(0))
    sink.write(_verdict(1, VerdictKind.REJECT))
    wait_for(lambda: sink.counts().failures >= 3)
    assert sink.counts().delivered == 0
    assert sink.counts().circuit != "closed"
    (plc.folder / "silent").unlink()
    wait_for(lambda: sink.counts().delivered == 2)
    assert [values["Verdict"] for values in plc.took] == [1, 2]
    assert sink.counts().circuit == "closed"
    sink.close()


def test_a_plc_that_is_killed_and_comes_back(plc: Plc, caplog: pytest.LogCaptureFixture) -> None:
    sink = _open(plc.url, timeout_s=1.0)
    sink.write(_verdict(0))
    wait_for(lambda: sink.counts().delivered == 1)
    plc.stop()
    for i in range(1, 6):
        sink.write(_verdict(i))
    wait_for(lambda: sink.counts().failures >= 2)
    plc.start()
    wait_for(lambda: sink.counts().delivered == 6)
    assert [values["FrameId"] for values in plc.took] == list(range(6))
    sink.close()
    own = [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert [record.name for record in own] == ["algan_stream.sinks.outlet"]  # once, and none of the library's
    assert not [t for t in threading.enumerate() if t.name == "opcua" and not _ends(t)]


def _ends(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


def test_a_late_verdict_is_never_shown(plc: Plc) -> None:
    sink = _open(plc.url, max_age_ms=20_000.0)
    wait_for(lambda: [True, False, False] in plc.statuses)
    sink.write(_verdict(0, captured_ns=time.time_ns() - 10**11))
    sink.write(_verdict(1, VerdictKind.REJECT, captured_ns=time.time_ns()))
    wait_for(lambda: sink.counts().delivered + sink.counts().refused == 2)
    assert [values["Verdict"] for values in plc.took] == [2]
    assert sink.counts().refused == 1
    sink.close()


def test_variables_by_other_names(plc: Plc) -> None:
    plc.block = 1
    sink = _open(plc.url, node='ns=2;s="Line 3"."{}"', nodes={"Acknowledged": "ns=2;i=77"})
    sink.write(_verdict(0))
    sink.close()
    assert sink.counts().delivered == 1
    wait_for(lambda: len(plc.took) == 1)


def test_a_variable_that_the_plc_does_not_have(plc: Plc, caplog: pytest.LogCaptureFixture) -> None:
    plc.block = 2
    sink = _open(plc.url, node="ns=2;s=Half.{}", drain_s=0.1)
    sink.write(_verdict(0))
    wait_for(lambda: sink.counts().failures >= 1)
    sink.close()
    assert "expected the variable Reason as node ns=2;s=Half.Reason" in caplog.text
    assert plc.statuses == []  # it is not even ready


# ---- security -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from asyncua.crypto.cert_gen import setup_self_signed_certificate
    from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

    folder = tmp_path_factory.mktemp("certificates")
    uses = {"plc": Usage.SERVER_AUTH, "line": Usage.CLIENT_AUTH, "stranger": Usage.CLIENT_AUTH}
    for name, use in uses.items():
        key, certificate, about = folder / f"{name}.pem", folder / f"{name}.der", {"commonName": name}
        make = setup_self_signed_certificate(key, certificate, f"urn:{name}", "localhost", [use], about)
        asyncio.run(make)
    return folder


def _secured(certificates: Path, tmp_path: Path) -> tuple[Plc, dict[str, Any]]:
    (tmp_path / "password").write_text("secret\n")
    plc = Plc(
        tmp_path,
        certificate=str(certificates / "plc.der"),
        key=str(certificates / "plc.pem"),
        clients=[str(certificates / "line.der")],
        user="line",
        password="secret",
    )
    return plc, {
        "security": "sign_and_encrypt",
        "certificate_file": str(certificates / "line.der"),
        "key_file": str(certificates / "line.pem"),
        "server_certificate_file": str(certificates / "plc.der"),
        "user": "line",
        "password_file": str(tmp_path / "password"),
    }


def test_signed_and_encrypted(certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plc, keys = _secured(certificates, tmp_path)
    monkeypatch.setenv("PLC_PASSWORD", "secret")
    by_env = {**keys, "password_env": "PLC_PASSWORD"}
    del by_env["password_file"]
    for section in (keys, by_env):
        sink = _open(plc.url, **section)
        sink.write(_verdict(0))
        sink.close()
        assert sink.counts().delivered == 1
    (tmp_path / "wrong").write_text("guess")
    stranger = {
        "certificate_file": str(certificates / "stranger.der"),
        "key_file": str(certificates / "stranger.pem"),
    }
    plain = {"security": "none", "user": "line", "password_file": keys["password_file"]}
    for wrong in (
        {**keys, "password_file": str(tmp_path / "wrong")},
        {**keys, **stranger},
        {**keys, "server_certificate_file": str(certificates / "stranger.der")},  # it is not the one we know
        plain,
    ):
        sink = _open(plc.url, **wrong, drain_s=0.1, timeout_s=1.0)
        sink.write(_verdict(9))
        wait_for(lambda sink=sink: sink.counts().failures >= 1)
        sink.close()
        assert sink.counts().delivered == 0
    assert [values["FrameId"] for values in plc.took] == [0, 0]
    plc.stop()


_URL = {"url": "opc.tcp://127.0.0.1:4840"}
_FILES = {"certificate_file": "/no", "key_file": "/no", "server_certificate_file": "/no"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"url": "http://plc"}, r"url: expected opc.tcp://HOST\[:PORT\]"),
        ({"url": "opc.tcp://u:secret@127.0.0.1"}, "url: holds a user or password"),
        ({"url": "opc.tcp://plc.plant"}, "url: plc.plant is another host, and security is none"),
        ({**_URL, "security": "sign"}, "security: needs certificate_file, key_file and"),
        ({**_URL, "certificate_file": "x"}, "security: is none, but there are certificates"),
        ({**_URL, "security": "sign", **_FILES}, "certificate_file: cannot be read"),
        ({**_URL, "user": "u", "password_file": "/no"}, "password_file: no password in /no"),
        ({**_URL, "user": "u", "password_env": "NOT_SET"}, "password_env: .* NOT_SET is not set"),
        ({**_URL, "password_env": "X"}, "user: is required with a password"),
        ({**_URL, "node": "ns=2;s=Algan"}, "node: expected an id with {}"),
        ({**_URL, "nodes": {"Reedy": "i=1"}}, "nodes: expected names among Heartbeat, .*, got 'Reedy'"),
        ({**_URL, "acknowledge_ms": 0}, "acknowledge_ms: expected 1 to"),
    ],
)
def test_a_wrong_section(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_sink({"kind": "opcua", **section}, "sinks[0]")
    assert "secret" not in str(caught.value)
