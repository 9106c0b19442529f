"""Keys: files, the allow-list, and who gets in over real TCP sockets."""

from __future__ import annotations

import contextlib
import os
import socket as plain
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from algan_stream import curve, endpoints, wire
from algan_stream.bundle import Bundle
from algan_stream.client import Client
from algan_stream.commands import keys as keys_command
from algan_stream.config import read_line
from algan_stream.curve import ClientKeys, CurveConfig
from algan_stream.errors import ConfigError, ProtocolError
from algan_stream.sinks import zmq_pub
from algan_stream.subscriber import Subscriber
from algan_stream.types import FrameVerdict, Outcome, VerdictKind
from lines import line_of, running, state
from processes import Service, algan_stream
from servers import wait_for

_IMAGE = np.full((48, 64, 3), 90, np.uint8)


@dataclass
class Keys:
    """A service's folder of keys, with clients made on demand."""

    folder: Path

    @property
    def config(self) -> dict[str, str]:
        return {"secret_key": str(self.folder / "service.key_secret"), "allow": str(self.folder / "allowed")}

    def client(self, name: str, *, allow: bool = True, server: str = "service") -> ClientKeys:
        path = self.folder / f"{name}.key_secret"
        if not path.exists():
            public, _ = curve.new_pair(self.folder / name)
            if allow:
                curve.allow(public, self.folder / "allowed")
        return ClientKeys(secret_key=path, server_key=self.folder / f"{server}.key")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "allowed").mkdir()
    curve.new_pair(folder / "service")
    curve.new_pair(folder / "stranger-service")
    return Keys(folder)


# ---- files ----------------------------------------------------------------------------------------------


def test_the_command_makes_keys_that_work_together(tmp_path: Path) -> None:
    made = algan_stream("keys", "new", tmp_path / "press-3")
    assert made.returncode == 0, made.stderr
    public, secret = tmp_path / "press-3.key", tmp_path / "press-3.key_secret"
    assert [stat.S_IMODE(file.stat().st_mode) for file in (public, secret)] == [0o600, 0o600]
    pair = curve.read_pair(secret, "x")
    assert pair[0] == curve.read_public(public, "x") == zmq.curve_public(pair[1])
    assert pair[1].decode() not in made.stdout + made.stderr + public.read_text()
    again = algan_stream("keys", "new", tmp_path / "press-3")
    assert again.returncode == 2
    assert "exists, and keys are never overwritten" in again.stderr
    assert curve.read_pair(secret, "x") == pair
    allowed = algan_stream("keys", "allow", public, tmp_path / "allowed")
    assert allowed.returncode == 0, allowed.stderr
    assert curve.read_allowed(tmp_path / "allowed", "x") == ({pair[0]}, [])


def test_files_of_other_zeromq_tools_work(tmp_path: Path) -> None:
    from zmq.auth import create_certificates, load_certificate

    public, secret = create_certificates(tmp_path, "theirs")
    Path(secret).chmod(0o600)
    assert curve.read_pair(Path(secret), "x") == load_certificate(secret)
    assert curve.read_public(Path(public), "x") == load_certificate(public)[0]
    own = curve.new_pair(tmp_path / "ours")
    assert load_certificate(own[1]) == curve.read_pair(own[1], "x")


