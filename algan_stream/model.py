"""What serves at a moment, as one value: engine, decision and names belong together and go over together."""

from __future__ import annotations

from dataclasses import dataclass, field

from algan_stream.bundle import Bundle
from algan_stream.decision import Decider
from algan_stream.engines.base import Engine
from algan_stream.errors import ConfigError
from algan_stream.types import InputSpec, VectorSpec


@dataclass(frozen=True, eq=False)
class Model:
    """A bundle, an engine that passed its golden gate, and the decision by its calibration.

    Every frame gets its model when it leaves the queue, and its verdict is that model's wholly: score,
    threshold and names never come from two of them.

    Attributes:
        bundle: Where input spec and calibration come from.
        engine: Has passed the golden gate of this bundle.
        decider: Applies the bundle's calibration.
        name: First 12 hex digits of the model's SHA-256.
        engine_name: The engine's identity, as verdicts state it.
    """

    bundle: Bundle
    engine: Engine
    decider: Decider = field(init=False)
    name: str = field(init=False)
    engine_name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decider", Decider(self.bundle.manifest.calibration))
        object.__setattr__(self, "name", self.bundle.model_sha256[:12])
        object.__setattr__(self, "engine_name", str(self.engine.identity))

    @property
    def threshold(self) -> float | None:
        """Scores above it are rejected; None before calibration."""
        return self.decider.threshold

    def __str__(self) -> str:
        limit = "not calibrated" if self.threshold is None else f"threshold {self.threshold:.6g}"
        return f"{self.bundle.path} (model {self.name}, {limit}, {self.engine_name})"


def check_successor(served: Bundle, new: Bundle) -> None:
    """Refuses a bundle that cannot take over from another in a running line.

    Another size of images is none of its reasons: every engine has slots of its own size. What the sources
    were opened for is.

    Raises:
        ConfigError: Sources that run now would give it the wrong inputs, or it has no threshold while the one
            that serves has.
    """
    old_spec, spec = served.manifest.spec, new.manifest.spec
    if isinstance(spec, VectorSpec) != isinstance(old_spec, VectorSpec):
        kinds = ["vectors" if isinstance(s, VectorSpec) else "images" for s in (old_spec, spec)]
        raise ConfigError(f"{new.path}: the line's sources give {kinds[0]}, but this bundle takes {kinds[1]}")
    if isinstance(spec, VectorSpec) and isinstance(old_spec, VectorSpec):
        if spec.features != old_spec.features:
            raise ConfigError(
                f"{new.path}: the line's vectors have {old_spec.features} numbers, this bundle takes "
                f"{spec.features}"
            )
        if spec.names and spec.names != old_spec.names:
            raise ConfigError(
                f"{new.path}: its features have other names than those that the line was started with; "
                "restart the line with it, so that its sources are checked"
            )
    levels = [s.white_level for s in (old_spec, spec) if isinstance(s, InputSpec)]
    if len(set(levels)) > 1:
        raise ConfigError(
            f"{new.path}: white level {levels[1]}, but the line's sources read 16-bit images by {levels[0]}; "
            "restart the line with it"
        )
    if new.manifest.calibration is None and served.manifest.calibration is not None:
        raise ConfigError(
            f"{new.path}: is not calibrated, every verdict would be unknown; run `algan-stream calibrate`"
        )
