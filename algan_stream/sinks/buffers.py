"""Memory for copies of frames, used again and again: fresh memory costs ten times what copying does."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

#: Buffers that lie ready for the next frames, made by the thread that has time for it.
_SPARE = 2


class Buffers:
    """One thread copies, another gives back and prepares.

    Args:
        most_bytes: Most that lies unused.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._size = 0  # of the last copy: the next will be like it
        self._free: list[npt.NDArray[np.uint8]] = []  # all of that size

    def copy(self, array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """A copy in C order, and the buffer that it lies in, to be given back."""
        with self._lock:
            if array.nbytes != self._size:
                self._size, self._free = array.nbytes, []
            buffer = self._free.pop() if self._free else None
        if buffer is None:
            buffer = np.empty(array.nbytes, np.uint8)
        out = buffer.view(array.dtype).reshape(array.shape)
        np.copyto(out, array)
        return out, buffer

    def give_back(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Takes a buffer back that nobody reads any more."""
        with self._lock:
            if buffer.nbytes == self._size and (len(self._free) + 1) * self._size <= self._most_bytes:
                self._free.append(buffer)

    def prepare(self) -> None:
        """Makes what the next copies will need."""
        while True:
            with self._lock:
                size = self._size
                if size == 0 or len(self._free) >= _SPARE or (len(self._free) + 1) * size > self._most_bytes:
                    return
            buffer = np.empty(size, np.uint8)
            buffer.fill(0)  # this is what takes the time
            self.give_back(buffer)
