"""The values that travel through the pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from algan_stream.errors import ConfigError

#: Layout of an image's last axis as a camera delivers it; `grey8` is (H, W), the others (H, W, 3).
PixelFormat = Literal["bgr8", "rgb8", "grey8"]

#: Everything that `preprocess` reads; see there for the arrays that go with each.
CameraFormat = Literal[
    "bgr8", "rgb8", "grey8", "bgra8", "rgba8", "grey16",
    "bayer_rggb8", "bayer_bggr8", "bayer_grbg8", "bayer_gbrg8",
    "nv12", "nv21", "i420", "yuyv", "uyvy",
]  # fmt: skip

#: White of a 16-bit image that uses all its range.
FULL_RANGE = 65535

#: Most numbers in a vector.
MAX_FEATURES = 1 << 20

#: One box, float pixels: (x_min, y_min, x_max, y_max); x_max and y_max are exclusive edges.
Box = tuple[float, float, float, float]


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How pixels become the network's input. One instance serves training, calibration and serving.

    The input is float32 NCHW, `channels` planes of `height_px` × `width_px`: red, green, blue, each
    `(value / 255 - mean) / std`, then (paper, section 4.2) the maximum and the mean over those three
    normalised planes, as `pooled_channels` says. Grey images count as three equal channels.

    Attributes:
        height_px: Height of the network's input, 1 to 4096.
        width_px: Width of the network's input, 1 to 4096.
        pooled_channels: Append the channel-wise maximum and mean (5 planes), or one of them, `max` or
            `mean` (4 planes), or neither (3).
        downscale: Filter along an axis that shrinks: `area` (antialiased box filter) or `bilinear`
            (two taps, aliases; for models trained elsewhere). An axis that grows is always bilinear.
        mean: Subtracted after scaling to 0..1, in RGB order.
        std: Divisor after that, in RGB order, each > 0.
        white_level: Value of white in 16-bit image files, 255 to 65535, e.g. 4095 for a camera of 12 bits:
            0 to it are mapped onto 8 bits by one straight line. 8-bit images ignore it.
        fit: `stretch` fills the input with the image or box; `letterbox` keeps its proportions, centred.
        pad_level: Grey level, 0 to 255, beside a letterboxed image, and of pixels that a mask leaves out.
        box_margin: Added on every side of a box, as a share of that side's length, 0 to 10; what then lies
            outside the image is cut off.
    """

    height_px: int
    width_px: int
    pooled_channels: bool | Literal["max", "mean"] = True
    downscale: Literal["area", "bilinear"] = "area"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    white_level: int = FULL_RANGE
    fit: Literal["stretch", "letterbox"] = "stretch"
    pad_level: float = 0.0
    box_margin: float = 0.0

    def __post_init__(self) -> None:
        if not 255 <= self.white_level <= FULL_RANGE:
            raise ConfigError(f"input_spec.white_level: expected 255 to {FULL_RANGE}, got {self.white_level}")
        for name, value in (("height_px", self.height_px), ("width_px", self.width_px)):
            if not 1 <= value <= 4096:
                raise ConfigError(f"input_spec.{name}: expected 1 to 4096, got {value}")
        choices = (
            ("pooled_channels", self.pooled_channels, (True, False, "max", "mean")),
            ("downscale", self.downscale, ("area", "bilinear")),
            ("fit", self.fit, ("stretch", "letterbox")),
        )
        for name, choice, known in choices:
            if choice not in known:
                wanted = ", ".join(map(str, known))
                raise ConfigError(f"input_spec.{name}: expected one of {wanted}, got {choice}")
        for name, number, most in (("pad_level", self.pad_level, 255), ("box_margin", self.box_margin, 10)):
            if not 0 <= number <= most:
                raise ConfigError(f"input_spec.{name}: expected 0 to {most}, got {number}")
        if not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"input_spec.mean: expected finite numbers, got {self.mean}")
        if not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ConfigError(f"input_spec.std: expected finite numbers above 0, got {self.std}")

    @property
    def channels(self) -> int:
        """Number of planes: 3, and one each for the maximum and the mean."""
        if isinstance(self.pooled_channels, str):
            return 4
        return 5 if self.pooled_channels else 3

    @property
    def shape_chw(self) -> tuple[int, int, int]:
        """Shape of one image's input: (channels, height_px, width_px)."""
        return self.channels, self.height_px, self.width_px

    @property
    def shape(self) -> tuple[int, ...]:
        """The same, as every spec has it."""
        return self.shape_chw


class VectorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network's input is a vector of numbers, as they come: float32 (features,).

    Attributes:
        features: Numbers in a vector, 1 to `MAX_FEATURES`.
        names: Their names, in order, where the training table had any; else empty. A table with other names
            is not scored.
    """

    features: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.features <= MAX_FEATURES:
            raise ConfigError(f"vector_spec.features: expected 1 to {MAX_FEATURES}, got {self.features}")
        if self.names and len(self.names) != self.features:
            raise ConfigError(f"vector_spec.names: expected {self.features} or none, got {len(self.names)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector: (features,)."""
        return (self.features,)


#: What one input of a network is made of.
Spec: TypeAlias = InputSpec | VectorSpec


class Outcome(str, Enum):
    """How a frame or box ended; see the ledger."""

    SCORED = "scored"
    DROPPED = "dropped"
    EXPIRED = "expired"
    FAILED = "failed"


class VerdictKind(str, Enum):
    """`unknown` is never to be taken for `pass`."""

    PASS = "pass"
    REJECT = "reject"
    UNKNOWN = "unknown"


class BoxVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one box, or on the whole frame where `box` is None.

    Attributes:
        box: The box as it was announced, or None for the whole frame.
        verdict: pass, reject or unknown.
        reason: Why it is unknown or rejected, e.g. `score_above_threshold`, `expired`; empty for pass.
        score: −logit of the discriminator; higher is more anomalous. None if there is none.
        p_value: Conformal p-value of the score among good images, in (0, 1]. None without a score
            or without calibration.
    """

    box: Box | None = None
    verdict: VerdictKind
    reason: str = ""
    score: float | None = None
    p_value: float | None = None


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds a frame spent in each stage, and in all of them."""

    queue_ms: float = 0.0
    preprocess_ms: float = 0.0
    infer_ms: float = 0.0
    total_ms: float = 0.0


class FrameVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out for every frame, with its provenance.

    Attributes:
        camera: Name of the camera.
        frame_id: Number of the frame in this camera's stream, as the source counts; from 0.
        part_id: The caller's own name for the frame or part (file name, PLC part number), or "".
        verdict: The worst of the boxes' verdicts: reject before unknown before pass; or what their mean score
            says, see `Frame.fuse`.
        reason: Reason of that worst verdict, or of the fused score.
        fused_score: Mean score of the boxes, where that decides on the frame and every box has a score in
            time; else None.
        boxes: One verdict for each announced box, in order; one with `box=None` for a whole frame.
        outcome: The ledger's account that the frame went into.
        captured_ns: Unix time of capture in nanoseconds.
        threshold: Scores above it are rejected.
        model: First 12 hex digits of the model's SHA-256.
        engine: Kind, version, device and precision of the engine.
        stages: Time spent in each stage.
    """

    camera: str
    frame_id: int
    part_id: str = ""
    verdict: VerdictKind
    reason: str = ""
    boxes: tuple[BoxVerdict, ...] = ()
    outcome: Outcome
    captured_ns: int
    threshold: float | None = None
    model: str = ""
    engine: str = ""
    stages: StageTimes = StageTimes()
    fused_score: float | None = None


@dataclass(slots=True)
class Frame:
    """One picture, or vector, on its way through the pipeline.

    Attributes:
        camera: Name of the camera.
        frame_id: The source's own count in this camera's stream, from 0.
        image: uint8, (H, W, 3) or (H, W) for grey; any row stride; read-only for the pipeline, which
            holds a reference until the frame's verdict is out.
        pixel_format: Order of the last axis.
        captured_ns: Unix time of capture in nanoseconds.
        deadline_ns: `time.monotonic_ns()` after which a verdict is worthless, or None.
        boxes: (N, 4) float32 xyxy boxes that came with the frame, or None for "the source knows none".
        part_id: The caller's own name for the frame.
        fault: Set by a source that announces a frame which it could not decode; such a frame gets
            `unknown` with this reason.
        reply: Called with the verdict, from the pipeline's thread; must not block.
        fuse: How the boxes' verdicts become the frame's; `max`: the worst stands for it; `mean`: the mean of
            their scores is compared with the threshold.
        vector: (features,) float32 instead of an image, which is then empty; read-only and held likewise.
        intact: Whether the pixels are still what the source announced, where others could write to them;
            asked once they have been read.
        received_ns: `time.monotonic_ns()` when the pipeline took it.
        entry: Its entry in the ledger, set by the pipeline.
    """

    camera: str
    frame_id: int
    image: npt.NDArray[np.uint8]
    pixel_format: PixelFormat
    captured_ns: int
    deadline_ns: int | None = None
    boxes: npt.NDArray[np.float32] | None = None
    part_id: str = ""
    fault: str = ""
    reply: Callable[[FrameVerdict], None] | None = None
    fuse: Literal["max", "mean"] = "max"
    vector: npt.NDArray[np.float32] | None = None
    intact: Callable[[], bool] | None = None
    received_ns: int = 0
    entry: int = -1
