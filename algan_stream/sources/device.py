"""One connection to a live camera, and the thread that reads it."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from weakref import WeakSet

import numpy.typing as npt

from algan_stream.errors import AlganError
from algan_stream.types import CameraFormat

log = logging.getLogger(__name__)

TriggerMode: TypeAlias = Literal["free", "hardware", "software"]

#: How long a device may take to say that there is no picture yet.
GLANCE_S = 0.1
#: How long the end of the process waits for a library after all: a thread that comes out of C++ when the
#: interpreter is gone takes the process down, and the exit code with it.
_LAST_GOODBYE_S = 5.0


@dataclass(slots=True)
class Picture:
    """What a device gives.

    Attributes:
        image: As `preprocess` takes it; nobody else may write to it afterwards.
        pixel_format: What the pixels are.
        size_wh: Width and height in pixels.
        fault: Why it must not be judged, such as `incomplete: …`; such a picture is announced all the same.
        number: The camera's own count, or None.
        camera_ns: When it was taken, by the camera's own clock, or None.
        taken_ns: When it was taken, by this host's `time.monotonic_ns()`, where the driver knows, or None.
        arrived_ns: `time.monotonic_ns()` when it arrived.
    """

    image: npt.NDArray[Any]
    pixel_format: CameraFormat
    size_wh: tuple[int, int]
    fault: str = ""
    number: int | None = None
    camera_ns: int | None = None
    taken_ns: int | None = None
    arrived_ns: int = field(default_factory=time.monotonic_ns)


class Device(ABC):
    """One connection to a camera. Made, read and closed by one thread; `trigger` is called by another."""

    #: First and last number of the camera's count before it starts again; None: it goes on for ever.
    wrap: tuple[int, int] | None = None

    @abstractmethod
    def grab(self, timeout_s: float) -> Picture | None:
        """The next picture, or None if none came in time.

        Raises:
            CameraError: The connection is lost; the device is closed then.
        """

    def trigger(self) -> None:  # noqa: B027  most cameras run freely
        """Asks for one picture, which `grab` gives then; a free-running camera takes one anyway.

        Raises:
            CameraError: The camera does not take the trigger.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the camera."""


class Reader(threading.Thread):
    """Reads one connection until it breaks or is left.

    Args:
        name: Of the thread.
        connect: Makes the connection.
        take: Gets each picture, in this thread.
    """

    def __init__(
        self, name: str, connect: Callable[[], Device], take: Callable[[Reader, Picture], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._connect, self._take = connect, take
        self.leave = threading.Event()
        self.device: Device | None = None
        self.began = time.monotonic()
        #: Why it ended; empty until then.
        self.ended = ""

    def run(self) -> None:
        """Connects, reads and closes; `ended` then says why."""
        reason = "the connection was given up"
        try:
            self.device = self._connect()
            self.began = time.monotonic()
            while not self.leave.is_set():
                picture = self.device.grab(GLANCE_S)
                if picture is not None:
                    self._take(self, picture)
        except AlganError as error:  # also a ConfigError: another camera may have taken its place
            reason = str(error)
        except Exception as error:
            log.exception("%s broke", self.name)
            reason = f"{type(error).__name__}: {error}"
        finally:
            self._close()
            self.ended = reason

    def _close(self) -> None:
        device, self.device = self.device, None
        try:
            if device is not None:
                device.close()
        except Exception:
            log.exception("%s could not be closed", self.name)


#: Readers whose library did not come back in time.
left_behind: WeakSet[Reader] = WeakSet()


@atexit.register
def _say_goodbye() -> None:
    give_up = time.monotonic() + _LAST_GOODBYE_S
    for reader in list(left_behind):
        reader.join(max(0.0, give_up - time.monotonic()))
