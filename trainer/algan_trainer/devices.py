"""Which device trains."""

from __future__ import annotations

from typing import Literal

import torch

from algan_stream.errors import PluginError

DeviceKind = Literal["auto", "cpu", "cuda"]


def choose_device(wanted: DeviceKind) -> torch.device:
    """Settles `auto`: the first CUDA GPU that PyTorch can use, else the CPU.

    Raises:
        PluginError: `cuda` is wanted and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise PluginError(f"--device cuda: {_missing()}, or train with --device cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _missing() -> str:
    """What was found instead of a usable GPU, and what to do."""
    if torch.version.cuda is None:
        return (
            f"the installed PyTorch {torch.__version__} is built without CUDA; install a CUDA build of it, "
            "as PyTorch's own installation page says for your driver"
        )
    return (
        f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda}, but finds no GPU; install an "
        "NVIDIA driver for it (nvidia-smi must list the GPU), and see that CUDA_VISIBLE_DEVICES hides none"
    )
