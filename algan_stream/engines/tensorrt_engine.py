"""Runs a compiled TensorRT engine: for every slot a stream, a context and device memory.

Each size of batch is recorded once as a CUDA graph and then started by one call. Both libraries share this
code; `tensorrt.py` and `tensorrt_rtx.py` only name theirs.

Threads: every use of the device pushes its context and pops it again, so that batching and verdict thread may
both use it, and neither keeps it. A slot's work is ordered by its stream alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import Bundle
from algan_stream.engines.base import Engine, EngineIdentity, Slot
from algan_stream.engines.cuda_device import CudaDevice, CudaEvent, CudaGraph, CudaMemory, CudaStream
from algan_stream.engines.gate import INPUT_TOLERANCE
from algan_stream.engines.tensorrt_common import (
    VERSION_COMPATIBLE,
    Flavour,
    TensorRtConfig,
    find_engine,
    new_logger,
)
from algan_stream.errors import EngineError, GateError
from algan_stream.preprocess import preprocess
from algan_stream.types import Frame, InputSpec, Spec

log = logging.getLogger(__name__)

#: Names in every bundle's graph.
INPUT, OUTPUT = "input", "logit"
#: Larger batches keep the device busy for longer than it takes to start their kernels one by one.
MOST_GRAPHS = 64
_STREAMS = 2


@dataclass(eq=False)
class _Lane:
    """What belongs to one slot on the device.

    Attributes:
        written: The inputs were written on the device, not in the slot's host memory.
        count: Images of the batch that runs.
        shaped: Batch size that the context was last told.
    """

    context: Any
    stream: CudaStream
    done: CudaEvent
    inputs: CudaMemory
    logits: CudaMemory
    host_logits: npt.NDArray[np.float32]
    graphs: dict[int, CudaGraph] = field(default_factory=dict)
    written: bool = False
    count: int = 0
    shaped: int = 0


class TensorRtEngine(Engine):
    """An engine from the cache; never builds one.

    Args:
        bundle: What it shall serve.
        config: Section `engine`.
        flavour: Which library.
        open_device: Makes the device; tests give an emulated one.

    Raises:
        MissingEngineError: There is no compiled engine for this device; says how to build it.
        EngineError: It cannot be loaded, or does not fit the bundle.
        GateError: Preprocessing on the device differs from that of the processor.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: TensorRtConfig,
        flavour: Flavour,
        open_device: Callable[[int], CudaDevice] = CudaDevice,
    ) -> None:
        self._trt, self._min_batch = flavour.load(), config.min_batch
        self._lanes: list[_Lane] = []
        self._preprocessor: Any = None
        self._engine: Any = None
        self._runtime: Any = None
        self._device = open_device(config.device)
        try:
            payload, info = find_engine(flavour, self._trt.__version__, bundle, self._device.facts, config)
            with self._device.current():
                self._load(payload, VERSION_COMPATIBLE in info.key.options, config)
            self._check_metadata(bundle.manifest.spec.shape, config.batch)
            streams = config.streams or _STREAMS
            super().__init__(
                EngineIdentity(
                    flavour.kind,
                    self._trt.__version__,
                    info.key.device if config.dla is None else f"{info.key.device} DLA{config.dla}",
                    config.precision,
                    threads=1,
                    cache_key=info.key.digest,
                ),
                bundle.manifest.spec,
                config.max_batch,
                slot_count=2 * streams + 1,
                streams=streams,
            )
            with self._device.current():
                self._lanes = [self._open_lane() for _ in self.slots]
                self._open_preprocessor()
                self._warm_up(config.cuda_graphs)
            self._check_preprocessing(bundle)
        except BaseException:
            self.close()
            raise

    def write(
        self, slot: Slot, frame: Frame, *, boxes: npt.NDArray[np.float32] | None, first_slot: int
    ) -> None:
        """Turns a frame, or its boxes, into inputs on the device; enqueued on the slot's stream.

        Without the CUDA kernels, and for vectors, they are written in host memory and go over with `submit`.
        """
        if self._preprocessor is None or frame.vector is not None or not isinstance(self.spec, InputSpec):
            return super().write(slot, frame, boxes=boxes, first_slot=first_slot)
        lane = self._lanes[slot.index]
        with self._device.current():
            self._preprocessor.preprocess_into(
                self._binding(lane),
                frame.image,
                self.spec,
                pixel_format=frame.pixel_format,
                boxes=boxes,
                first_slot=first_slot,
                stream=lane.stream.handle,
            )
        lane.written = True
        return None

    def give_back(self, slot: Slot) -> None:
        """Returns an acquired slot; what was written into it is forgotten."""
        if self._lanes:
            self._lanes[slot.index].written = False
        super().give_back(slot)

    def close(self) -> None:
        """Waits for what is running and frees everything on the device. May be called twice."""
        lanes, self._lanes = self._lanes, []
        try:
            with self._device.current():
                for lane in lanes:
                    lane.stream.synchronize()
                lanes.clear()
                self._preprocessor = self._engine = self._runtime = None  # freed where the context is current
        except EngineError:
            return  # it was closed before
        finally:
            self._device.close()

    # ---- a batch ----------------------------------------------------------------------------------------

    def _start(self, slot: Slot, count: int) -> None:
        lane, run = self._lanes[slot.index], max(count, self._min_batch)
        with self._device.current():
            if not lane.written:
                lane.stream.upload(lane.inputs, slot.inputs_nchw[:run])
            if (graph := lane.graphs.get(run)) is not None:
                graph.launch(lane.stream)
            else:
                self._enqueue(lane, run)
            lane.done.record(lane.stream)
        lane.count = count

    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]:
        lane = self._lanes[slot.index]
        with self._device.current():
            lane.done.wait(timeout_s)
        return lane.host_logits[: lane.count].copy()

    def _enqueue(self, lane: _Lane, count: int) -> None:
        self._shape(lane, count)
        if not lane.context.execute_async_v3(lane.stream.handle):
            raise EngineError(f"execute_async_v3 refused a batch of {count}{self._said()}")
        lane.stream.download(lane.host_logits[:count], lane.logits)

    def _shape(self, lane: _Lane, count: int) -> None:
        if lane.shaped != count:
            if not lane.context.set_input_shape(INPUT, (count, *self.input_shape)):
                raise EngineError(f"set_input_shape refused a batch of {count}{self._said()}")
            lane.shaped = count

    # ---- start-up ---------------------------------------------------------------------------------------

    def _empty_inputs(self, max_batch: int, spec: Spec) -> npt.NDArray[np.float32]:
        with self._device.current():
            return self._device.page_locked((max_batch, *spec.shape))

    def _load(self, payload: bytes, version_compatible: bool, config: TensorRtConfig) -> None:
        self._logger = new_logger(self._trt)
        self._runtime = self._trt.Runtime(self._logger)
        if version_compatible:  # it brings code of its version along; its hash is in our own cache's sidecar
            self._runtime.engine_host_code_allowed = True
        if config.dla is not None:
            self._runtime.DLA_core = config.dla
        self._engine = self._runtime.deserialize_cuda_engine(payload)
        if self._engine is None:
            raise EngineError(
                f"{self._trt.__name__} {self._trt.__version__} cannot load the compiled engine{self._said()}"
                "; build it again with --force"
            )

    def _check_metadata(self, shape: tuple[int, ...], batch: tuple[int, int, int]) -> None:
        engine, mode = self._engine, self._trt.TensorIOMode
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        found = {
            name: (
                engine.get_tensor_mode(name),
                engine.get_tensor_dtype(name),
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
        }
        number = self._trt.DataType.FLOAT
        expected = {INPUT: (mode.INPUT, number, (-1, *shape)), OUTPUT: (mode.OUTPUT, number, (-1,))}
        if min(batch) == max(batch):  # then the builder may have fixed it
            fixed = {
                INPUT: (mode.INPUT, number, (batch[0], *shape)),
                OUTPUT: (mode.OUTPUT, number, (batch[0],)),
            }
            expected = fixed if found == fixed else expected
        if found != expected:
            raise EngineError(
                f"model: expected tensors {expected}, got {found}; the engine does not fit the manifest"
            )
        low, _, high = (next(iter(dims)) for dims in engine.get_tensor_profile_shape(INPUT, 0))
        if not low <= batch[0] <= batch[2] <= high:
            raise EngineError(f"model: expected batches of {batch[0]} to {batch[2]}, got {low} to {high}")

    def _open_lane(self) -> _Lane:
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"no execution context: is the device's memory full?{self._said()}")
        lane = _Lane(
            context,
            self._device.stream(),
            self._device.event(),
            self._device.allocate(int(np.prod(self.input_shape)) * 4 * self.max_batch),
            self._device.allocate(4 * self.max_batch),
            self._device.page_locked((self.max_batch,)),
        )
        context.set_tensor_address(INPUT, lane.inputs.address)
        context.set_tensor_address(OUTPUT, lane.logits.address)
        return lane

    def _open_preprocessor(self) -> None:
        from algan_stream import _core
        from algan_stream.preprocess_cuda import CudaPreprocessor

        if not isinstance(self.spec, InputSpec):
            return
        if not _core.has_cuda:
            log.warning("algan-stream was built without CUDA: frames are preprocessed on the processor")
            return
        self._preprocessor = CudaPreprocessor()

    def _warm_up(self, graphs: bool) -> None:
        """Runs every batch size once in every slot, then records it: kernels are chosen when first met."""
        for count in range(self._min_batch, self.max_batch + 1):
            for slot, lane in zip(self.slots, self._lanes, strict=True):
                lane.stream.upload(lane.inputs, slot.inputs_nchw[:count])
                self._enqueue(lane, count)
                lane.stream.synchronize()
                graphs = graphs and count <= MOST_GRAPHS and self._record(lane, count)

    def _record(self, lane: _Lane, count: int) -> bool:
        """Records one batch size; False where that is refused: then kernels are started one by one."""
        context = lane.context
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(lane.stream.handle):
            log.warning("%s: its work cannot be recorded; it runs without CUDA graphs", self.identity)
            return False
        try:
            lane.graphs[count] = self._device.capture(lane.stream, lambda: self._enqueue(lane, count))
        except Exception as error:  # noqa: BLE001  whatever the library raises, the engine works without
            log.warning("%s: runs without CUDA graphs: %s", self.identity, error)
            return False
        return True

    def _check_preprocessing(self, bundle: Bundle) -> None:
        """The golden gate scores ready inputs; this holds a frame's way onto the device to it, too."""
        images = bundle.golden().images_rgb
        if self._preprocessor is None or images is None:
            return
        spec, slot = bundle.manifest.image_spec, self.slots[0]
        lane = self._lanes[0]
        found = np.empty((1, *spec.shape), np.float32)
        for image in images:
            self.write(slot, Frame("gate", 0, image, "rgb8", captured_ns=0), boxes=None, first_slot=0)
            with self._device.current():
                lane.stream.download(found, lane.inputs)
                lane.stream.synchronize()
            difference = float(np.abs(found - preprocess(image, spec, pixel_format="rgb8")).max())
            if not difference <= INPUT_TOLERANCE:
                raise GateError(
                    f"preprocessing on {self._device.facts.name} differs from the processor's by "
                    f"{difference:.3g} (allowed {INPUT_TOLERANCE:g}); this build of _core must not serve"
                )
        lane.written = False

    def _binding(self, lane: _Lane) -> Any:
        from algan_stream.preprocess_cuda import DeviceArray

        return DeviceArray(lane.inputs.address, (self.max_batch, *self.input_shape), np.float32)

    def _said(self) -> str:
        """What the library last complained of, for messages."""
        return f": {self._logger.errors[-1]}" if self._logger.errors else ""
