"""Twenty seconds of what `make fuzz-wire` does with a million messages."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import fuzz_wire


def test_broken_messages_beside_a_healthy_client(tmp_path: Path) -> None:
    report = fuzz_wire.fuzz(tmp_path, messages=1_000_000, seed=int(time.time()), seconds=20.0)
    assert report["findings"] == [], report
    assert report["messages"] > 2000
    assert report["healthy"]["frames"] > 100
