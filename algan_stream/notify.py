"""Tells systemd how a service is: ready, alive, stopping (see sd_notify(3)). Does nothing elsewhere."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from algan_stream.errors import LedgerError

if TYPE_CHECKING:
    from algan_stream.service import Service

log = logging.getLogger(__name__)

#: How often the status line is renewed where no watchdog asks for more.
_STATUS_S = 10.0
_GLANCE_S = 0.1


class Notifier:
    """The socket that systemd named.

    Args:
        address: `NOTIFY_SOCKET`: a path, or `@NAME` in the abstract namespace.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(1.0)

    def tell(self, **fields: str | int) -> None:
        """Sends fields such as `READY=1` as one message; one that cannot be sent is logged."""
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", message, error)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How often systemd wants to hear from this process, in seconds; None: it does not."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


@contextmanager
def attending(service: Service, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Keeps systemd informed from a thread of its own while the block runs the service.

    `READY=1` once frames are taken; `WATCHDOG=1` twice in each period of the watchdog, but only while the
    service is well; `STOPPING=1` when it begins to stop; `STATUS=…` with each.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        yield
        return
    notifier, over = Notifier(address), threading.Event()
    limit_s = watchdog_s(environment)
    interval_s = limit_s / 2 if limit_s else _STATUS_S
    thread = threading.Thread(
        target=_attend, args=(service, notifier, over, interval_s, limit_s is not None), name="systemd"
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        notifier.close()


def _attend(
    service: Service, notifier: Notifier, over: threading.Event, interval_s: float, watchdog: bool
) -> None:
    told = "starting"
    while True:
        last = over.is_set()  # looked at first: a line that ends within a moment was ready, too
        phase = service.phase
        if told == "starting" != phase:
            notifier.tell(READY=1)
        if told != "stopping" and phase == "stopping":
            notifier.tell(STOPPING=1)
        told = phase
        problems = service.health.problems()
        if watchdog and not problems:
            notifier.tell(WATCHDOG=1)
        notifier.tell(STATUS=f"{phase}: {'; '.join(problems) or _summary(service)}")
        if last:
            return
        if phase == "running":
            service.wait_for_stop(interval_s)
        else:
            over.wait(_GLANCE_S if phase == "starting" else interval_s)


def _summary(service: Service) -> str:
    try:
        accounts = service.accounts()
    except LedgerError as error:
        return str(error)
    received = sum(account.frames.received for account in accounts.values())
    in_flight = sum(account.frames.in_flight for account in accounts.values())
    return f"{len(accounts)} cameras, {received} frames received, {in_flight} in flight"
