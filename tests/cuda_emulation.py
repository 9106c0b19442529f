"""A CUDA device on the processor, for `TensorRtEngine`.

It has the interface of `engines/cuda_device.py`, and a module with as much of TensorRT as that engine uses.
Streams work late and by themselves, as a device's do; what needs a current context refuses to work without;
an engine's payload is the ONNX file itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle
from algan_stream.engines.cache import EngineCache
from algan_stream.engines.cuda_device import DeviceFacts
from algan_stream.engines.tensorrt_common import TENSORRT, Flavour, TensorRtConfig, engine_key
from algan_stream.engines.tensorrt_engine import TensorRtEngine
from algan_stream.errors import EngineError

VERSION = "11.4.0"
FACTS = DeviceFacts("Emulated", (8, 9), "580.95.05")
Work = Callable[[], None]


class Memory:
    def __init__(self, device: Device, size_bytes: int) -> None:
        self.data = np.full(size_bytes, 0x7F, np.uint8)  # reads as large numbers until it is written
        self.address = device.new_address()
        self.freed = False


class Stream:
    """Does its work in order, each step a little late, in a thread of its own."""

    def __init__(self, device: Device) -> None:
        self._device, self.handle = device, device.new_address()
        self.recording: list[Work] | None = None
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.failed: list[BaseException] = []

    def enqueue(self, work: Work) -> None:
        self._device.check_current()
        if self.recording is not None:
            self.recording.append(work)
        else:
            self._work.put(work)

    def upload(self, to: Memory, array: npt.NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        self.enqueue(lambda: to.data[: array.nbytes].__setitem__(slice(None), array.view(np.uint8).ravel()))

    def download(self, array: npt.NDArray[Any], of: Memory) -> None:
        assert array.flags.c_contiguous
        self.enqueue(
            lambda: array.view(np.uint8).reshape(-1).__setitem__(slice(None), of.data[: array.nbytes])
        )

    def synchronize(self) -> None:
        self._device.check_current()
        assert self.recording is None, "a capture must not wait"
        done = threading.Event()
        self._work.put(done.set)
        assert done.wait(30)

    def end(self) -> None:
        self._work.put(None)
        self.thread.join(30)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            time.sleep(self._device.delay_s)
            self._device.release.wait()
            try:
                work()
            except BaseException as error:
                self.failed.append(error)


class Event:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._passed = threading.Event()
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self._passed, self._stream = threading.Event(), stream
        stream.enqueue(self._passed.set)

    def wait(self, timeout_s: float) -> None:
        self._device.check_current()
        if not self._passed.wait(timeout_s):
            raise TimeoutError
        if self._stream is not None and self._stream.failed:
            raise EngineError(f"cuEventQuery: {self._stream.failed[0]}")


class Graph:
    def __init__(self, work: list[Work]) -> None:
        self._work = work
        self.launched = 0

    def launch(self, stream: Stream) -> None:
        self.launched += 1
        for work in self._work:
            stream.enqueue(work)


class Device:
    """Stands for `CudaDevice`.

    Args:
        delay_s: Before each step of a stream.
        refuses_graphs: As a driver does that cannot record what a library enqueues.
    """

    def __init__(self, delay_s: float = 0.0005, refuses_graphs: bool = False) -> None:
        self.facts, self.delay_s, self.refuses_graphs = FACTS, delay_s, refuses_graphs
        self.release = threading.Event()
        self.release.set()
        self._current = threading.local()
        self._addresses = iter(range(1 << 20, 1 << 40, 1 << 20))
        self._lock = threading.Lock()
        self.memory: dict[int, Memory] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: list[Graph] = []
        self.closed = 0

    def new_address(self) -> int:
        with self._lock:
            return next(self._addresses)

    def check_current(self) -> None:
        assert getattr(self._current, "depth", 0) > 0, "the context is not current in this thread"

    @contextmanager
    def current(self) -> Iterator[None]:
        if self.closed:
            raise EngineError("the CUDA device is closed")
        self._current.depth = getattr(self._current, "depth", 0) + 1
        try:
            yield
        finally:
            self._current.depth -= 1

    def allocate(self, size_bytes: int) -> Memory:
        self.check_current()
        made = Memory(self, size_bytes)
        self.memory[made.address] = made
        return made

    def stream(self) -> Stream:
        self.check_current()
        made = Stream(self)
        self.streams[made.handle] = made
        return made

    def event(self) -> Event:
        self.check_current()
        return Event(self)

    def page_locked(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        self.check_current()
        raw = np.zeros(int(np.prod(shape)) * 4 + 4096, np.uint8)
        start = -raw.ctypes.data % 4096
        return raw[start : start + int(np.prod(shape)) * 4].view(np.float32).reshape(shape)

    def capture(self, stream: Stream, enqueue: Work) -> Graph:
        self.check_current()
        if self.refuses_graphs:
            raise EngineError("cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900)")
        stream.recording = []
        try:
            enqueue()
            made = Graph(stream.recording)
        finally:
            stream.recording = None
        self.graphs.append(made)
        return made

    def close(self) -> None:
        self.closed += 1
        for stream in self.streams.values():
            stream.end()


class _Context:
    def __init__(self, device: Device, session: Any) -> None:
        self._device, self._session = device, session
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return name == "input"

    def execute_async_v3(self, handle: int) -> bool:
        inputs, logits = (self._device.memory[self._addresses[name]].data for name in ("input", "logit"))
        shape, session = self._shape, self._session

        def run() -> None:
            values = inputs[: int(np.prod(shape)) * 4].view(np.float32).reshape(shape)
            each = [session.run(None, {"input": row[None]})[0] for row in values]  # no sum depends on others
            logits[: 4 * shape[0]] = np.concatenate(each).astype(np.float32).view(np.uint8)

        self._device.streams[handle].enqueue(run)
        return True


class _CudaEngine:
    num_io_tensors = 2

    def __init__(self, device: Device, session: Any, high: int) -> None:
        self._device, self._session, self._high = device, session, high
        self._ends = [session.get_inputs()[0], session.get_outputs()[0]]

    def get_tensor_name(self, index: int) -> str:
        name: str = self._ends[index].name
        return name

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == self._ends[0].name else "OUTPUT"

    def get_tensor_dtype(self, _: str) -> str:
        return "FLOAT"

    def get_tensor_shape(self, name: str) -> list[int]:
        (end,) = (end for end in self._ends if end.name == name)
        return [-1 if isinstance(side, str) else side for side in end.shape]

    def get_tensor_profile_shape(self, *_: object) -> list[tuple[int, ...]]:
        return [(1,), (self._high,), (self._high,)]

    def create_execution_context(self) -> _Context:
        self._device.check_current()
        return _Context(self._device, self._session)


def trt_module(device: Device, high: int = 1024) -> Any:
    """As much of the module `tensorrt` as `TensorRtEngine` uses."""

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, payload: bytes) -> _CudaEngine | None:
            import onnxruntime

            device.check_current()
            try:
                session = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"])
            except Exception:
                self._logger.log(1, "the payload is no engine")
                return None
            return _CudaEngine(device, session, high)

    return SimpleNamespace(
        ILogger=ILogger,
        Runtime=Runtime,
        DataType=SimpleNamespace(FLOAT="FLOAT"),
        TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        __version__=VERSION,
        __name__="tensorrt",
    )


class EmulatedFlavour(Flavour):
    """TensorRT's, with the emulated module."""

    def __init__(self, trt: Any) -> None:
        super().__init__(TENSORRT.kind, TENSORRT.target, TENSORRT.ahead)
        object.__setattr__(self, "trt", trt)

    def load(self) -> Any:
        return self.trt  # type: ignore[attr-defined]


def store(bundle: Bundle, config: TensorRtConfig, **more: Any) -> None:
    """Puts the bundle's own ONNX file into the cache, as the engine for the emulated device."""
    key = engine_key(
        TENSORRT,
        VERSION,
        bundle,
        FACTS,
        precision=config.precision,
        batch=config.batch,
        dla=config.dla,
        **more,
    )
    EngineCache(Path(config.cache)).store(key, bundle.model_for(config.precision).read_bytes(), build_s=0.1)


def open_emulated(bundle: Bundle, config: TensorRtConfig, device: Device, high: int = 1024) -> TensorRtEngine:
    """The real engine on the emulated device."""
    return TensorRtEngine(bundle, config, EmulatedFlavour(trt_module(device, high)), lambda _: device)
