"""Binds ZeroMQ sockets safely: nothing is reachable from another host unless the config says so in words."""

from __future__ import annotations

import ipaddress
import os
import socket as unix
from pathlib import Path
from urllib.parse import urlsplit

import zmq

from algan_stream.curve import CurveConfig
from algan_stream.doorman import Doorman
from algan_stream.errors import ConfigError


def listen(
    socket: zmq.Socket[bytes], endpoint: str, *, insecure: bool, curve: CurveConfig | None
) -> tuple[str, Doorman | None]:
    """Binds a socket, with a doorman before it where it has keys; the doorman is closed before the socket.

    Args:
        socket: Not yet bound, and alone in its context.
        endpoint: As for `bind`.
        insecure: As for `bind`.
        curve: Own keys and the allow-list, or None.

    Returns:
        The endpoint with its real port, and the doorman.

    Raises:
        ConfigError: As for `bind` and `Doorman`; or both `insecure` and `curve` are set.
    """
    if curve is None:
        return bind(socket, endpoint, insecure=insecure), None
    if insecure:
        raise ConfigError("insecure: expected `curve` or `insecure: true`, got both; remove one")
    doorman = Doorman(socket, curve)
    try:
        return bind(socket, endpoint, insecure=True), doorman
    except ConfigError:
        doorman.close()
        raise


def bind(socket: zmq.Socket[bytes], endpoint: str, *, insecure: bool) -> str:
    """Binds a socket and returns the endpoint with its real port.

    Args:
        socket: Not yet bound.
        endpoint: `ipc://PATH` or `tcp://ADDRESS:PORT`; port `*` or 0 for any free one.
        insecure: Allow an address that other hosts reach, without encryption or authentication.

    Raises:
        ConfigError: The endpoint is malformed, taken, or reachable from other hosts without `insecure`.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        return _bind_ipc(socket, endpoint, rest)
    if scheme != "tcp" or not is_host_and_port(rest):
        raise ConfigError(f"bind: expected ipc://PATH or tcp://ADDRESS:PORT, got {endpoint!r}")
    if not insecure and not _is_loopback(endpoint):
        raise ConfigError(
            f"bind: {endpoint} can be reached from other hosts; give it keys with `curve: {{secret_key: FILE,"
            " allow: FOLDER}` (`algan-stream keys new` makes them), bind to 127.0.0.1 or ipc://, or write "
            "`insecure: true` to accept that anyone may connect and listen"
        )
    _bind(socket, endpoint)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _bind_ipc(socket: zmq.Socket[bytes], endpoint: str, name: str) -> str:
    if not name or name == "*" or name.startswith("@"):  # abstract sockets (@) are open to every user
        raise ConfigError(f"bind: expected ipc://PATH of a file, got {endpoint!r}")
    path = Path(name)
    _check_free(path)
    # The mask makes the socket file 0600 from its first moment; a chmod afterwards would come too late.
    previous = os.umask(0o177)
    try:
        _bind(socket, endpoint)
    finally:
        os.umask(previous)
    if path.exists() and path.stat().st_mode & 0o077:
        raise ConfigError(f"bind: {path} could not be made private to its owner (mode 0600)")
    return endpoint


def _check_free(path: Path) -> None:
    """ZeroMQ removes whatever stands at the path; only a socket that nobody answers may go."""
    if path.exists() and not path.is_socket():
        raise ConfigError(f"bind: {path} exists and is not a socket; name another path")
    with unix.socket(unix.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise ConfigError(f"bind: {path} is in use by another process; stop that first, or name another path")


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise ConfigError(f"bind: cannot bind {endpoint}: {error.strerror}") from error


def is_host_and_port(rest: str) -> bool:
    """Whether it has the form ADDRESS:PORT, with an IPv6 address in brackets; port `*` is any free one."""
    host, _, port = rest.rpartition(":")
    if host.startswith("[") != host.endswith("]"):
        return False
    return port == "*" or (port.isascii() and port.isdigit() and int(port) <= 65_535)  # ZeroMQ wraps around


def _is_loopback(endpoint: str) -> bool:
    return is_loopback(urlsplit(endpoint.removesuffix(":*")).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host name or address cannot be reached from other hosts."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_plain_host(host: str, *, tls_schemes: tuple[str, ...] = ()) -> None:
    """Refuses a URL where a host's name or address is expected, and says what to write.

    Args:
        host: As it stands in the configuration.
        tls_schemes: Schemes that mean what `tls: true` does.

    Raises:
        ConfigError: It has a scheme, a port or a path.
    """
    scheme, found, rest = host.partition("://")
    if not found and "/" not in host and (host.count(":") != 1 or not host.rpartition(":")[2].isdigit()):
        return
    parts = urlsplit(f"//{rest if found else host}")
    try:
        name, port = parts.hostname or "ADDRESS", parts.port
    except ValueError:
        name, port = "ADDRESS", None
    keys = [f"`host: {name}`"] + ([f"`port: {port}`"] if port else [])
    keys += ["`tls: true`"] if found and scheme in tls_schemes else []
    raise ConfigError(
        f"host: expected a name or address without a scheme, port or path, got {host!r}; write "
        f"{' and '.join(keys)}"
    )
