"""The command as a process, under what happens in a factory: kills, stops, strangers and mistakes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from PIL import Image

from algan_stream import wire
from algan_stream.bundle import Bundle
from algan_stream.client import Client
from algan_stream.demo.parts import render_part
from algan_stream.errors import ProtocolError
from algan_stream.types import FrameVerdict
from processes import ALGAN_STREAM, Service, algan_stream

_IMAGE = np.full((48, 64, 3), 90, np.uint8)


def _adds_up(tally: dict[str, int]) -> bool:
    ends = ("scored", "dropped", "expired", "failed")
    return tally["in_flight"] == 0 and tally["received"] == sum(tally[end] for end in ends)


def _wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.01)


def _healthy(endpoint: str, frames: int, camera: str = "healthy") -> list[FrameVerdict]:
    """Sends frames as a good client; every one of them must come back once, scored, in order of sending."""
    verdicts = []
    with Client(endpoint, camera) as client:
        for _ in range(frames):
            client.send(_IMAGE)
            verdicts += client.poll()
        verdicts += client.drain(20)
        account = client.account()
    assert [v.frame_id for v in verdicts] == list(range(frames))
    assert {v.verdict.value for v in verdicts} <= {"pass", "reject"}
    assert (account.sent, account.answered) == (frames, frames)
    return verdicts


# ---- the stream says what the offline command says ----------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of parts of several sizes and kinds, and a file of boxes on every other one."""
    folder = tmp_path_factory.mktemp("pictures")
    rng, boxes = np.random.default_rng(5), {}
    for i in range(24):
        size = (32, 48, 100)[i % 3]
        image = Image.fromarray(np.ascontiguousarray(render_part(seed=i, size_px=size).image[..., ::-1]))
        (image.convert("L") if i % 4 == 0 else image).save(folder / f"{i:02}.png")
        if i % 2:
            corners = rng.uniform(0, size / 2, (rng.integers(1, 12), 2))
            boxes[f"{i:02}.png"] = np.hstack(
                [corners, corners + rng.uniform(1, size / 2, corners.shape)]
            ).tolist()
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder, folder / "boxes.json"


def test_the_stream_scores_as_the_offline_command_does(
    service: Service, bundle: Bundle, pictures: tuple[Path, Path]
) -> None:
    folder, boxes = pictures
    sent = algan_stream("send", folder, "--to", service.endpoint, "--fps", 0, "--boxes", boxes, "--json")
    assert sent.returncode == 0, sent.stderr
    assert (report := json.loads(sent.stdout))["sent"] == report["answered"] == 24
    assert service.stop() == 0
    assert service.frames() == {**service.frames(), "received": 24, "scored": 24, "in_flight": 0}
    offline = algan_stream("score", bundle.path, folder, "--boxes", boxes, "--jsonl")
    assert offline.returncode in (0, 10), offline.stderr
    expected = [json.loads(line) for line in offline.stdout.splitlines()]
    streamed = [{"path": v["part_id"], **box} for v in service.verdicts() for box in v["boxes"]]
    assert len(streamed) == len(expected) == sum(len(v["boxes"]) for v in service.verdicts())
    assert len(expected) == 12 + service.stopped["cameras"]["cam"]["boxes"]["scored"]
    for live, still in zip(streamed, expected, strict=True):
        assert Path(still["path"]).name == live["path"]
        assert live["box"] == still["box"]
        assert live["score"] == pytest.approx(still["score"], abs=1e-5)
        assert live["p_value"] == pytest.approx(still["p_value"], abs=0.011)  # one good image more or less
        assert live["verdict"] == still["verdict"]
    assert len({round(live["score"], 3) for live in streamed}) > 40  # the scores do tell images apart


# ---- kill -9 of a client --------------------------------------------------------------------------------


def _send_for_ever(endpoint: str, camera: str, sent: Any) -> None:
    client = Client(endpoint, camera)
    while True:
        client.send(_IMAGE)
        client.poll()
        sent.value += 1


def _spawn(target: Callable[..., None], *arguments: Any) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def test_a_killed_client_harms_nobody_and_may_come_back(service: Service) -> None:
    counter = multiprocessing.get_context("spawn").Value("i", 0)
    victim = _spawn(_send_for_ever, service.endpoint, "press", counter)
    _wait_for(lambda: counter.value > 60)
    beside = threading.Thread(target=_healthy, args=(service.endpoint, 300))
    beside.start()
    time.sleep(0.1)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(20)
    _healthy(service.endpoint, 50, camera="press")  # the same camera again, its count from 0
    beside.join(60)
    assert not beside.is_alive()
    assert service.stop() == 0
    press, healthy = service.frames("press"), service.frames("healthy")
    assert _adds_up(press)
    assert healthy == {**healthy, "received": 300, "scored": 300}
    assert press["scored"] == press["received"]
    # At most one frame of the victim is between its socket and its count.
    assert 50 + counter.value - 16 <= press["received"] <= 50 + counter.value + 1
    assert len(service.verdicts()) == press["received"] + healthy["received"]


