"""The one file that talks to pycuda: a device with a context of its own, memory, streams, events and graphs.

A context is current in a thread only inside `with device.current():`; every call here, and every call of a
library that uses the device, stands inside one. Contexts may be current in several threads at once. pycuda
frees an object only where its context is current, so `CudaDevice.close` frees everything. It has no CUDA
graphs, and its locking of pages does not survive today's NumPy: both go to the driver directly.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from algan_stream.errors import EngineError, PluginError

_Part = TypeVar("_Part", bound="CudaMemory | CudaStream | CudaEvent | CudaGraph")
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream of others
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads go on undisturbed
_PAGE = 4096
#: Between two looks at a running batch; a wait inside the driver could not be given up.
_GLANCE_S = 0.00005


@dataclass(frozen=True)
class DeviceFacts:
    """What an engine's key says of a device.

    Attributes:
        name: As the driver gives it.
        capability: Compute capability, e.g. (8, 9).
        driver: Version of the kernel's driver, or of CUDA in it where it does not tell (Jetson).
    """

    name: str
    capability: tuple[int, int]
    driver: str

    @property
    def sm(self) -> str:
        """`sm89`."""
        return f"sm{self.capability[0]}{self.capability[1]}"


def device_facts(index: int = 0) -> DeviceFacts:
    """What the device is; makes no context.

    Raises:
        PluginError: pycuda is not installed, or finds no driver.
        EngineError: There is no such device.
    """
    driver = _pycuda()
    count = driver.Device.count()
    if not 0 <= index < count:
        raise EngineError(f"engine.device: expected a CUDA device from 0 to {count - 1}, got {index}")
    device = driver.Device(index)
    major, minor = device.compute_capability()
    return DeviceFacts(device.name(), (major, minor), _driver_version(driver))


class CudaMemory:
    """Memory on the device; `address` is its first byte."""

    def __init__(self, driver: Any, size_bytes: int) -> None:
        self._allocation: Any = driver.mem_alloc(max(1, size_bytes))
        self.address = int(self._allocation)

    def free(self) -> None:
        """Gives it back; the context must be current."""
        if self._allocation is not None:
            self._allocation.free()
            self._allocation = None


class CudaStream:
    """Work in order; `handle` is what other libraries take."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.native: Any = driver.Stream(_NON_BLOCKING)
        self.handle = int(self.native.handle)

    def upload(self, to: CudaMemory, array: npt.NDArray[Any]) -> None:
        """Enqueues a copy of a contiguous array to the device; it must stay as it is until then."""
        self._driver.memcpy_htod_async(to.address, array, self.native)

    def download(self, array: npt.NDArray[Any], of: CudaMemory) -> None:
        """Enqueues a copy of `array.nbytes` bytes from the device into a contiguous array."""
        self._driver.memcpy_dtoh_async(array, of.address, self.native)

    def synchronize(self) -> None:
        """Waits for all that was enqueued."""
        self.native.synchronize()


class CudaEvent:
    """A mark in a stream, to wait for."""

    def __init__(self, driver: Any) -> None:
        self._native: Any = driver.Event(driver.event_flags.DISABLE_TIMING)

    def record(self, stream: CudaStream) -> None:
        """Puts the mark behind all that the stream has to do now."""
        self._native.record(stream.native)

    def wait(self, timeout_s: float) -> None:
        """Returns once the stream has passed the mark.

        Raises:
            TimeoutError: It has not within `timeout_s`.
        """
        give_up = time.monotonic() + timeout_s
        while not self._native.query():
            if time.monotonic() > give_up:
                raise TimeoutError
            time.sleep(_GLANCE_S)