def test_keys_new_in_a_folder_takes_the_hosts_name(tmp_path: Path) -> None:
    keys_command.new(tmp_path)
    assert (tmp_path / f"{plain.gethostname()}.key_secret").exists()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (None, 0, "secret_key: cannot read .*: No such file or directory"),
        ("SECRET", 0o604, r"can be used by others \(mode 0604\); chmod 600"),
        ("SECRET", 0o620, "can be used by others"),
        ("SECRET", 0o602, r"anybody may write to .* \(mode 0602\); chmod o-w"),
        ("PUBLIC", 0o600, "holds no secret key; expected the file NAME.key_secret"),
        ("", 0o600, "holds no secret key"),
        ("\xff\xfe\0", 0o600, "holds no secret key"),
        ("SECRETSECRET", 0o600, "holds several keys"),
        ("MIXED", 0o600, "the public and the secret key in .* are no pair"),
        ('secret-key = "short"', 0o600, "a secret key is not 40 characters of Z85"),
        ('secret-key = "' + "~" * 40 + '"', 0o600, "a secret key is not 40 characters of Z85"),
        ("x" * (2 << 20), 0o600, "holds no secret key"),
    ],
)
def test_a_secret_key_that_cannot_be_used(keys: Keys, text: str | None, mode: int, message: str) -> None:
    file = keys.folder / "mine"
    secret = (keys.folder / "service.key_secret").read_text()
    other = (keys.folder / "stranger-service.key").read_text()
    mixed = other + "\n".join(line for line in secret.splitlines() if "secret-key" in line)
    if text is not None:
        for name, content in (("SECRET", secret), ("PUBLIC", other), ("MIXED", mixed)):
            text = text.replace(name, content)
        file.write_text(text, "latin-1")
        file.chmod(mode)
    with pytest.raises(ConfigError, match=message) as caught:
        curve.read_pair(file, "secret_key")
    assert "~" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"allow": "nowhere"}, "curve.allow: cannot read .*nowhere: No such file"),
        ({"allow": "service.key_secret"}, "holds a secret key, which belongs to its owner alone"),
        ({"secret_key": "service.key"}, "curve.secret_key: .* holds no secret key"),
        ({"allow": "bad"}, "curve.allow: .*x.key holds no public key"),
        ({"allow": "open"}, r"curve.allow: anybody may write to .*open \(mode 0777\)"),
    ],
)
def test_a_service_does_not_start_with_keys_it_cannot_use(
    keys: Keys, section: dict[str, str], message: str
) -> None:
    (keys.folder / "bad").mkdir()
    (keys.folder / "open").mkdir()
    (keys.folder / "open").chmod(0o777)
    (keys.folder / "bad" / "x.key").write_text("no key")
    wanted = {**keys.config, **{key: str(keys.folder / value) for key, value in section.items()}}
    with pytest.raises(ConfigError, match=message):
        zmq_pub.create(zmq_pub.Config(kind="zmq_pub", bind="tcp://127.0.0.1:*", curve=CurveConfig(**wanted)))


def test_keys_and_insecure_contradict_each_other(keys: Keys) -> None:
    config = zmq_pub.Config(
        kind="zmq_pub", bind="tcp://127.0.0.1:*", insecure=True, curve=CurveConfig(**keys.config)
    )
    with pytest.raises(ConfigError, match="expected `curve` or `insecure: true`, got both"):
        zmq_pub.create(config)


def test_paths_of_keys_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "line.yaml").write_text(
        "bundle: demo\n"
        "cameras: [{id: a, source: {kind: zmq, bind: 'tcp://0.0.0.0:1', "
        "curve: {secret_key: k/s.key_secret, allow: k/allowed}}}]\n"
    )
    section = read_line(tmp_path / "line.yaml").cameras[0].source["curve"]
    assert section == {"secret_key": f"{tmp_path}/k/s.key_secret", "allow": f"{tmp_path}/k/allowed"}


# ---- who gets in: the sink ------------------------------------------------------------------------------


@pytest.fixture
def sink(keys: Keys) -> Iterator[zmq_pub.ZmqPubSink]:
    """A PUB socket that other hosts reach."""
    made = zmq_pub.create(
        zmq_pub.Config(kind="zmq_pub", bind="tcp://0.0.0.0:*", curve=CurveConfig(**keys.config))
    )
    yield made
    made.close()


def _at(endpoint: str) -> str:
    return endpoint.replace("0.0.0.0", "127.0.0.1")


def _publishing(sink: zmq_pub.ZmqPubSink) -> threading.Event:
    """Publishes a verdict every 5 ms until the event is set."""
    stop = threading.Event()

    def run() -> None:
        frame_id = 0
        while not stop.wait(0.005):
            sink.write(_verdict(frame_id))
            frame_id += 1

    threading.Thread(target=run, daemon=True).start()
    return stop


