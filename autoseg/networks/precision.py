"""Which number format a network computes in: float32, or bfloat16 where that is faster and does no harm.

What is chosen is a value with its reason, so that it can be recorded with the run.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planners.plan import NetworkSpec

__all__ = ["Precision", "choose_precision", "faster_in_bf16", "has_amx", "has_thin_stage", "unsafe_in_bf16"]

# of x86; with none of them a convolution in bfloat16 takes 17 times as long as one in float32
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
        wanted: ``fp32``, ``bf16``, or ``auto``: whichever is faster.
        spec: of the network.
        patches: (3,) voxels of the patches it will meet; on a CPU the last one is tried where the faster format is wanted.
        training: patches that cannot be trained in bfloat16 without harm are trained in float32, whatever is wanted.
    """
    if training and wanted != "fp32" and unsafe_in_bf16(spec, patches, device):
        return Precision("fp32", UNSAFE)
    if wanted != "auto":
        return Precision(wanted, "as asked for")
    fast = faster_in_bf16(network, (spec.in_channels, *patches[-1]), device, training=training)
    return Precision("bf16", "because it is the faster one") if fast else Precision("fp32", "because bfloat16 is not faster")


def faster_in_bf16(
    network: nn.Module, patch: Sequence[int], device: torch.device, *, training: bool = False, repeats: int = 2
) -> bool:
    """Whether bfloat16 autocast beats float32 by a tenth or more, measured on ``patch`` (C, Z, Y, X) zeros.

    On CUDA the answer comes from the hardware without a measurement; MPS says no, and so do processors that would only imitate
    bfloat16, where a trial alone takes up to a minute. Ask ``unsafe_in_bf16`` before a training run.
    """
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    known = _capabilities()
    if known.get("architecture") == "x86_64" and not any(known.get(name) for name in BF16_INSTRUCTIONS):
        return False
    x = torch.zeros((1, *patch))

    def seconds(enabled: bool) -> float:
        best = float("inf")
        for _ in range(repeats + 1):  # the first one also warms up
            start = time.perf_counter()
            with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = network(x)
            y = getattr(y, "features", y)  # of lazy logits
            if training:
                y.float().mean().backward()
            del y  # with many labels the largest thing there is
            best = min(best, time.perf_counter() - start)
        network.zero_grad(set_to_none=True)
        return best

    return seconds(True) < 0.9 * seconds(False)


def unsafe_in_bf16(spec: NetworkSpec, patches: Iterable[Sequence[int]], device: torch.device) -> bool:
    """Whether a training run of the network of ``spec`` on one of these patches would write beyond its memory in bfloat16."""
    return device.type == "cpu" and has_amx() and any(has_thin_stage(spec, patch) for patch in patches)


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 by itself (Intel's AMX)."""
    return bool(_capabilities().get("amx_bf16"))


def has_thin_stage(spec: NetworkSpec, patch: Sequence[int]) -> bool:
    """Whether some stage has large planes in fewer than 16 slices, where torch 2.13 writes beyond its memory.

    Seen with the backward pass of a single convolution under bfloat16 on a processor with AMX: planes of 96 x 96 and more in
    1 to 10 slices end in a corrupted heap, 64 x 64 and 16 slices do not.
    """
    z, y, x = patch
    for stride in spec.strides:
        z, y, x = z // stride[0], y // stride[1], x // stride[2]
        if z < 16 and y * x > 64 * 64:
            return True
    return False


def _capabilities() -> dict[str, Any]:
    """What torch knows of the processor: name -> value; empty where torch is too old to tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()
