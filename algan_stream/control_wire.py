"""What `algan-stream ctl` and a running line say to each other: a msgpack message each way, REQ and REP."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from algan_stream.errors import ProtocolError
from algan_stream.ledger import CameraAccount
from algan_stream.recalibration import Collected
from algan_stream.shadow import ShadowReport
from algan_stream.swap import SwapStatus

#: Longest request that is read.
MAX_REQUEST_BYTES = 1 << 16


class GetStatus(msgspec.Struct, tag="status", forbid_unknown_fields=True):
    """How is the line? Answer: `LineStatus`."""


class Swap(msgspec.Struct, tag="swap", forbid_unknown_fields=True, kw_only=True):
    """Load a bundle and go over to it. Answer: `Begun`; `LineStatus.swap` tells the rest.

    Attributes:
        bundle: Absolute path, or `demo`.
    """

    bundle: str


class Rollback(msgspec.Struct, tag="rollback", forbid_unknown_fields=True):
    """Go back to the model before. Answer: `Begun`."""


class StartShadow(msgspec.Struct, tag="shadow", forbid_unknown_fields=True, kw_only=True):
    """Load a bundle and compare. Answer: `ShadowAnswer`, in which it is loading.

    Attributes:
        bundle: Absolute path, or `demo`.
        share: Of frames, above 0 and up to 1.
    """

    bundle: str
    share: float


class GetShadow(msgspec.Struct, tag="shadow_report", forbid_unknown_fields=True):
    """Answer: `ShadowAnswer`."""


class PromoteShadow(msgspec.Struct, tag="shadow_promote", forbid_unknown_fields=True):
    """Stop the shadow, and swap to its bundle. Answer: `Begun`."""


class StopShadow(msgspec.Struct, tag="shadow_stop", forbid_unknown_fields=True):
    """Answer: the last `ShadowAnswer`."""


class Reload(msgspec.Struct, tag="reload", forbid_unknown_fields=True):
    """Read the line's file again. Answer: `Reloaded`."""


class Pause(msgspec.Struct, tag="pause", forbid_unknown_fields=True, kw_only=True):
    """Answer the frames of a camera unscored, or score them again. Answer: `Done`."""

    camera: str
    paused: bool


class StartRecalibration(msgspec.Struct, tag="recalibrate", forbid_unknown_fields=True, kw_only=True):
    """From now on, the parts before a camera are good. Answer: `CollectedAnswer`.

    Attributes:
        camera: Whose frames.
        images: Scores to collect.
        false_reject_rate: What the threshold shall be set for; None: as before.
    """

    camera: str
    images: int
    false_reject_rate: float | None = None


class FinishRecalibration(msgspec.Struct, tag="recalibrate_finish", forbid_unknown_fields=True, kw_only=True):
    """Set the threshold from what was collected. Answer: `Recalibrated`.

    Attributes:
        apply: Swap to a bundle with it.
        out: Absolute path of that bundle; "": nowhere, or beside the old one if it is applied.
    """

    apply: bool = False
    out: str = ""


class CancelRecalibration(msgspec.Struct, tag="recalibrate_cancel", forbid_unknown_fields=True):
    """Forget what was collected. Answer: `Done`."""


class Stop(msgspec.Struct, tag="stop", forbid_unknown_fields=True):
    """Stop the line, as SIGTERM does. Answer: `Done`."""


class Done(msgspec.Struct, tag="done", kw_only=True):
    """It is done."""

    told: str


class Refused(msgspec.Struct, tag="refused", kw_only=True):
    """It was not done, and nothing was changed.

    Attributes:
        message: Why.
        exit_code: For the command.
    """

    message: str
    exit_code: int = 1


class Begun(msgspec.Struct, tag="begun", kw_only=True):
    """It goes on in the background.

    Attributes:
        job: Number of the swap.
    """

    job: int


class Reloaded(msgspec.Struct, tag="reloaded", kw_only=True):
    """What a reload changed.

    Attributes:
        changes: One line of text each; none: file and line are alike.
    """

    changes: list[str]


class Recalibrated(msgspec.Struct, tag="recalibrated", kw_only=True):
    """A new threshold.

    Attributes:
        threshold: Scores above it would be rejected.
        threshold_before: What serves.
        false_reject_rate: What it was set for.
        false_reject_rate_ci95: 95 % interval of the true one, given how few scores stand behind it.
        collected: What it was made of.
        bundle: Where it was saved; "" nowhere.
        job: Number of the swap to it; 0 none.
    """

    threshold: float
    threshold_before: float | None
    false_reject_rate: float
    false_reject_rate_ci95: tuple[float, float]
    collected: Collected
    bundle: str = ""
    job: int = 0


class CameraStatus(msgspec.Struct, kw_only=True):
    """A camera of the line, configured or a client's.

    Attributes:
        paused: Its frames are answered unscored.
        waiting: Frames in its queue.
        account: Its books.
    """

    paused: bool
    waiting: int
    account: CameraAccount | None


class LineStatus(msgspec.Struct, tag="line_status", kw_only=True):
    """How the line is.

    Attributes:
        phase: `starting`, `running` or `stopping`.
        problems: Why it is not ready; none: all is well.
        bundle: Path of the bundle that serves.
        model: First 12 hex digits of the model's SHA-256.
        threshold: Scores above it are rejected.
        engine: Identity of the engine.
        cameras: By name.
        sinks: Verdicts that wait, by sink.
        swap: Where the latest swap stands.
        shadow: What the shadow has seen.
        recalibration: What was collected.
    """

    phase: str
    problems: list[str]
    bundle: str
    model: str
    threshold: float | None
    engine: str
    cameras: dict[str, CameraStatus]
    sinks: dict[str, int]
    swap: SwapStatus
    shadow: ShadowReport
    recalibration: Collected


class ShadowAnswer(msgspec.Struct, tag="shadow_report", kw_only=True):
    """What the shadow has seen."""

    report: ShadowReport


class CollectedAnswer(msgspec.Struct, tag="collected", kw_only=True):
    """What a recalibration has so far."""

    collected: Collected


Request: TypeAlias = (
    GetStatus
    | Swap
    | Rollback
    | StartShadow
    | GetShadow
    | PromoteShadow
    | StopShadow
    | Reload
    | Pause
    | StartRecalibration
    | FinishRecalibration
    | CancelRecalibration
    | Stop
)
Answer: TypeAlias = (
    Done | Refused | Begun | Reloaded | Recalibrated | LineStatus | ShadowAnswer | CollectedAnswer
)

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Packs a message."""
    return _encoder.encode(message)


def decode_request(raw: bytes) -> Request:
    """Unpacks what `ctl` sent.

    Raises:
        ProtocolError: It is no request.
    """
    return _decode(_request, raw)


def decode_answer(raw: bytes) -> Answer:
    """Unpacks what the line answered.

    Raises:
        ProtocolError: It is no answer of this version.
    """
    return _decode(_answer, raw)


def _decode(decoder: msgspec.msgpack.Decoder[_T], raw: bytes) -> _T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"control: {error}") from error