def _verdict(frame_id: int, camera: str = "cam") -> FrameVerdict:
    return FrameVerdict(
        camera=camera, frame_id=frame_id, verdict=VerdictKind.PASS, outcome=Outcome.SCORED, captured_ns=0
    )


def test_only_allowed_subscribers_hear_a_verdict(keys: Keys, sink: zmq_pub.ZmqPubSink) -> None:
    at, stop = _at(sink.endpoint), _publishing(sink)
    assert sink.doorman
    good = keys.client("good")
    with Subscriber(at, curve=good) as listener:
        assert listener.poll(10)
        for stranger, message in (
            (None, "no agreement on keys"),
            (keys.client("unlisted", allow=False), "this client's key is not allowed there"),
        ):
            with Subscriber(at, curve=stranger) as outside, pytest.raises(ProtocolError, match=message):
                outside.poll(10)
        with Subscriber(at, curve=keys.client("good", server="stranger-service")) as outside:
            assert outside.poll(0.5) == []
        assert listener.poll(10)
    stop.set()
    assert sink.doorman.counts["key_not_allowed"] == 1
    assert sink.doorman.counts["handshake_failed"] >= 2


def test_a_revoked_client_is_refused_at_its_next_connection(keys: Keys, sink: zmq_pub.ZmqPubSink) -> None:
    at, stop = _at(sink.endpoint), _publishing(sink)
    assert sink.doorman
    for allowed in (True, False, True):
        mine = keys.client("mine")
        file = keys.folder / "allowed" / "mine.key"
        if not allowed:
            file.unlink()
        elif not file.exists():
            curve.allow(keys.folder / "mine.key", keys.folder / "allowed")
        with Subscriber(at, curve=mine) as listener:
            if allowed:
                assert listener.poll(10)
            else:
                with pytest.raises(ProtocolError, match="not allowed"):
                    listener.poll(10)
    stop.set()
    assert sink.doorman.counts["key_not_allowed"] == 1


def test_an_allow_list_that_breaks_lets_nobody_in(
    keys: Keys, sink: zmq_pub.ZmqPubSink, caplog: pytest.LogCaptureFixture
) -> None:
    good = keys.client("good")
    (keys.folder / "allowed" / "broken.key").write_text("public-key = 'x'")
    stop = _publishing(sink)
    with Subscriber(_at(sink.endpoint), curve=good) as listener:
        assert listener.poll(10)  # one broken file is logged, and takes nobody else's leave
    assert "broken.key: a public key is not 40 characters" in caplog.text
    (keys.folder / "allowed").rename(keys.folder / "gone")
    with Subscriber(_at(sink.endpoint), curve=good) as listener, pytest.raises(ProtocolError):
        listener.poll(10)
    stop.set()


def test_a_doorman_that_dies_is_seen_and_lets_nobody_in(
    keys: Keys, sink: zmq_pub.ZmqPubSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: list[bytes]) -> None:
        raise RuntimeError("a bug")

    assert sink.doorman
    assert not sink.doorman.failure
    monkeypatch.setattr(sink.doorman, "_answer", broken)
    stop = _publishing(sink)
    for _ in range(2):
        listener = Subscriber(_at(sink.endpoint), curve=keys.client("good"))
        with listener, contextlib.suppress(ProtocolError):
            assert listener.poll(0.5) == []
    wait_for(lambda: bool(sink.doorman and sink.doorman.failure))
    assert "nobody can connect any more" in sink.doorman.failure
    stop.set()


def test_readiness_tells_of_a_dead_doorman(bundle: Bundle, keys: Keys) -> None:
    publisher = {"kind": "zmq_pub", "bind": "tcp://127.0.0.1:*", "curve": keys.config}
    source = {"kind": "zmq", "bind": f"ipc://{keys.folder / 'in'}"}
    with running(line_of(bundle, source, sinks=[publisher])) as line:
        assert state(line, "/readyz") == (200, [])
        line._doormen()[0].failure = "nobody can connect any more"
        assert state(line, "/readyz") == (503, ["nobody can connect any more"])


