"""Chooses the number format of a network: float32, or bfloat16 if that is faster and safe.

The choice is a value with its reason, so that it can be recorded with the run.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planners.plan import NetworkSpec

__all__ = ["Precision", "choose_precision", "faster_in_bf16", "has_amx", "has_thin_stage", "unsafe_in_bf16"]

# x86 instructions; without any of them a convolution in bfloat16 takes 17 times as long as in float32
# (docs/experiments/channels-last-avx2.md)
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "avx10_1", "avx10_2")
UNSAFE = "because torch writes beyond its memory when it trains thin patches in bfloat16 on this processor"


@dataclass(frozen=True)
class Precision:
    """A number format, ``fp32`` or ``bf16``, and ``why`` it was chosen."""

    name: str
    why: str


def choose_precision(
    wanted: str,
    device: torch.device,
    network: nn.Module,
    spec: NetworkSpec,
    patches: Sequence[Sequence[int]],
    *,
    training: bool,
) -> Precision:
    """The number format for a network.

    Args:
        wanted: ``fp32``, ``bf16``, or ``auto`` for the faster one.
        spec: NetworkSpec of the network.
        patches: (3,) voxels of each patch size that will be used; for ``auto`` on a CPU the last one is measured.
        training: True for training. Patches that are not safe in bfloat16 are trained in float32, whatever ``wanted`` is.
    """
    if training and wanted != "fp32" and unsafe_in_bf16(spec, patches, device):
        return Precision("fp32", UNSAFE)
    if wanted != "auto":
        return Precision(wanted, "as asked for")
    fast = faster_in_bf16(network, (spec.in_channels, *patches[-1]), device, training=training)
    return Precision("bf16", "because it is the faster one") if fast else Precision("fp32", "because bfloat16 is not faster")


def faster_in_bf16(network: nn.Module, patch: Sequence[int], device: torch.device, *, training: bool = False) -> bool:
    """Whether bfloat16 autocast is faster than float32 by a tenth or more, measured on ``patch`` (C, Z, Y, X) zeros.

    On CUDA the answer depends on the hardware, without a measurement. It is False for MPS, and for processors that only emulate
    bfloat16, where a measurement alone takes up to a minute. Check ``unsafe_in_bf16`` before a training run.
    """
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    known = _capabilities()
    if known.get("architecture") == "x86_64" and not any(known.get(name) for name in BF16_INSTRUCTIONS):
        return False
    x = torch.zeros((1, *patch))

    def seconds(enabled: bool) -> float:
        best = float("inf")
        for _ in range(3):  # the first one also warms up
            start = time.perf_counter()
            with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = network(x)
            y = getattr(y, "features", y)  # for lazy logits
            if training:
                y.float().mean().backward()
            del y  # with many labels the largest tensor
            best = min(best, time.perf_counter() - start)
        network.zero_grad(set_to_none=True)
        return best

    return seconds(True) < 0.9 * seconds(False)


def unsafe_in_bf16(spec: NetworkSpec, patches: Iterable[Sequence[int]], device: torch.device) -> bool:
    """Whether training the network of ``spec`` in bfloat16 on one of these patches would write outside its memory."""
    return device.type == "cpu" and has_amx() and any(has_thin_stage(spec, patch) for patch in patches)


def has_amx() -> bool:
    """Whether the processor has bfloat16 matrix multiplication (Intel AMX)."""
    return bool(_capabilities().get("amx_bf16"))


def has_thin_stage(spec: NetworkSpec, patch: Sequence[int]) -> bool:
    """Whether some stage has large planes in fewer than 16 slices, for which torch 2.13 writes outside its memory.

    Seen in the backward pass of a single convolution in bfloat16 on a processor with AMX: planes of 96 x 96 and more in 1 to
    10 slices corrupt the heap; 64 x 64 and 16 slices do not.
    """
    z, y, x = patch
    for stride in spec.strides:
        z, y, x = z // stride[0], y // stride[1], x // stride[2]
        if z < 16 and y * x > 64 * 64:
            return True
    return False


def _capabilities() -> dict[str, Any]:
    """The processor features reported by torch: name -> value; empty if torch is too old."""
    return getattr(torch.cpu, "get_capabilities", dict)()
