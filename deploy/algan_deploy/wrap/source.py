"""Reads somebody else's ONNX file: what it takes, what it gives, and whether that can be served at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from algan_stream.errors import BundleError, PluginError

#: A dimension of a graph: a number, or None where it is open.
Dim = int | None
#: What anomalib, and others after it, call the score of an image.
USUAL_SCORE = "pred_score"
#: Element types (of ONNX) that a cast brings to and from float32 without surprises.
_FLOATS = {1: "float32", 10: "float16", 11: "float64"}
_OLDEST_OPSET = 7
_MOST_BYTES = 2 * 1024**3 - 1


@dataclass(frozen=True)
class Source:
    """A model that has been read, with the one input and the one output that matter.

    Attributes:
        path: The ONNX file.
        sha256: Of the file and of the weights beside it.
        model: The graph (an `onnx.ModelProto`), weights inside, local functions inlined.
        input_name: Its image.
        input_type: Element type of that, as ONNX counts.
        layout: Order of its axes.
        batch: Images that it takes at once, None for any number.
        planes: Channels, None where it fixes none.
        height_px: Height, None likewise.
        width_px: Width, None likewise.
        output_name: Its score.
        constants: Further inputs, each fixed to a number.
        opset: Version of ONNX's operators.
    """

    path: Path
    sha256: str
    model: Any
    input_name: str
    input_type: int
    layout: Literal["nchw", "nhwc"]
    batch: Dim
    planes: Dim
    height_px: Dim
    width_px: Dim
    output_name: str
    constants: Mapping[str, float]
    opset: int


def open_source(path: Path, score_output: str | None, constants: Mapping[str, float]) -> Source:
    """Reads and checks a model.

    Args:
        path: The ONNX file.
        score_output: Name of the output that is the score; None: found, if there can be no doubt.
        constants: Values for inputs besides the image.

    Raises:
        BundleError: It cannot be read, or is no model with one image and one score for each image.
        PluginError: The package `onnx` is not installed.
    """
    model, sha256 = _load(path)
    opset = _check_versions(path, model)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {i.name: i for i in graph.input if i.name not in weights}
    image = _choose_input(path, inputs, constants)
    layout, dims = _image_dims(path, image)
    planes, height, width = dims[1:] if layout == "nchw" else (dims[3], dims[1], dims[2])
    return Source(
        path=path,
        sha256=sha256,
        model=model,
        input_name=image.name,
        input_type=image.type.tensor_type.elem_type,
        layout=layout,
        batch=dims[0],
        planes=planes,
        height_px=height,
        width_px=width,
        output_name=_choose_output(path, graph.output, score_output),
        constants=dict(constants),
        opset=opset,
    )


def dims_of(value: Any) -> tuple[Dim, ...] | None:
    """Dimensions of a graph's input or output; None where not even their number is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)


def shape_text(value: Any) -> str:
    """Such dimensions for a message: `(?, 3, 224, 224)`."""
    dims = dims_of(value)
    return "unknown" if dims is None else f"({', '.join('?' if d is None else str(d) for d in dims)})"