def test_the_loopback_needs_no_keys_but_takes_them(keys: Keys) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        endpoint, doorman = endpoints.listen(socket, "tcp://127.0.0.1:*", insecure=False, curve=None)
        assert (doorman, endpoint.startswith("tcp://127.0.0.1:")) == (None, True)


# ---- who gets in: a service as a process ----------------------------------------------------------------


def _raw(endpoint: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    return socket


def test_nobody_without_a_listed_key_gets_a_frame_into_a_service(
    bundle: Bundle, keys: Keys, tmp_path: Path
) -> None:
    good = keys.client("good")
    unlisted = keys.client("unlisted", allow=False)
    source: dict[str, Any] = {"bind": "tcp://0.0.0.0:*", "curve": keys.config}
    sinks = [
        {"kind": "jsonl", "path": "verdicts.jsonl"},
        {"kind": "zmq_pub", "bind": "tcp://0.0.0.0:*", "curve": keys.config},
    ]
    with Service(tmp_path, bundle.path, source=source, sinks=sinks) as service:
        publisher, endpoint = (_at(endpoint) for endpoint in service.ready["endpoints"])
        with Subscriber(publisher, curve=good) as listener, Client(endpoint, "good", curve=good) as client:
            for _ in range(20):
                client.send(_IMAGE)
            # A client that ignores the protocol and sends at once, without keys.
            rude = _raw(endpoint)
            rude.send_multipart([wire.encode(wire.Hello(version=1, camera="rude"))])
            for wrong, message in (
                (None, "no agreement on keys: one side has none|a service that asks for keys does that"),
                (unlisted, "this client's key is not allowed there"),
                (
                    keys.client("good", server="stranger-service"),
                    "no answer within 1 s; the connection broke",
                ),
            ):
                with pytest.raises(ProtocolError, match=message):
                    Client(endpoint, "stranger", timeout_s=1.0, curve=wrong)
            # One that is no ZeroMQ at all, and one that says nothing.
            with plain.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2]))) as other:
                other.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
                time.sleep(0.1)
            for _ in range(20):
                client.send(_IMAGE)
            assert len(list(client.drain(20))) == 40
            assert not rude.poll(100)
            rude.close()
            assert len(listener.poll(5)) > 0
        sent = algan_stream(
            "send", _pictures(tmp_path), "--to", endpoint, "--camera", "cli", "--fps", 0,
            "--secret-key", keys.folder / "good.key_secret", "--server-key", keys.folder / "service.key",
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        half = algan_stream("watch", publisher, "--secret-key", keys.folder / "good.key_secret")
        assert half.returncode == 3
        assert "--secret-key, --server-key: expected both or none" in half.stderr
        refused = algan_stream("watch", publisher)
        assert refused.returncode == 7
        assert "no agreement on keys" in refused.stderr
        assert service.stop() == 0
    assert set(service.stopped["cameras"]) == {"cli", "good"}
    assert service.frames("good") == {**service.frames("good"), "received": 40, "scored": 40}
    assert service.stopped["refused"]["key_not_allowed"] >= 1
    assert service.stopped["refused"]["handshake_failed"] >= 3
    assert {v["camera"] for v in service.verdicts()} == {"good", "cli"}
    secrets = [curve.read_pair(file, "x")[1].decode() for file in keys.folder.glob("*_secret")]
    assert not any(secret in service.errors for secret in secrets)


def _pictures(folder: Path) -> Path:
    from PIL import Image

    pictures = folder / "pictures"
    pictures.mkdir()
    Image.fromarray(_IMAGE).save(pictures / "a.png")
    return pictures


def test_other_hosts_are_refused_by_a_service_without_keys(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "line.yaml").write_text(
        f"bundle: {bundle.path}\nengine: {{kind: openvino, threads: 1}}\n"
        "cameras: [{id: a, source: {kind: zmq, bind: 'tcp://0.0.0.0:*'}}]\n"
    )
    ended = algan_stream("run", tmp_path / "line.yaml")
    assert ended.returncode == 2
    assert "give it keys with `curve: {secret_key: FILE, allow: FOLDER}`" in ended.stderr
    assert os.linesep not in ended.stderr.strip()
