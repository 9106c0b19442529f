"""Nothing is reachable from another host, or by another user, unless the configuration says so."""

from __future__ import annotations

import os
import socket as unix
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from algan_stream import endpoints
from algan_stream.errors import ConfigError


@pytest.fixture
def socket() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as made:
        made.setsockopt(zmq.LINGER, 0)
        yield made


@pytest.mark.parametrize("port", ["0", "*"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8"])
def test_this_host_needs_no_leave(socket: zmq.Socket[bytes], host: str, port: str) -> None:
    real = endpoints.bind(socket, f"tcp://{host}:{port}", insecure=False)
    assert int(real.rpartition(":")[2]) > 0
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(real)
        peer.send(b"hello")
        assert socket.poll(5000)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:0",
        "tcp://0.0.0.0:0",
        "tcp://*:*",
        "tcp://10.0.0.1:5555",
        "tcp://eth0:0",
        "tcp://[::]:0",
        "tcp://:0",
    ],
)
def test_other_hosts_are_refused_in_words(socket: zmq.Socket[bytes], endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"can be reached from other hosts.*insecure: true"):
        endpoints.bind(socket, endpoint, insecure=False)
    assert socket.getsockopt_string(zmq.LAST_ENDPOINT) == ""


def test_insecure_in_so_many_words(socket: zmq.Socket[bytes]) -> None:
    assert endpoints.bind(socket, "tcp://0.0.0.0:0", insecure=True).startswith("tcp://0.0.0.0:")


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:5555",
        "udp://127.0.0.1:1",
        "inproc://x",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:99999",
        "tcp://[::1",
        "tcp://[::1:5",
        "ipc://",
        "ipc://*",
    ],
)
@pytest.mark.parametrize("insecure", [False, True])
def test_a_malformed_endpoint(socket: zmq.Socket[bytes], endpoint: str, insecure: bool) -> None:
    with pytest.raises(ConfigError, match=r"^bind: "):
        endpoints.bind(socket, endpoint, insecure=insecure)


def test_a_port_that_is_taken(socket: zmq.Socket[bytes]) -> None:
    taken = endpoints.bind(socket, "tcp://127.0.0.1:0", insecure=False)
    message = f"cannot bind {taken}: Address already in use"
    with (
        zmq.Context() as context,
        context.socket(zmq.PUB) as other,
        pytest.raises(ConfigError, match=message),
    ):
        endpoints.bind(other, taken, insecure=False)


def test_an_ipc_socket_is_private_and_the_umask_stays(socket: zmq.Socket[bytes], tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        endpoints.bind(socket, f"ipc://{tmp_path / 's'}", insecure=False)
        assert os.umask(0o000) == 0o000
    finally:
        os.umask(before)
    mode = (tmp_path / "s").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_an_abstract_ipc_socket_has_no_owner_and_is_refused(socket: zmq.Socket[bytes]) -> None:
    """Any user of the host could connect to it, whatever the mask."""
    with pytest.raises(ConfigError, match="bind: expected ipc://PATH of a file"):
        endpoints.bind(socket, "ipc://@algan-test", insecure=False)


def test_a_stale_socket_is_replaced_but_a_living_one_is_not(
    socket: zmq.Socket[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with unix.socket(unix.AF_UNIX) as stale:
        stale.bind(str(path))
    endpoints.bind(socket, f"ipc://{path}", insecure=False)
    message = f"bind: {path} is in use by another process"
    with (
        zmq.Context() as context,
        context.socket(zmq.PUB) as other,
        pytest.raises(ConfigError, match=message),
    ):
        endpoints.bind(other, f"ipc://{path}", insecure=False)


def test_a_file_is_never_removed_for_a_socket(socket: zmq.Socket[bytes], tmp_path: Path) -> None:
    """ZeroMQ unlinks whatever stands at the path."""
    path = tmp_path / "thesis"
    path.write_text("thesis")
    with pytest.raises(ConfigError, match=f"bind: {path} exists and is not a socket"):
        endpoints.bind(socket, f"ipc://{path}", insecure=False)
    assert path.read_text() == "thesis"


def test_a_path_without_a_folder_or_too_long(socket: zmq.Socket[bytes], tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        with pytest.raises(ConfigError, match="cannot bind ipc://"):
            endpoints.bind(socket, f"ipc://{path}", insecure=False)
