"""The values that travel through the pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

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

#: What a frame without any box means.
WhenEmpty = Literal["unknown", "ignore", "pass"]

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


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Key `rule` of a camera: the verdict on a frame from those on its boxes; see `decision.by_rule`.

    Attributes:
        reject_boxes: So many rejected boxes reject the frame; 1: the worst box stands for it.
        reject_share: Or this share of all its boxes, above 0 and up to 1.
        tolerate_unknown: So many boxes may be unknown in a frame that passes; each is counted as if it were
            rejected. 0: every box must have been scored.
    """

    reject_boxes: int | None = None
    reject_share: float | None = None
    tolerate_unknown: int = 0

    def __post_init__(self) -> None:
        if self.reject_boxes is not None and self.reject_share is not None:
            raise ValueError("reject_share: expected either reject_boxes or reject_share")
        if self.reject_boxes is not None and not 1 <= self.reject_boxes <= 1_000_000:
            raise ValueError(f"reject_boxes: expected 1 or more, got {self.reject_boxes}")
        if self.reject_share is not None and not 0 < self.reject_share <= 1:
            raise ValueError(f"reject_share: expected above 0 and up to 1, got {self.reject_share}")
        if not 0 <= self.tolerate_unknown <= 1_000_000:
            raise ValueError(f"tolerate_unknown: expected 0 or more, got {self.tolerate_unknown}")

    def rejects(self, boxes: int, of: int) -> bool:
        """Whether so many rejected boxes of all reject the frame."""
        if self.reject_share is not None:
            return boxes > 0 and boxes >= self.reject_share * of - 1e-9  # 3 of 10 are 0.3 of them
        return boxes >= (self.reject_boxes or 1)


class BoxVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one box, or on the whole frame where `box` is None.

    Attributes:
        box: The box as it was announced, or None for the whole frame.
        verdict: pass, reject or unknown.
        reason: Why it is unknown or rejected, e.g. `score_above_threshold`, `expired`; empty for pass.
        score: −logit of the discriminator; higher is more anomalous. None if there is none.
        p_value: Conformal p-value of the score among good images, in (0, 1]. None without a score
            or without calibration.
        name: Of the pocket of a layout, or the class of a detector; empty where it has none.
        track_id: Number of the part that the box shows, where the camera tracks; the same in all its frames.
    """

    box: Box | None = None
    verdict: VerdictKind
    reason: str = ""
    score: float | None = None
    p_value: float | None = None
    name: str = ""
    track_id: int | None = None


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds a frame spent in each stage, and in all of them; `boxes_ms`: finding its boxes."""

    boxes_ms: float = 0.0
    queue_ms: float = 0.0
    preprocess_ms: float = 0.0
    infer_ms: float = 0.0
    total_ms: float = 0.0


class PartTrack(msgspec.Struct, frozen=True, kw_only=True):
    """What the verdict on a tracked part is made of.

    Attributes:
        camera: Name of the camera that saw it.
        track_id: Number of the part there, as its boxes have it.
        ended: Why it was concluded: `lost`, `line`, `frames`, `restart` (the source began anew) or `end` (of
            the stream).
        first_frame_id: Frame in which it was found first.
        last_frame_id: Last frame that counts.
        passed: Frames in which its box passed.
        rejected: Frames in which it was rejected.
        unknown: Frames in which it was found, but has no verdict.
    """

    camera: str
    track_id: int
    ended: str
    first_frame_id: int
    last_frame_id: int
    passed: int
    rejected: int
    unknown: int


class FrameVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out for every frame, and for every tracked part, with its provenance.

    Attributes:
        camera: Name of the camera.
        frame_id: Number of the frame in this camera's stream, as the source counts; from 0.
        part_id: The caller's own name for the frame or part (file name, PLC part number), or "".
        verdict: The worst of the boxes' verdicts: reject before unknown before pass; or what the camera's
            `rule`, or the boxes' mean score, says (see `Frame.fuse`).
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
        part: Set where this is the verdict on a part that was tracked over frames, not on a frame. `camera`
            is then `NAME.parts`, `frame_id` counts these parts from 0, `captured_ns` is that of the last
            frame that counts, and `boxes` holds its box there.
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
    part: PartTrack | None = None


@dataclass(slots=True)
class Frame:
    """One picture, or vector, on its way through the pipeline.

    Attributes:
        camera: Name of the camera.
        frame_id: The source's own count in this camera's stream, from 0.
        image: uint8, (H, W, 3) or (H, W) for grey, or what `preprocess` takes with the other formats; any row
            stride; read-only for the pipeline, which holds a reference until the frame's verdict is out.
        pixel_format: What the pixels are.
        captured_ns: Unix time of capture in nanoseconds.
        deadline_ns: `time.monotonic_ns()` after which a verdict is worthless, or None.
        boxes: (N, 4) float32 xyxy boxes that came with the frame, or None for "the source knows none".
        part_id: The caller's own name for the frame.
        fault: Set by a source that announces a frame which it could not decode; such a frame gets
            `unknown` with this reason.
        reply: Called with the verdict, from the pipeline's thread; must not block.
        fuse: How the boxes' verdicts become the frame's; `max`: the worst stands for it; `mean`: the mean of
            their scores is compared with the threshold.
        rule: The camera's; None: as `fuse` says.
        when_empty: What it means that boxes were looked for and none was found, see `CameraConfig`.
        box_names: Name of each box, or None.
        track_ids: Number of the part in each box, or None where the camera does not track.
        boxes_ns: Time that it took to find the boxes.
        vector: (features,) float32 instead of an image, which is then empty; read-only and held likewise.
        intact: Whether the pixels are still what the source announced, where others could write to them;
            asked once they have been read.
        received_ns: `time.monotonic_ns()` when the pipeline took it.
        entry: Its entry in the ledger, set by the pipeline.
    """

    camera: str
    frame_id: int
    image: npt.NDArray[Any]
    pixel_format: CameraFormat
    captured_ns: int
    deadline_ns: int | None = None
    boxes: npt.NDArray[np.float32] | None = None
    part_id: str = ""
    fault: str = ""
    reply: Callable[[FrameVerdict], None] | None = None
    fuse: Literal["max", "mean"] = "max"
    rule: Rule | None = None
    when_empty: WhenEmpty = "unknown"
    box_names: tuple[str, ...] | None = None
    track_ids: tuple[int | None, ...] | None = None
    boxes_ns: int = 0
    vector: npt.NDArray[np.float32] | None = None
    intact: Callable[[], bool] | None = None
    received_ns: int = 0
    entry: int = -1
