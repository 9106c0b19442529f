"""Throws broken messages at a real service, beside a healthy client that must not notice.

    make fuzz-wire [MESSAGES=1000000]

Messages are captures of good ones with bytes changed, lengths that lie, parts dropped, doubled and added,
values of other types, counts beyond all bounds; some are good. Connections of plain TCP send ZMTP that is
broken in the same way. What counts as a finding: the service ends, logs a traceback, leaks memory or files,
answers a message not at all or twice, has accounts that do not add up; or the healthy client gets a verdict
late, two verdicts for one image, or none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
import numpy as np
import zmq

from algan_stream import wire
from algan_stream.client import Client
from algan_stream.errors import ProtocolError
from bundles import make_bundle
from processes import Service
from servers import free_port

#: Of the healthy client; what is later is a finding.
DEADLINE_MS = 2000.0
_CREDITS = 16
_IMAGE = np.full((24, 32, 3), 90, np.uint8)
#: Messages on their way at one time, on each connection; the service holds back no more than it must.
_WINDOW = 100
_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, -(2**31), 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1.5, float("nan"),
    float("inf"), -float("inf"), 1e308, "", "x", "\0", "ä" * 40, "x" * 5000, "../..", "hello", "frame", b"",
    b"\xff" * 30, [], [[]], [None], [1, 2, 3, 4], [[0, 0, 1, 1]], [[1, 2, 3]], [[0.0] * 4] * 4097, {},
    {"a": 1}, [[float("nan")] * 4],
    [[-1e308, 1e308, 3.0, 2.0]] * 20, [[1e-300] * 4], msgspec.msgpack.Ext(5, b"abc"),
]  # fmt: skip
#: Heads of msgpack that promise more than any memory holds, or than follows.
_LIES = [
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff", b"\xc1", b"\xcf", b"\xcb\x7f",
    b"\x91" * 2000, b"\x81\xa1x" * 2000, b"\x81" * 600,
]  # fmt: skip


class Mutator:
    """Makes messages, a pure function of its seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._frame_id = 0

    def message(self) -> list[bytes]:
        """The parts of one message; about one in eight is good."""
        parts = self._good()
        for _ in range(self._random.choice((0, 1, 1, 1, 1, 2, 2, 3))):
            if not parts:
                return [b""]
            parts = self._random.choice((self._bytes, self._values, self._parts, self._length, self._lie))(
                parts
            )
        return parts or [b""]

    def stream(self) -> bytes:
        """ZMTP of a whole session over plain TCP, with bytes changed or cut off."""
        ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        raw = bytearray(greeting + bytes([4, len(ready)]) + ready)
        for part in (*self._hello(), *self._frame()):
            raw += b"\x02" + struct.pack(">Q", len(part)) + part
        for _ in range(self._random.randint(1, 8)):
            raw[self._random.randrange(len(raw))] = self._random.randrange(256)
        return bytes(raw[: self._random.randrange(10, len(raw))])

    def _hello(self) -> list[bytes]:
        name = f"fuzz{self._random.randrange(12)}"
        return [wire.encode(wire.Hello(version=1, camera=name, next_id=self._frame_id))]

    def _frame(self) -> list[bytes]:
        rng = self._random
        self._frame_id += 1
        boxes = [(1.0, 1.0, 9.0, 9.0)] * rng.choice((1, 2)) if rng.random() < 0.2 else None
        header = wire.SendFrame(
            frame_id=self._frame_id, height_px=4, width_px=5, pixel_format="bgr8", captured_ns=1, boxes=boxes,
            part_id="part", deadline_ms=rng.choice((None, 1.0, 500.0)),
        )  # fmt: skip
        return [wire.encode(header), bytes(60)]

    def _good(self) -> list[bytes]:
        chance = self._random.random()
        if chance < 0.12:
            return self._hello()
        if chance < 0.17:
            return [wire.encode(wire.Bye())]
        if chance < 0.27:
            header = wire.SendVector(frame_id=self._frame_id, dtype="f32", length=5, captured_ns=1)
            return [wire.encode(header), bytes(20)]
        return self._frame()

    def _bytes(self, parts: list[bytes]) -> list[bytes]:
        rng, raw = self._random, bytearray(parts[0])
        for _ in range(rng.randint(1, 4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.choice((0, 0x80, 0xC0, 0xDD, 0xFF, rng.randrange(256)))
        return [bytes(raw), *parts[1:]]

    def _values(self, parts: list[bytes]) -> list[bytes]:
        """Another type or size for a field, a field too many, or too few."""
        rng = self._random
        try:
            fields = msgspec.msgpack.decode(parts[0])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return parts
        if not isinstance(fields, dict) or not fields:
            return parts
        key = rng.choice(list(fields))
        what = rng.random()
        if what < 0.75:
            fields[key] = rng.choice(_ODD)
        elif what < 0.9:
            del fields[key]
        else:
            fields[rng.choice(("", "x", "type", "boxes"))] = rng.choice(_ODD)
        try:
            return [msgspec.msgpack.encode(fields), *parts[1:]]
        except (TypeError, OverflowError):
            return parts

    def _parts(self, parts: list[bytes]) -> list[bytes]:
        rng = self._random
        what = rng.randrange(5)
        if what == 0:
            return parts[:-1]
        if what == 1:
            return [*parts, *[rng.randbytes(rng.randrange(40)) for _ in range(rng.choice((1, 2, 60)))]]
        if what == 2:
            return parts[::-1]
        if what == 3:
            return [parts[0], *parts]
        return [b"", *parts]

    def _length(self, parts: list[bytes]) -> list[bytes]:
        rng, at = self._random, self._random.randrange(len(parts))
        part = parts[at]
        longer = part + rng.randbytes(rng.choice((1, 3, 200)))
        changed = longer if rng.random() < 0.4 else part[: rng.randrange(len(part) + 1)]
        return [*parts[:at], changed, *parts[at + 1 :]]

    def _lie(self, parts: list[bytes]) -> list[bytes]:
        rng, head = self._random, parts[0]
        cut = rng.randrange(len(head) + 1)
        return [head[:cut] + rng.choice(_LIES) + head[cut:], *parts[1:]]


def _unanswered(parts: list[bytes]) -> bool:
    """Whether it is a `Bye`: the one message without an answer."""
    try:
        return isinstance(wire.decode_to_service(parts[0]), wire.Bye)
    except ProtocolError:
        return False


class Attacker:
    """One connection; counts what it sends and what comes back."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(endpoint)
        self.due = self.answers = 0

    def send(self, parts: list[bytes]) -> None:
        self.socket.send_multipart(parts)
        self.due += not _unanswered(parts)

    def read(self, most_open: int, timeout_s: float) -> bool:
        """Reads answers until at most so many are missing; returns whether they came in time."""
        give_up = time.monotonic() + timeout_s
        while self.due - self.answers > most_open:
            if not self.socket.poll(100) and time.monotonic() > give_up:
                return False
            self._take_all()
        return True

    def _take_all(self) -> None:
        while self.socket.poll(0):
            answer = wire.decode_to_client(self.socket.recv_multipart()[0])
            # Being superseded, and that the service stops, answers no message.
            counts = not (isinstance(answer, wire.Refusal) and answer.code == "superseded")
            self.answers += counts and not isinstance(answer, wire.Closing)


def _healthy(endpoint: str, pipe: Any) -> None:
    """In a process of its own: 50 frames a second until told to stop; then what became of them."""
    verdicts, sent_at, longest_s = [], {}, 0.0
    with Client(endpoint, "healthy", timeout_s=30) as client:
        pipe.send("ready")
        while not pipe.poll(0):
            sent_at[client.send(_IMAGE, deadline_ms=DEADLINE_MS)] = time.monotonic()
            for verdict in client.poll(0.02):
                longest_s = max(longest_s, time.monotonic() - sent_at.pop(verdict.frame_id))
                verdicts.append((verdict.verdict.value, verdict.boxes[0].score, verdict.reason))
        for verdict in client.drain(30):
            verdicts.append((verdict.verdict.value, verdict.boxes[0].score, verdict.reason))
        pipe.send(
            (msgspec.to_builtins(client.account()), len(verdicts), sorted(set(map(str, verdicts))), longest_s)
        )


def _memory_and_files(pid: int) -> tuple[int, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return kib, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def fuzz(folder: Path, *, messages: int, seed: int, seconds: float = 1e9) -> dict[str, Any]:
    """Runs it.

    Args:
        folder: For the bundle and the service; empty.
        messages: Broken messages in all.
        seed: Of the messages.
        seconds: Stop after that, with fewer messages.

    Returns:
        What was measured; `findings` says what is wrong, and is empty if nothing is.
    """
    bundle = make_bundle(folder / "bundle")
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    findings: list[str] = []
    source = {"bind": endpoint, "credits": _CREDITS, "max_clients": 64, "max_frame_bytes": 1 << 20}
    sinks = [{"kind": "zmq_pub", "bind": f"ipc://{folder / 'out'}"}]
    with Service(folder, bundle.path, source=source, sinks=sinks) as service:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        healthy = spawn.Process(target=_healthy, args=(endpoint, theirs), daemon=True)
        healthy.start()
        assert ours.poll(60), "the healthy client did not start"
        ours.recv()
        begin = time.monotonic()
        sent, memory = _attack(endpoint, service, messages, seed, begin + seconds, findings)
        took_s = time.monotonic() - begin
        ours.send("stop")
        if not ours.poll(60):
            findings.append("the healthy client hangs")
            account, count, kinds, longest_s = {}, 0, [], 0.0
        else:
            account, count, kinds, longest_s = ours.recv()
        healthy.join(30)
        code = service.stop()
        stopped, errors = service.stopped, service.errors
    if code != 0:
        findings.append(f"the service ended with {code}")
    if "Traceback" in errors:
        findings.append(f"a traceback:\n{errors[-4000:]}")
    if len(errors) > 200_000:
        findings.append(f"strangers filled the log: {len(errors)} bytes")
    if account.get("sent") != account.get("answered") or count != account.get("sent"):
        findings.append(f"the healthy client's account: {account}, {count} verdicts")
    if len(kinds) != 1 or "unknown" in kinds[0]:
        findings.append(f"the healthy client got different verdicts on one image: {kinds[:5]}")
    if longest_s > DEADLINE_MS / 1e3:
        findings.append(f"the healthy client waited {longest_s:.2f} s")
    frames = stopped["cameras"]["healthy"]["frames"]
    if not frames["received"] == frames["scored"] == count:
        findings.append(f"the ledger of the healthy client: {frames}, not {count}")
    for name, camera in stopped["cameras"].items():
        for tally in (camera["frames"], camera["boxes"]):
            ends = sum(tally[end] for end in ("scored", "dropped", "expired", "failed"))
            if tally["in_flight"] or tally["received"] != ends:
                findings.append(f"the ledger of {name} does not add up: {tally}")
    return {
        "messages": sent,
        "seconds": round(took_s, 1),
        "per_second": round(sent / took_s),
        "refused": stopped["refused"],
        "fuzz_frames": sum(
            c["frames"]["received"] for name, c in stopped["cameras"].items() if name != "healthy"
        ),
        "healthy": {"frames": count, "longest_ms": round(longest_s * 1e3, 1)},
        **memory,
        "log_bytes": len(errors),
        "findings": findings,
    }


def _attack(
    endpoint: str, service: Service, messages: int, seed: int, until: float, findings: list[str]
) -> tuple[int, dict[str, Any]]:
    rng, context = random.Random(seed), zmq.Context()
    attackers = [(Attacker(context, endpoint), Mutator(seed + i)) for i in range(6)]
    address = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
    warm = (0, 0)
    sent = 0
    while sent < messages and time.monotonic() < until and not findings:
        attacker, mutator = attackers[rng.randrange(len(attackers))]
        for _ in range(min(50, messages - sent)):
            attacker.send(mutator.message())
            sent += 1
        if not attacker.read(_WINDOW, 60):
            findings.append(f"{attacker.due - attacker.answers} messages were not answered within 60 s")
        if rng.random() < 0.02:  # a stranger that speaks ZMTP badly
            with socket.create_connection(address) as raw:
                raw.sendall(mutator.stream())
        if rng.random() < 0.002:  # somebody leaves, and somebody new comes
            attackers = _renewed(attackers, attacker, context, endpoint)
        if service.process.poll() is not None:
            findings.append(f"the service died with {service.process.returncode} after {sent} messages")
        elif not warm[0] and (sent >= messages // 5 or time.monotonic() > until - 10):
            warm = _memory_and_files(service.process.pid)
    for attacker, _ in attackers:
        if not findings and not attacker.read(0, 60):
            findings.append(f"{attacker.due - attacker.answers} messages were never answered")
        if attacker.answers > attacker.due:
            findings.append(f"{attacker.answers - attacker.due} answers too many")
    end = warm if service.process.poll() is not None else _memory_and_files(service.process.pid)
    if end[0] > warm[0] * 1.03 + 8192:
        findings.append(f"memory grew from {warm[0]} to {end[0]} KiB")
    if end[1] > warm[1] + 20:
        findings.append(f"open files grew from {warm[1]} to {end[1]}")
    context.destroy(linger=0)
    return sent, {"warm_kib": warm[0], "end_kib": end[0], "files": f"{warm[1]} → {end[1]}"}


def _renewed(
    attackers: list[tuple[Attacker, Mutator]], leaves: Attacker, context: zmq.Context[Any], endpoint: str
) -> list[tuple[Attacker, Mutator]]:
    leaves.read(0, 60)
    leaves.socket.close()
    return [(Attacker(context, endpoint) if a is leaves else a, m) for a, m in attackers]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = fuzz(Path(folder), messages=options.messages, seed=options.seed, seconds=options.seconds)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