class CudaGraph:
    """Work that was recorded once and is started by one call."""

    def __init__(self, library: Any, executable: ctypes.c_void_p) -> None:
        self._library, self._executable = library, executable

    def launch(self, stream: CudaStream) -> None:
        """Enqueues all of it.

        Raises:
            EngineError: The driver refused.
        """
        _check(self._library, "cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))

    def free(self) -> None:
        """Gives it back; the context must be current."""
        _check(self._library, "cuGraphExecDestroy", self._executable)


class CudaDevice:
    """One device, through a context of its own.

    Args:
        index: Number of the device, as CUDA counts.

    Raises:
        PluginError: pycuda is not installed, or finds no driver.
        EngineError: There is no such device.
    """

    def __init__(self, index: int = 0) -> None:
        self.facts = device_facts(index)
        self._driver = _pycuda()
        self._library = ctypes.CDLL("libcuda.so.1")
        self._context: Any = self._driver.Device(index).make_context(
            self._driver.ctx_flags.SCHED_BLOCKING_SYNC  # who waits leaves the processor to others
        )
        self._driver.Context.pop()  # making it has made it current
        self._held: list[CudaMemory | CudaStream | CudaEvent | CudaGraph] = []
        self._locked: list[npt.NDArray[Any]] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current in this thread while the block runs.

        Raises:
            EngineError: The device is closed.
        """
        if self._context is None:
            raise EngineError("the CUDA device is closed")
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, size_bytes: int) -> CudaMemory:
        """Memory on the device, freed by `close`."""
        return self._keep(CudaMemory(self._driver, size_bytes))

    def stream(self) -> CudaStream:
        """A stream that waits for no other."""
        return self._keep(CudaStream(self._driver))

    def event(self) -> CudaEvent:
        """An event without a clock."""
        return self._keep(CudaEvent(self._driver))

    def page_locked(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A float32 array in host memory that the device reads by itself; ordinary memory after `close`."""
        size = int(np.prod(shape)) * 4
        whole = -(-max(size, 1) // _PAGE) * _PAGE  # whole pages: no page is locked twice
        raw = np.zeros(whole + _PAGE, np.uint8)
        start = -raw.ctypes.data % _PAGE
        pages = raw[start : start + whole]
        address = ctypes.c_void_p(pages.ctypes.data)
        _check(self._library, "cuMemHostRegister_v2", address, ctypes.c_size_t(whole), ctypes.c_uint(0))
        self._locked.append(pages)
        return pages[:size].view(np.float32).reshape(shape)

    def capture(self, stream: CudaStream, enqueue: Callable[[], None]) -> CudaGraph:
        """Records what `enqueue` puts on the stream, without doing it.

        Raises:
            EngineError: The driver or `enqueue` refused; the stream is usable as before.
        """
        handle, graph, executable = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
        _check(self._library, "cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            self._library.cuStreamEndCapture(handle, ctypes.byref(graph))  # gives no graph, ends the capture
            if graph.value:
                self._library.cuGraphDestroy(graph)
            raise
        _check(self._library, "cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            _check(
                self._library,
                "cuGraphInstantiateWithFlags",
                ctypes.byref(executable),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            self._library.cuGraphDestroy(graph)
        return self._keep(CudaGraph(self._library, executable))

    def close(self) -> None:
        """Waits for the device, frees everything and ends the context. May be called twice."""
        if self._context is None:
            return
        self._context.push()
        try:
            self._driver.Context.synchronize()
            while self._held:
                part = self._held.pop()  # streams and events go with their last reference
                if isinstance(part, CudaMemory | CudaGraph):
                    part.free()
            del part
            for pages in self._locked:
                self._library.cuMemHostUnregister(ctypes.c_void_p(pages.ctypes.data))
            self._locked = []
        finally:
            self._context.detach()  # ends the context, and takes it off this thread's stack
            self._context = None

    def _keep(self, part: _Part) -> _Part:
        self._held.append(part)
        return part


def _pycuda() -> Any:
    try:
        from pycuda import driver
    except ModuleNotFoundError as error:
        raise PluginError(
            f"engine.kind: needs the Python package {error.name}; install it by: "
            "pip install 'algan-stream[tensorrt]'"
        ) from error
    except ImportError as error:  # it is linked against libcuda.so.1, which comes with the driver
        raise PluginError(f"engine.kind: pycuda finds no NVIDIA driver: {error}") from error
    try:
        driver.init()
    except driver.Error as error:
        raise PluginError(f"engine.kind: pycuda cannot use the NVIDIA driver: {error}") from error
    return driver


def _driver_version(driver: Any) -> str:
    stated = Path("/proc/driver/nvidia/version")
    if stated.is_file() and (found := re.search(r"\b\d{3}\.\d[\d.]*", stated.read_text())):
        return found.group()
    number = driver.get_driver_version()
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def _check(library: Any, name: str, *arguments: Any) -> None:
    """Calls the driver; every function used here gives 0 (CUDA_SUCCESS) or says what went wrong."""
    status = getattr(library, name)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorName(ctypes.c_int(status), ctypes.byref(text))
        raise EngineError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")
