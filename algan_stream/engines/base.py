"""What every engine is: batch slots that are written once and read in place, and logits that come back."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import EngineError
from algan_stream.inputs import write_inputs
from algan_stream.preprocess import empty_slots
from algan_stream.ranges import check_ranges
from algan_stream.types import Frame, Spec


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the section `engine` of every kind has.

    Attributes:
        threads: Processors to use; 0 = all that this process may use (affinity and cgroup quota).
        streams: Batches that run at the same time; 0 = what gives the most images per second. 1 gives the
            shortest time for a single batch.
        max_batch: Most images in one batch.
    """

    threads: int = 0
    streams: int = 0
    max_batch: int = 8

    def __post_init__(self) -> None:
        check_ranges(
            ("threads", self.threads, 0, 1024),
            ("streams", self.streams, 0, 1024),
            ("max_batch", self.max_batch, 1, 1024),
        )


@dataclass(frozen=True)
class EngineIdentity:
    """Which engine computed a score; part of every verdict's provenance.

    Attributes:
        kind: Name of the plugin.
        version: Of the library that computes.
        device: What it computes on.
        precision: What it computes in: `fp32`, `bf16`, `fp16` or `int8`.
        threads: Processors that it uses.
        cache_key: Names the compiled engine in the cache; empty where none is kept.
        stand_in_for: Kind of the engine that is being built meanwhile, where this one only stands in.
    """

    kind: str
    version: str
    device: str
    precision: str
    threads: int
    cache_key: str = ""
    stand_in_for: str = ""

    def __str__(self) -> str:
        parts = [self.kind, self.version, self.device, self.precision]
        parts += [self.cache_key[:12]] if self.cache_key else []
        parts += [f"(stands in for {self.stand_in_for})"] if self.stand_in_for else []
        return " ".join(parts)


@dataclass(frozen=True, eq=False)
class Slot:
    """One batch buffer of an engine.

    Attributes:
        index: Number of the slot, from 0.
        inputs_nchw: (max_batch, C, H, W), or (max_batch, features) for vectors; float32, C-contiguous;
            owned by the engine, which reads it in place. Its holder may write between `acquire` and `submit`,
            nobody at any other time.
    """

    index: int
    inputs_nchw: npt.NDArray[np.float32]


class Engine(ABC):
    """A compiled discriminator with a fixed number of batch slots.

    The life of a slot: `acquire` → write inputs → `submit` → `collect`, which gives it back. `acquire` and
    `submit` belong to one thread, `collect` to the same or one other thread.

    Args:
        identity: What is running, and where.
        spec: How its inputs are made, and with it their shape.
        max_batch: Most images in one slot.
        slot_count: Slots; more than `streams`, so that one can be filled while the others run.
        streams: Batches that run at the same time.
    """

    #: Longest wait for a free slot, and for an answer, before the engine counts as stuck.
    patience_s: float = 60.0

    def __init__(
        self,
        identity: EngineIdentity,
        spec: Spec,
        max_batch: int,
        slot_count: int,
        streams: int,
    ) -> None:
        self.identity = identity
        self.max_batch = max_batch
        self.streams = streams
        self.spec = spec
        self.input_shape = spec.shape
        self.slots = tuple(Slot(i, self._empty_inputs(max_batch, spec)) for i in range(slot_count))
        for slot in self.slots:
            slot.inputs_nchw.fill(0.0)  # what is not initialised may hold denormals, which slow a warm-up
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self.slots:
            self._free.put(slot)

    def acquire(self, timeout_s: float | None = None) -> Slot | None:
        """Takes a free slot, waiting for one; None when `timeout_s` passed first."""
        try:
            return self._free.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def give_back(self, slot: Slot) -> None:
        """Returns an acquired slot that was not submitted."""
        self._free.put(slot)

    def write(
        self, slot: Slot, frame: Frame, *, boxes: npt.NDArray[np.float32] | None, first_slot: int
    ) -> None:
        """Turns a frame, or its boxes, into inputs of a slot that is held, from `first_slot` on.

        An engine whose inputs lie on a device overrides this to write them there.

        Raises:
            InputError: Image, boxes or vector cannot be used; nothing is written.
        """
        write_inputs(slot.inputs_nchw, frame, self.spec, boxes=boxes, first_slot=first_slot)

    def submit(self, slot: Slot, count: int) -> None:
        """Starts the first `count` images of a slot and returns at once.

        Raises:
            EngineError: The engine refused the batch; the slot is free again.
        """
        if not 1 <= count <= self.max_batch:
            self.give_back(slot)
            raise EngineError(f"batch of {count} images: expected 1 to {self.max_batch}")
        try:
            self._start(slot, count)
        except Exception as error:
            self.give_back(slot)
            raise EngineError(f"{self.identity}: cannot start a batch of {count}: {error}") from error

    def collect(self, slot: Slot, timeout_s: float | None = None) -> npt.NDArray[np.float32]:
        """Waits for a submitted slot and returns its logits, (count,) float32, owned by the caller.

        Args:
            slot: Was submitted.
            timeout_s: Longest wait; None = `patience_s`.

        Raises:
            EngineError: The inference failed (the slot is free again), or is still running after
                `timeout_s` (the slot is lost, since it may yet be read).
        """
        timeout_s = self.patience_s if timeout_s is None else timeout_s
        try:
            logits = self._finish(slot, timeout_s)
        except TimeoutError as error:
            raise EngineError(f"{self.identity}: no answer within {timeout_s:g} s") from error
        except Exception as error:
            self.give_back(slot)
            raise EngineError(f"{self.identity}: inference failed: {error}") from error
        self.give_back(slot)
        return logits

    def infer(self, inputs_nchw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scores ready inputs, of any number, and waits: (N, *input_shape) float32 → (N,) logits."""
        if inputs_nchw.shape[1:] != self.input_shape or inputs_nchw.dtype != np.float32:
            raise EngineError(
                f"inputs: expected float32 (N, {', '.join(map(str, self.input_shape))}), "
                f"got {inputs_nchw.dtype} {inputs_nchw.shape}"
            )
        parts = []
        for start in range(0, len(inputs_nchw), self.max_batch):
            chunk = inputs_nchw[start : start + self.max_batch]
            slot = self.acquire(self.patience_s)
            if slot is None:
                raise EngineError(f"{self.identity}: no slot became free within {self.patience_s:g} s")
            slot.inputs_nchw[: len(chunk)] = chunk
            self.submit(slot, len(chunk))
            parts.append(self.collect(slot))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _empty_inputs(self, max_batch: int, spec: Spec) -> npt.NDArray[np.float32]:
        """Memory of one slot, aligned to 64 bytes; overridden where it must be of a special kind."""
        return empty_slots(max_batch, spec)

    @abstractmethod
    def close(self) -> None:
        """Waits for what is running and frees the model. May be called twice."""

    @abstractmethod
    def _start(self, slot: Slot, count: int) -> None: ...

    @abstractmethod
    def _finish(self, slot: Slot, timeout_s: float) -> npt.NDArray[np.float32]: ...
