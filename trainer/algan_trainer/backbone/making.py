"""A PyTorch network → a backbone file, whose features are compared with PyTorch's before it is kept."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch

from algan_stream.bundle import read_bundle
from algan_stream.engines.graph import open_graph
from algan_stream.images import list_images, read_image
from algan_stream.preprocess import preprocess
from algan_stream.types import InputSpec, PixelFormat
from algan_trainer.backbone.file import INFO_KEY, Backbone, BackboneError, BackboneInfo, read_backbone
from algan_trainer.backbone.networks import Network

#: The oldest that PyTorch's exporter writes by itself.
OPSET = 18
#: Largest difference of a feature, as a share of the largest feature (at least of 1).
PARITY = 1e-4
#: Images by which the two are compared.
_MOST_IMAGES = 8


def make_backbone(network: Network, name: str, out: Path, images: Path | None) -> tuple[Backbone, float]:
    """Exports a network, all at once or not at all.

    Args:
        network: What to export.
        name: Goes into the file.
        out: The file.
        images: Folder with images to compare on; None: the images of the demo's bundle.

    Returns:
        The backbone, and the largest difference found, as a share of the largest feature.

    Raises:
        BackboneError: The exporter is missing, a tap gives no features, or the graph computes other ones.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    spec = input_spec(network)
    inputs = _inputs(spec, images)
    with torch.no_grad():
        expected = network.module(torch.from_numpy(inputs))
    shapes = _shapes(network.taps, expected)
    info = BackboneInfo(
        name=name,
        resize_px=network.resize_px,
        crop_px=network.crop_px,
        mean=network.mean,
        std=network.std,
        taps={tap: shape[0] for tap, shape in shapes.items()},
        features=shapes[network.taps[-1]][0],
        source=network.source,
    )
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        staged = Path(folder) / out.name
        onnx.save(_traced(network, torch.from_numpy(inputs[:2]), info), staged)
        read_backbone(staged)
        difference = _difference(staged, inputs, shapes, [t.numpy() for t in expected])
        if not difference <= PARITY:
            raise BackboneError(
                f"{name}: the exported graph's features differ from PyTorch's by {difference:.3g} of the "
                f"largest (allowed {PARITY:g}); nothing was written"
            )
        staged.replace(out)
    return read_backbone(out), difference


def input_spec(network: Network) -> InputSpec:
    """How an image becomes the network's input, without a crop."""
    side = network.crop_px
    return InputSpec(height_px=side, width_px=side, pooled_channels=False, mean=network.mean, std=network.std)


def _inputs(spec: InputSpec, folder: Path | None) -> npt.NDArray[np.float32]:
    """A few real images, at least two: a batch of one would let the exporter fix its size."""
    if folder is None:
        golden = read_bundle("demo").golden().images_rgb
        pictures: list[tuple[npt.NDArray[np.uint8], PixelFormat]]
        pictures = [] if golden is None else [(image, "rgb8") for image in golden]
    else:
        pictures = [read_image(path) for path in list_images(folder)[:_MOST_IMAGES]]
    inputs = [preprocess(image, spec, pixel_format=form) for image, form in pictures[:_MOST_IMAGES]]
    return np.concatenate(inputs if len(inputs) > 1 else inputs * 2)


def _shapes(taps: tuple[str, ...], found: tuple[torch.Tensor, ...]) -> dict[str, tuple[int, ...]]:
    for tap, tensor in zip(taps, found, strict=True):
        if not isinstance(tensor, torch.Tensor) or tensor.dim() not in (2, 4):
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise BackboneError(f"--taps: {tap}: expected a map (N, C, h, w) or a vector (N, C), got {shape}")
    return {tap: tuple(tensor.shape[1:]) for tap, tensor in zip(taps, found, strict=True)}


def _traced(network: Network, example: torch.Tensor, info: BackboneInfo) -> onnx.ModelProto:
    # What the exporter says about itself (no torchvision, deprecations within PyTorch) helps nobody here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network.module,
                (example,),
                input_names=["input"],
                output_names=list(network.taps),
                dynamic_shapes=({0: torch.export.Dim("N")},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except ImportError as error:
            raise BackboneError(
                f"exporting needs the Python package {error.name}: pip install 'algan-stream[backbone]'"
            ) from error
    if program is None:
        raise BackboneError(f"{info.name}: PyTorch's exporter gave no graph")
    model = program.model_proto
    # The exporter notes in every node where its Python stood on this machine; nobody else's concern.
    for part in (
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        model.graph,
    ):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "algan-stream", "", ""
    model.metadata_props.add(key=INFO_KEY, value=msgspec.json.encode(info).decode())
    return model


def _difference(
    path: Path,
    inputs: npt.NDArray[np.float32],
    shapes: dict[str, tuple[int, ...]],
    expected: list[npt.NDArray[np.float32]],
) -> float:
    graph = open_graph(path, inputs.shape[1:], shapes)
    try:
        found = graph.infer(inputs)
    finally:
        graph.close()
    return max(
        float(np.abs(found[tap] - of).max() / max(1.0, np.abs(of).max()))
        for tap, of in zip(shapes, expected, strict=True)
    )
