"""How `engines/cuda_device.py` calls pycuda and the driver, against stand-ins that insist on the rules.

The stand-ins have the names and arguments of pycuda 2026.1 (src/wrapper/wrap_cudadrv.cpp) and of cuda.h.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algan_stream.engines import cuda_device
from algan_stream.engines.cuda_device import CudaDevice, device_facts
from algan_stream.errors import EngineError, PluginError


class Driver(ModuleType):
    """`pycuda.driver`: everything but `init` and facts needs a current context."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.stack: list[Any] = []
        self.log: list[str] = []
        driver = self

        def current(what: str) -> None:
            assert driver.stack, f"{what} without a current context"
            driver.log.append(what)

        class Context:
            @staticmethod
            def pop() -> None:
                current("pop")
                driver.stack.pop()

            @staticmethod
            def synchronize() -> None:
                current("synchronize")

            def push(self) -> None:
                driver.stack.append(self)

            def detach(self) -> None:
                current("detach")
                driver.stack.pop()  # a context that is current leaves the stack as it ends

        class Device:
            def __init__(self, index: int) -> None:
                assert index == 0

            @staticmethod
            def count() -> int:
                return 1

            def name(self) -> str:
                return "NVIDIA L4"

            def compute_capability(self) -> tuple[int, int]:
                return 8, 9

            def make_context(self, flags: int) -> Context:
                assert flags == 4
                made = Context()
                driver.stack.append(made)  # pycuda makes it current
                return made

        class Allocation:
            def __int__(self) -> int:
                return 0x7000

            def free(self) -> None:
                current("free memory")

        class Stream:
            handle = 0x51

            def __init__(self, flags: int) -> None:
                current("stream")
                assert flags == 1

            def synchronize(self) -> None:
                current("wait for stream")

            def __del__(self) -> None:
                driver.log.append("stream gone" if driver.stack else "stream leaked")

        class Event:
            def __init__(self, flags: int) -> None:
                current("event")
                self.looks = 0
                assert flags == 2

            def record(self, stream: Stream) -> None:
                current("record")
                assert isinstance(stream, Stream)

            def query(self) -> bool:
                current("query")
                self.looks += 1
                return self.looks > 2

        def copy(what: str) -> Any:
            def memcpy(to: Any, of: Any, stream: Stream) -> None:
                current(what)
                assert isinstance(to if what == "download" else of, np.ndarray)
                assert (of if what == "download" else to) == 0x7000
                assert isinstance(stream, Stream)

            return memcpy

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.ctx_flags = SimpleNamespace(SCHED_BLOCKING_SYNC=4)
        self.event_flags = SimpleNamespace(DISABLE_TIMING=2)
        self.mem_alloc = lambda size: (current(f"allocate {size}"), Allocation())[1]
        self.memcpy_htod_async, self.memcpy_dtoh_async = copy("upload"), copy("download")
        self.get_driver_version = lambda: 12080
        self.init = lambda: None


class Library:
    """libcuda.so.1: notes every call; `fails` names those that give an error."""

    def __init__(self, driver: Driver) -> None:
        self.calls: list[str] = []
        self.fails: set[str] = set()
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            assert all(
                isinstance(a, ctypes._SimpleCData) or type(a).__name__ == "CArgObject" for a in arguments
            )
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
                return 0
            assert self._driver.stack, f"{name} without a current context"
            self.calls.append(name)
            if name in self.fails:
                return 901
            if name == "cuStreamEndCapture":
                arguments[1]._obj.value = 0x61
            if name == "cuGraphInstantiateWithFlags":
                arguments[0]._obj.value = 0x62
            return 0

        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made, package = Driver(), ModuleType("pycuda")
    package.driver = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


@pytest.fixture
def library(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library(driver)
    monkeypatch.setattr(cuda_device.ctypes, "CDLL", lambda name: made if name == "libcuda.so.1" else None)
    return made


def test_facts(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = device_facts()
    assert (facts.name, facts.sm) == ("NVIDIA L4", "sm89")
    assert facts.driver
    with pytest.raises(EngineError, match=r"engine\.device: expected a CUDA device from 0 to 0, got 1"):
        device_facts(1)
    assert driver.stack == []


def test_a_life(driver: Driver, library: Library) -> None:
    device = CudaDevice()
    assert driver.stack == []  # it is current only where that is asked for
    with device.current():
        memory, stream, event = device.allocate(64), device.stream(), device.event()
        array = device.page_locked((4, 4))
        stream.upload(memory, array)
        stream.download(array, memory)
        event.record(stream)
        event.wait(5)
        graph = device.capture(stream, lambda s=stream: s.upload(memory, array))
        graph.launch(stream)
        stream.synchronize()
    assert (memory.address, stream.handle) == (0x7000, 0x51)
    assert array.ctypes.data % 4096 == 0
    assert not array.any()
    assert driver.stack == []
    del stream, graph, event
    device.close()
    device.close()
    assert driver.stack == []
    assert driver.log.count("free memory") == driver.log.count("detach") == 1
    assert driver.log.index("synchronize") < driver.log.index("free memory") < driver.log.index("detach")
    assert "stream gone" in driver.log
    assert "stream leaked" not in driver.log
    assert library.calls == [
        "cuMemHostRegister_v2",
        "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy",
        "cuGraphLaunch",
        "cuGraphExecDestroy", "cuMemHostUnregister",
    ]  # fmt: skip
    array[:] = 1  # still memory
    with pytest.raises(EngineError, match="closed"), device.current():
        pass


@pytest.mark.parametrize(
    "fails", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_a_capture_that_the_driver_refuses(driver: Driver, library: Library, fails: str) -> None:
    device = CudaDevice()
    with device.current():
        stream = device.stream()
        library.fails = {fails}
        with pytest.raises(EngineError, match=rf"{fails}: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED \(901\)"):
            device.capture(stream, lambda: None)
    begun, ended = library.calls.count("cuStreamBeginCapture_v2"), library.calls.count("cuStreamEndCapture")
    assert ended == (0 if fails == "cuStreamBeginCapture_v2" else begun)
    made = library.calls.count("cuGraphInstantiateWithFlags")
    assert library.calls.count("cuGraphDestroy") == made
    del stream
    device.close()


def test_a_capture_that_the_library_refuses_is_ended(driver: Driver, library: Library) -> None:
    def refuse() -> None:
        raise RuntimeError("not while recording")

    device = CudaDevice()
    with device.current():
        stream = device.stream()
        with pytest.raises(RuntimeError, match="not while recording"):
            device.capture(stream, refuse)
    assert library.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphDestroy"]
    del stream
    device.close()


def test_an_event_that_does_not_come(driver: Driver, library: Library) -> None:
    device = CudaDevice()
    with device.current():
        event = device.event()
        event._native.looks = -(10**9)
        with pytest.raises(TimeoutError):
            event.wait(0.01)
    device.close()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    def no_driver() -> None:
        raise Driver.Error("cuInit failed: no CUDA-capable device is detected")

    driver.init = no_driver
    with pytest.raises(PluginError, match=r"pycuda cannot use the NVIDIA driver: cuInit failed"):
        device_facts()
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(PluginError, match=r"needs the Python package pycuda"):
        device_facts()