def _load(path: Path) -> tuple[Any, str]:
    try:
        import onnx
        import onnx.inliner
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise PluginError(
            f"this needs the Python package {error.name}: pip install 'algan-stream[wrap]'"
        ) from error
    try:
        digest = hashlib.sha256(path.read_bytes())
        # By its content, never by its name: onnx would take a suffix such as .json for another format.
        model = onnx.load(path, format="protobuf", load_external_data=False)
        beside = {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        model = onnx.load(path, format="protobuf")
        for name in sorted(beside):
            digest.update((path.parent / name).read_bytes())
        if model.ByteSize() > _MOST_BYTES:
            raise BundleError(f"{path}: holds more than 2 GiB of weights, which one ONNX file cannot")
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise BundleError(f"{path}: is not a whole ONNX model: {error}; export it again") from error
    if not model.graph.node:
        raise BundleError(f"{path}: is not a whole ONNX model: it has no nodes; export it again")
    return model, digest.hexdigest()


def _check_versions(path: Path, model: Any) -> int:
    """Returns the opset; refuses one that the tools here do not know."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not _OLDEST_OPSET <= opset <= newest:
        raise BundleError(
            f"{path}: opset: expected {_OLDEST_OPSET} to {newest}, got {opset}; export it again with an "
            f"opset in between (17 is read everywhere){', or upgrade onnx' if opset > newest else ''}"
        )
    if model.ir_version > onnx.IR_VERSION:
        raise BundleError(
            f"{path}: IR version {model.ir_version} is newer than {onnx.IR_VERSION}, the newest known here; "
            "export it with an older opset, or upgrade onnx"
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"{path}: is not a valid ONNX model: {error}; export it again") from error
    return int(opset)


def _choose_input(path: Path, inputs: Mapping[str, Any], constants: Mapping[str, float]) -> Any:
    unknown = constants.keys() - inputs.keys()
    if unknown:
        raise BundleError(
            f"{path}: has no input {', '.join(sorted(unknown))}; its inputs are {', '.join(inputs)}"
        )
    images = [value for name, value in inputs.items() if name not in constants]
    if len(images) != 1:
        found = ", ".join(f"{value.name} {shape_text(value)}" for value in inputs.values()) or "none"
        raise BundleError(
            f"{path}: expected one input, an image, got {len(images)}: {found}; fix numbers that go in "
            "beside it by --set NAME=VALUE, or export a model that takes an image only"
        )
    return images[0]


def _image_dims(path: Path, image: Any) -> tuple[Literal["nchw", "nhwc"], tuple[Dim, ...]]:
    dims, kind = dims_of(image), image.type.tensor_type.elem_type
    if kind not in _FLOATS:
        raise BundleError(
            f"{path}: input {image.name}: expected {' or '.join(_FLOATS.values())}, got ONNX element type "
            f"{kind}; export it for floating-point pixels"
        )
    if dims is None or len(dims) != 4:
        raise BundleError(
            f"{path}: input {image.name}: expected an image (N, C, H, W) or (N, H, W, C), got "
            f"{shape_text(image)}"
        )
    last = dims[1] not in (None, 1, 3, 4, 5) and dims[3] in (1, 3)
    return ("nhwc" if last else "nchw"), dims


def _choose_output(path: Path, outputs: Any, wanted: str | None) -> str:
    """Name of the score: what was asked for, the usual name, or the only output that can be one."""
    named = {value.name: value for value in outputs}
    listed = ", ".join(f"{name} {shape_text(value)}" for name, value in named.items())
    if wanted is not None and wanted not in named:
        raise BundleError(f"{path}: has no output {wanted}; its outputs are {listed}")
    if wanted is None and USUAL_SCORE in named:
        wanted = USUAL_SCORE
    if wanted is None:
        able = [name for name, value in named.items() if _may_be_score(value)]
        certain = [name for name in able if (dims := dims_of(named[name])) and None not in dims[1:]]
        able = certain or able  # (N, 1) rather than (N, 1, ?, ?), which may be a map
        if len(able) != 1:
            raise BundleError(
                f"{path}: expected one output with one number for each image, got {len(able)} that may be "
                f"it; name the score by --score-output; its outputs are {listed}"
            )
        return str(able[0])
    if not _may_be_score(named[wanted]):
        raise BundleError(
            f"{path}: output {wanted} {shape_text(named[wanted])} is not one floating-point number for each "
            f"image; name another by --score-output; its outputs are {listed}"
        )
    return wanted


def _may_be_score(value: Any) -> bool:
    """Floating point, and of a shape that one number for each image can have."""
    dims = dims_of(value)
    if value.type.tensor_type.elem_type not in _FLOATS:
        return False
    return dims is None or all(dim in (None, 1) for dim in dims[1:])
