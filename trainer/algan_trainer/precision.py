"""Which arithmetic training uses, and with how many threads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from algan_stream.cpus import available_cpus

#: Processor flags (x86, ARM) that mean bfloat16 products in hardware; without them bf16 is slower than fp32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def resolve(
    precision: Literal["auto", "fp32", "bf16"],
    cpuinfo: Path = Path("/proc/cpuinfo"),
    *,
    convolutions: bool = True,
    device: str = "cpu",
) -> Literal["fp32", "bf16"]:
    """Settles `auto`. Measured at 128×128: bf16 takes 0.5 to 0.6 of fp32's time where the flags are there.

    Without `convolutions` it is fp32: fully connected networks are small, and features want their digits. On
    `cuda`, bf16 where the GPU computes in it (from compute capability 8.0 on).
    """
    if precision != "auto":
        return precision
    if not convolutions:
        return "fp32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return "fp32"
    return "bf16" if flags & _BF16_FLAGS else "fp32"


def dtype_of(precision: Literal["fp32", "bf16"]) -> torch.dtype:
    """The dtype that images are held in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def use_threads(threads: int | None, processes: int = 1) -> int:
    """Sets the number of computing threads, by default this process's share of all that it may use."""
    count = threads or max(available_cpus() // processes, 1)
    torch.set_num_threads(count)
    return count
