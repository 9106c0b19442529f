"""A backbone as a file: an ONNX graph from images to features, and what it was trained on. No torch here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, inliner, version_converter

from algan_stream.errors import AlganError

#: Key of `metadata_props` under which the file says what it is, as JSON.
INFO_KEY = "algan_backbone"
#: Older graphs are lifted to it: what is written around a backbone needs GridSample, which came with 16.
LEAST_OPSET = 17
#: Another name for a backbone's last tap.
LAST = "last"
_DEFAULT_DOMAINS = ("", "ai.onnx")


class BackboneError(AlganError):
    """A backbone cannot be read, made or used as asked; the message says why and how to mend it."""

    exit_code = 12


class BackboneInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a backbone says of itself.

    Attributes:
        name: Of the network.
        resize_px: Size to which its training resized images, before the crop.
        crop_px: Side of its square input.
        mean: Subtracted from red, green and blue in 0..1.
        std: Divisor after that.
        taps: Channels of each output, from the shallowest to the deepest.
        features: Length of the deepest, averaged over the image.
        source: Where network and weights come from, with versions.
    """

    name: str
    resize_px: int
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    taps: dict[str, int]
    features: int
    source: str


@dataclass(frozen=True, eq=False)
class Tap:
    """One output: its channels, and whether it is a map (N, C, h, w) or already a vector (N, C)."""

    channels: int
    is_map: bool


@dataclass(frozen=True, eq=False)
class Backbone:
    """A backbone that has been read and checked.

    Attributes:
        path: The file.
        sha256: Of the file, in hex.
        model: Its graph; local functions are inlined, and the opset is at least `LEAST_OPSET`.
        input_name: Of its one input, (N, 3, H, W) float32.
        size_px: H = W where the graph fixes them, else None.
        taps: Its outputs, in order.
        info: What it says of itself, or None.
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    input_name: str
    size_px: int | None
    taps: dict[str, Tap]
    info: BackboneInfo | None

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators in use."""
        return next(int(o.version) for o in self.model.opset_import if o.domain in _DEFAULT_DOMAINS)

    def tap(self, name: str) -> str:
        """The full name of a tap; `last` is the deepest one, whatever it is called.

        Raises:
            BackboneError: There is none of this name.
        """
        if name in self.taps:
            return name
        if name == LAST:
            return list(self.taps)[-1]
        raise BackboneError(
            f"{self.path}: feature.layers: has no output {name!r}; expected {', '.join(self.taps)} or {LAST}"
        )


def backbone_hash(path: Path | None, expected: str) -> str:
    """SHA-256 of a backbone's file, in hex.

    Args:
        path: The file.
        expected: What it must be; "": anything.

    Raises:
        BackboneError: No file is named, it cannot be read, or it is another one.
    """
    if path is None:
        raise BackboneError("network.kind = 'feature' needs a backbone: name one by --backbone FILE")
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read: {error.strerror}") from error
    if expected and found != expected:
        raise BackboneError(
            f"{path}: is not the backbone that feature.backbone_sha256 names: expected {expected[:12]}…, "
            f"got {found[:12]}…"
        )
    return found


def read_backbone(path: Path) -> Backbone:
    """Reads and checks a backbone.

    Raises:
        BackboneError: It is no ONNX file, or not one with a single image input and named feature outputs.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read: {error.strerror}") from error
    model = _decoded(path, data)
    name, size_px = _image_input(path, model.graph)
    if not model.graph.output:
        raise BackboneError(f"{path}: expected outputs with features, got none")
    taps = {output.name: _tap(path, output) for output in model.graph.output}
    info = _info(path, model)
    if info is not None and info.taps != {tap: taps[tap].channels for tap in taps}:
        raise BackboneError(f"{path}: its metadata names other outputs than it has; export it again")
    return Backbone(path, hashlib.sha256(data).hexdigest(), model, name, size_px, taps, info)


def _decoded(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise BackboneError(
            f"{path}: is not an ONNX file; make one by `algan-stream backbone export`"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise BackboneError(f"{path}: is not an ONNX file; make one by `algan-stream backbone export`")
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        raise BackboneError(f"{path}: keeps weights in other files; save it as one file")
    try:
        onnx.checker.check_model(model)
        if model.functions:
            model = inliner.inline_local_functions(model)
        opset = next((o.version for o in model.opset_import if o.domain in _DEFAULT_DOMAINS), 0)
        if opset < LEAST_OPSET:
            model = version_converter.convert_version(model, LEAST_OPSET)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise BackboneError(f"{path}: is not a valid ONNX graph: {error}") from error
    return model


def _image_input(path: Path, graph: onnx.GraphProto) -> tuple[str, int | None]:
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise BackboneError(
            f"{path}: expected one input, images (N, 3, H, W) float32, got {len(inputs)}: "
            f"{', '.join(i.name for i in inputs)}"
        )
    shape = _shape(inputs[0])
    square = len(shape) == 4 and shape[2] == shape[3]
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT or not square or shape[1] != 3:
        raise BackboneError(
            f"{path}: {inputs[0].name}: expected float32 (N, 3, H, W) with H = W, got {_words(inputs[0])}"
        )
    if shape[0] is not None:
        raise BackboneError(
            f"{path}: {inputs[0].name}: is for batches of {shape[0]} only; export it with a dynamic batch"
        )
    return inputs[0].name, shape[2]


def _tap(path: Path, output: onnx.ValueInfoProto) -> Tap:
    shape = _shape(output)
    good = len(shape) in (2, 4) and output.type.tensor_type.elem_type == TensorProto.FLOAT
    if not good or shape[1] is None:
        raise BackboneError(
            f"{path}: output {output.name}: expected float32 (N, C, h, w) or (N, C) with known C, got "
            f"{_words(output)}"
        )
    return Tap(shape[1], len(shape) == 4)


def _info(path: Path, model: onnx.ModelProto) -> BackboneInfo | None:
    text = next((p.value for p in model.metadata_props if p.key == INFO_KEY), None)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=BackboneInfo)
    except msgspec.DecodeError as error:
        raise BackboneError(f"{path}: metadata {INFO_KEY}: {error}; export it again") from error


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """Its dimensions; None where one is not fixed."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else None for d in dims]


def _words(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    return f"{kind.lower()} ({', '.join(str(d.dim_value or d.dim_param or '?') for d in dims)})"
