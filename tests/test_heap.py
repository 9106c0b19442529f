"""A process that keeps the memory of large messages takes each of them without new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_RECEIVE = """
import resource, sys
from algan_stream.heap import keep_large_messages
if sys.argv[1] == "kept":
    assert keep_large_messages()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(6_000_000)
before = faults()
for _ in range(20):
    bytearray(6_000_000)
print(faults() - before)
"""


def _page_faults(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", _RECEIVE, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap can be told so")
def test_memory_of_large_messages_is_used_again() -> None:
    assert _page_faults("kept") < 100