def test_killed_in_the_middle_of_a_large_message(bundle: Bundle, tmp_path: Path) -> None:
    """Half a frame is no frame: it is never received, and never scored with somebody's old pixels."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Service(tmp_path, bundle.path, source={"bind": f"tcp://127.0.0.1:{port}"}) as service:
        header = wire.SendFrame(frame_id=0, height_px=3000, width_px=4000, pixel_format="bgr8", captured_ns=0)
        with socket.create_connection(("127.0.0.1", port)) as raw:
            _zmtp_greeting(raw)
            _zmtp_send(raw, wire.encode(wire.Hello(version=1, camera="half")))
            _zmtp_receive(raw)
            _zmtp_send(raw, wire.encode(header), more=True)
            size = 3000 * 4000 * 3
            raw.sendall(b"\x02" + struct.pack(">Q", size) + bytes(size // 2))
            _healthy(f"tcp://127.0.0.1:{port}", 30)
            raw.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # reset, as a kill does
        _healthy(f"tcp://127.0.0.1:{port}", 30, camera="half")
        assert service.stop() == 0
        assert service.frames("half") == {**service.frames("half"), "received": 30, "scored": 30}
        assert service.frames("healthy")["scored"] == 30


def _zmtp_greeting(raw: socket.socket) -> None:
    """ZMTP 3.0 by hand, NULL mechanism: only so can a message be cut at a chosen byte."""
    raw.settimeout(10)
    raw.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
    got = b""
    while len(got) < 64:
        got += raw.recv(64 - len(got))
    ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
    raw.recv(4096)


def _zmtp_send(raw: socket.socket, part: bytes, more: bool = False) -> None:
    raw.sendall(bytes([int(more), len(part)]) + part)


def _zmtp_receive(raw: socket.socket) -> bytes:
    return raw.recv(4096)


# ---- SIGTERM under load ---------------------------------------------------------------------------------


def test_a_stop_under_load_accounts_for_every_frame(service: Service) -> None:
    accounts, errors = {}, []
    started = threading.Semaphore(0)

    def load(camera: str) -> None:
        with Client(service.endpoint, camera) as client:
            try:
                for i in range(1_000_000):
                    client.send(_IMAGE)
                    client.poll()
                    if i == 50:
                        started.release()
            except ProtocolError as error:
                errors.append(str(error))
            list(client.drain(15))
            accounts[camera] = client.account()

    threads = [threading.Thread(target=load, args=(f"cam{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=60)
    assert service.stop() == 0
    for thread in threads:
        thread.join(60)
    assert errors == ["the service is stopping and takes no more frames"] * 3
    for camera, account in accounts.items():
        frames = service.frames(camera)
        assert _adds_up(frames)
        assert account.sent == account.answered + account.refused + account.unanswered
        assert (account.sent, account.refused, account.unanswered) == (account.answered, 0, 0)
        assert frames["received"] == frames["scored"] == account.answered > 50
    assert len(service.verdicts()) == sum(account.answered for account in accounts.values())
    assert service.stopped["sink_errors"] == 0


def test_the_last_results_leave_before_the_process_does(bundle: Bundle, tmp_path: Path) -> None:
    """The network is slow at the very end: sockets must be empty, not just closed, when the process ends."""
    count = 400
    with Service(tmp_path, bundle.path, source={"credits": count}) as service:
        context = zmq.Context()
        slow = context.socket(zmq.DEALER)
        slow.setsockopt(zmq.RCVHWM, 5)
        slow.connect(service.endpoint)
        slow.send(wire.encode(wire.Hello(version=1, camera="slow")))
        slow.recv()
        header = wire.SendFrame(frame_id=0, height_px=8, width_px=8, pixel_format="grey8", captured_ns=0)
        for i in range(count):
            numbered = msgspec.structs.replace(header, frame_id=i, part_id="x" * 5000)
            slow.send_multipart([wire.encode(numbered), bytes(64)])
        _wait_for(lambda: (tmp_path / "verdicts.jsonl").read_bytes().count(b"\n") == count)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.8)  # long enough for a process to end that does not wait for its sockets
        answers = []
        while len(answers) <= count and slow.poll(2000):
            answers.append(wire.decode_to_client(slow.recv()))
        context.destroy(linger=0)
        ids = [answer.verdict.frame_id for answer in answers if isinstance(answer, wire.Result)]
        # A peer that stalls at the very moment of the end may still lose what its own kernel holds (some 40
        # here); `Client` never stalls: it takes in all that its credits allow.
        assert ids == list(range(len(ids)))
        assert len(ids) > 0.75 * count
        assert service.process.wait(30) == 0


def test_verdicts_that_wait_unread_survive_the_end_of_the_service(bundle: Bundle, tmp_path: Path) -> None:
    with Service(tmp_path, bundle.path, source={"credits": 2000}) as service:
        with Client(service.endpoint, "cam") as client:
            for _ in range(1500):
                client.send(_IMAGE[:8, :8].copy(), part_id="x" * 4000)
            stopping = threading.Thread(target=service.stop)
            stopping.start()
            time.sleep(1.0)  # reads nothing meanwhile
            list(client.drain(15))
            stopping.join(60)
            account = client.account()
        assert service.process.returncode == 0
        assert (account.sent, account.answered) == (1500, 1500)
        assert service.frames()["received"] == 1500


def test_a_client_that_is_stopped_accounts_too(service: Service, pictures: tuple[Path, Path]) -> None:
    command = [
        *ALGAN_STREAM,
        "send",
        str(pictures[0]),
        "--to",
        service.endpoint,
        "--fps",
        "200",
        "--loop",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        jsonl = service.folder / "verdicts.jsonl"
        _wait_for(lambda: jsonl.exists() and jsonl.stat().st_size > 5_000)
        sender.send_signal(signal.SIGTERM)
        report = json.loads(sender.communicate(timeout=30)[0])
    assert sender.returncode == 0
    assert report["sent"] == report["answered"] > 0
    assert service.stop() == 0
    assert service.frames() == {**service.frames(), "received": report["sent"], "scored": report["sent"]}


# ---- strangers ------------------------------------------------------------------------------------------


def test_garbage_from_one_client_beside_a_healthy_one(bundle: Bundle, tmp_path: Path) -> None:
    with Service(tmp_path, bundle.path, source={"max_frame_bytes": 100_000, "credits": 8}) as service:
        beside = threading.Thread(target=lambda: verdicts.extend(_healthy(service.endpoint, 400)))
        verdicts: list[FrameVerdict] = []
        beside.start()
        rng = random.Random(3)
        frame = wire.SendFrame(frame_id=0, height_px=48, width_px=64, pixel_format="bgr8", captured_ns=0)
        context = zmq.Context()
        bad = context.socket(zmq.DEALER)
        bad.connect(service.endpoint)
        answers: list[wire.ToClient] = []

        def read(until: int) -> None:
            while len(answers) < until:
                assert bad.poll(20_000), f"{len(answers)} of {until} answers"
                answers.append(wire.decode_to_client(bad.recv_multipart()[0]))

        junk = [[rng.randbytes(rng.randint(0, 60)) for _ in range(rng.randint(1, 4))] for _ in range(200)]
        for i, parts in enumerate(junk):
            bad.send_multipart(parts)
            if i % 50 == 49:
                read(i + 1)
        assert {type(answer) for answer in answers} == {wire.Refusal}
        bad.send_multipart([wire.encode(frame), _IMAGE.tobytes()])  # without hello
        bad.send_multipart([wire.encode(wire.Hello(version=99))])
        read(202)
        assert [answer.code for answer in answers[200:]] == ["hello_first", "version"]
        bad.send_multipart([wire.encode(wire.Hello(version=1, camera="bad"))])
        read(203)
        replace = msgspec.structs.replace
        for parts in (
            [wire.encode(frame)],
            [wire.encode(replace(frame, frame_id=1)), b"short"],
            [wire.encode(replace(frame, frame_id=2, deadline_ms=float("nan"))), _IMAGE.tobytes()],
            [wire.encode(replace(frame, frame_id=3)), _IMAGE.tobytes(), b"more"],
            [wire.encode(replace(frame, frame_id=4, boxes=[(0, 0, 1e300, float("nan"))])), _IMAGE.tobytes()],
        ):
            bad.send_multipart(parts)
        for i in range(5, 105):  # far more than the 8 credits
            bad.send_multipart([wire.encode(replace(frame, frame_id=i)), _IMAGE.tobytes()])
        read(203 + 105)
        results = [answer for answer in answers[203:] if isinstance(answer, wire.Result)]
        assert len(results) == 105
        assert {r.verdict.frame_id for r in results} == set(range(105))
        assert {r.verdict.verdict.value for r in results if r.verdict.frame_id < 5} == {"unknown"}
        # Larger than allowed: the connection is closed, nothing is allocated or received.
        bad.send_multipart([wire.encode(replace(frame, frame_id=200)), bytes(50_000_000)])
        time.sleep(0.3)
        context.destroy(linger=0)
        beside.join(60)
        assert len(verdicts) == 400
        _healthy(service.endpoint, 20, camera="later")
        assert service.stop() == 0
        assert "Traceback" not in service.errors
        bad_frames = service.frames("bad")
        assert _adds_up(bad_frames)
        assert bad_frames["received"] == 105
        assert bad_frames["failed"] >= 5
        assert service.frames("healthy") == {**service.frames("healthy"), "received": 400, "scored": 400}
        assert set(service.stopped["cameras"]) == {"bad", "healthy", "later"}


# ---- mistakes before the first frame --------------------------------------------------------------------


def _line(path: Path, **changes: Any) -> dict[str, Any]:
    camera = {"id": "cam", "source": {"kind": "zmq", "bind": "tcp://127.0.0.1:*"}}
    return {"bundle": str(path), "cameras": [camera], "engine": {"kind": "openvino", "threads": 1}, **changes}


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (
            {"cameras": [{"id": "a", "source": {"kind": "zmq", "bind": "tcp://0.0.0.0:0"}}]},
            2,
            "insecure: true",
        ),
        (
            {"cameras": [{"id": "a", "source": {"kind": "folder", "path": "x", "fpss": 1}}]},
            2,
            "cameras[0].source.fpss",
        ),
        ({"cameras": [{"id": "a", "source": {"kind": "folder", "path": "nowhere"}}]}, 3, "no such folder"),
        ({"bundle": "nowhere"}, 4, "is not a model bundle"),
        ({"engine": {"kind": "abacus"}}, 2, "engine.kind"),
        ({"surprise": 1}, 2, "surprise: unknown key"),
    ],
)
def test_a_mistake_ends_the_service_before_its_first_frame(
    bundle: Bundle, tmp_path: Path, changes: dict[str, Any], code: int, message: str
) -> None:
    (tmp_path / "line.yaml").write_text(json.dumps(_line(bundle.path, **changes)))
    ended = algan_stream("run", tmp_path / "line.yaml", "--json")
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""  # it never said that it was ready
    assert ended.stderr.startswith("error: ")
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("spoiled", ["discriminator.onnx", "golden.npz", "manifest.json"])
def test_an_altered_bundle_never_serves(own_bundle: Bundle, tmp_path: Path, spoiled: str) -> None:
    path = own_bundle.path / spoiled
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    (tmp_path / "line.yaml").write_text(json.dumps(_line(own_bundle.path)))
    ended = algan_stream("run", tmp_path / "line.yaml")
    assert (ended.returncode, ended.stdout) == (4, ""), ended.stderr
    assert spoiled in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_second_service_on_the_same_socket_is_refused(service: Service) -> None:
    again = algan_stream("run", service.file)
    assert again.returncode == 2
    assert "is in use by another process" in again.stderr
    _healthy(service.endpoint, 10)
    assert service.stop() == 0


def test_a_file_line_runs_to_its_end_by_itself(
    bundle: Bundle, tmp_path: Path, pictures: tuple[Path, Path]
) -> None:
    (tmp_path / "in").mkdir()
    for file in sorted(pictures[0].glob("*.png"))[:6]:
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "in" / "zz.png").write_bytes(b"")
    cameras = [{"id": "cam", "source": {"kind": "folder", "path": "in"}}]
    sinks = [{"kind": "jsonl", "path": "out.jsonl"}]
    (tmp_path / "line.yaml").write_text(json.dumps(_line(bundle.path, cameras=cameras, sinks=sinks)))
    ended = algan_stream("run", tmp_path / "line.yaml", "--json")
    assert ended.returncode == 0, ended.stderr
    stopped = json.loads(ended.stdout.splitlines()[-1])
    frames = stopped["cameras"]["cam"]["frames"]
    assert (frames["received"], frames["scored"], frames["failed"]) == (7, 6, 1)
    assert stopped["cameras"]["cam"]["reasons"] == {"bad_image": 1}
    verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(verdicts) == 7
    assert {v["verdict"] for v in verdicts if v["part_id"] == "zz.png"} == {"unknown"}
