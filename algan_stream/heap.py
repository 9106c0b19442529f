"""The C library's heap, told to keep the memory of large messages."""

from __future__ import annotations

import ctypes
import sys

#: Parameters of mallopt(3), and what they are set to: messages up to 32 MiB, the most that is possible, come
#: from the heap; a heap gives back only what it has free beyond 256 MiB, and grows by 16 MiB at least.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 256 << 20), (_M_TOP_PAD, 16 << 20))


def keep_large_messages() -> bool:
    """Lets this process reuse the memory of large messages instead of returning it after each one.

    By default glibc asks the system for the memory of every large message anew, page by page it is zeroed,
    which costs more than receiving the message over TCP does.

    Returns:
        Whether the C library took it; others than glibc do not know it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS)
