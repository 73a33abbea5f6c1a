"""What the machine is good at: the device, the number format, and how memory is kept.

Each of these is a measurement or a plain rule; what was chosen is returned so that it can be recorded with the run.
"""

import ctypes
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from autoseg.errors import AutosegError
from planners.plan import NetworkSpec

__all__ = [
    "choose_device",
    "faster_in_bf16",
    "give_to_onednn",
    "has_thin_stage",
    "keep_memory",
    "peak_memory_mib",
    "unsafe_in_bf16",
]

# of x86; with none of them a convolution in bfloat16 takes 17 times as long as one in float32 (EXPERIMENTS.md)
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "avx10_1", "avx10_2")

SMALL = 20480  # torch 2.13 gives a single sample to oneDNN where channels x slices x rows are more (ConvParams::use_mkldnn)


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; other names as torch knows them.

    Raises:
        AutosegError: the device is not there; names what is.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as fault:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise AutosegError(f"--device {name}: not to be had on this machine, which has {', '.join(there)}") from fault
    return device


def faster_in_bf16(
    network: nn.Module, patch: Sequence[int], device: torch.device, *, training: bool = False, repeats: int = 2
) -> bool:
    """Whether bfloat16 autocast beats float32 by a tenth or more, measured on ``patch`` (C, Z, Y, X) zeros.

    On CUDA the answer comes from the hardware without a measurement; MPS says no, and so do processors that would only imitate
    bfloat16, where a trial alone takes up to a minute. Ask ``unsafe_in_bf16`` before a training.
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
            y = getattr(y, "features", y)  # of postponed logits
            if training:
                y.float().mean().backward()
            del y  # with many labels the largest thing there is
            best = min(best, time.perf_counter() - start)
        network.zero_grad(set_to_none=True)
        return best

    return seconds(True) < 0.9 * seconds(False)


def give_to_onednn(network: nn.Module) -> None:
    """Have oneDNN compute also those convolutions of ``network`` that torch would not give to it.

    For float32 on a CPU. Of a single sample that is small torch computes convolutions by code of its own, which takes three to
    five times as long in the coarse stages of a U-Net (EXPERIMENTS.md). Results differ by rounding.
    """
    if torch.backends.mkldnn.is_available():
        for module in network.modules():
            if type(module) is torch.nn.Conv3d and max(module.kernel_size) > 1:
                module.__class__ = _ByOneDNN


class _ByOneDNN(torch.nn.Conv3d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or len(x) > 1 or x.shape[:4].numel() > SMALL:
            return super().forward(x)
        place = self.stride, self.padding, self.dilation, self.groups
        return torch.nn.functional.conv3d(x.to_mkldnn(), self.weight, self.bias, *place).to_dense()


def unsafe_in_bf16(spec: NetworkSpec, patches: Iterable[Sequence[int]], device: torch.device) -> bool:
    """Whether a training of the network of ``spec`` on one of these patches would write beyond its memory in bfloat16."""
    return device.type == "cpu" and has_amx() and any(has_thin_stage(spec, patch) for patch in patches)


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 by itself (Intel's AMX)."""
    return bool(_capabilities().get("amx_bf16"))


def _capabilities() -> dict[str, Any]:
    """What torch knows of the processor: name -> value; empty where torch is too old to tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()


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


def keep_memory() -> bool:
    """Tell glibc to keep the memory of large tensors instead of returning it after every step; True if it was told.

    Returning and refaulting it costs a CPU training from a twentieth to half of its time, by machine (EXPERIMENTS.md).
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of these numbers: malloc.h
    told = [libc.mallopt(mmap_max, 0), libc.mallopt(trim_threshold, 2**31 - 1), libc.mallopt(top_pad, 256 * 2**20)]
    return all(told)


def peak_memory_mib(device: torch.device) -> int | None:
    """The most memory this process has had so far: tensors on a CUDA device, else the process as a whole; None if unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return round(getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
