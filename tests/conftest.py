"""Shared fixtures, and a header that says what exactly is being tested."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # tests share helpers: bundles.py, fakes.py, processes.py

from algan_stream.bundle import Bundle
from algan_stream.preprocess import active_simd, available_simd
from bundles import make_bundle
from processes import Service

# How long a machine takes, and shares with others, is no property of the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

_LIBRARIES = ("algan-stream", "numpy", "openvino", "opencv-python-headless", "pillow", "pyzmq", "msgspec")


def pytest_report_header() -> list[str]:
    return [
        "versions: " + ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        f"SIMD path: {active_simd()} of {', '.join(available_simd())}",
    ]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Commands set up the process's log; the next test must not write to a stream that is closed by then."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers.copy(), root.level
    yield
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook = hook


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small real bundle, 32 px; tests must not change it."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Bundle:
    """A small real bundle that the test may spoil."""
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def service(bundle: Bundle, tmp_path: Path) -> Iterator[Service]:
    """A service process with one `zmq` source, ready to take frames; killed at the end if it still runs."""
    with Service(tmp_path, bundle.path) as running:
        yield running
