"""What makes a CPU fast: convolutions by oneDNN, kernels channels last, and memory that is kept.

Each is a function that changes a network or the process in place and says what it did; ``devices.prepare_for`` decides which
apply. Results differ from those without by rounding.
"""

import ctypes
import platform
import sys

import torch
from torch import nn

__all__ = ["keep_memory", "put_channels_last", "use_at_most", "use_onednn", "use_threads"]

LAST = torch.channels_last_3d
SMALL = 20480  # torch 2.13 gives a single sample to oneDNN where channels x slices x rows are more (ConvParams::use_mkldnn)


def use_onednn(network: nn.Module) -> int:
    """Have oneDNN compute also those convolutions of ``network`` that torch would not give to it; how many layers.

    For float32. Of a single sample that is small torch computes convolutions by code of its own, which takes three to five
    times as long in the coarse stages of a U-Net (docs/experiments/convolutions-onednn.md). The layers stay what they are;
    hooks hand their input over.
    """
    if not torch.backends.mkldnn.is_available():
        return 0
    layers = [module for module in network.modules() if type(module) is nn.Conv3d and max(module.kernel_size) > 1]
    for layer in layers:
        layer.register_forward_pre_hook(_hand_over)
        layer.register_forward_hook(_take_back)
    return len(layers)


def _hand_over(layer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    (x,) = inputs
    usual = x.is_mkldnn or x.dtype != torch.float32 or len(x) > 1 or x.shape[:4].numel() > SMALL
    return inputs if usual else (x.to_mkldnn(),)


def _take_back(layer: nn.Module, inputs: tuple[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return y.to_dense() if y.is_mkldnn else y


def put_channels_last(network: nn.Module) -> int:
    """Have the convolutions of ``network`` computed channels last, and what lies between them as well; how many layers.

    For training in float32: with AVX2 a step is shorter by a tenth to a quarter (docs/experiments/channels-last.md). Flat
    kernels and those of a single channel are slower so, and stay; the maps of these are turned around behind them.
    """
    whole = [m for m in network.modules() if isinstance(m, nn.Conv3d) and min(m.kernel_size) > 1]
    layers = [layer for layer in whole if layer.in_channels > 1]
    for layer in layers:
        layer.weight.data = layer.weight.data.to(memory_format=LAST)
    for layer in whole if layers else ():
        if layer.in_channels == 1:
            layer.register_forward_hook(_turn_around)
    return len(layers)


def _turn_around(layer: nn.Module, inputs: tuple[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return y.contiguous(memory_format=LAST)


def keep_memory() -> bool:
    """Tell glibc to keep the memory of large tensors instead of returning it after every step; True if it was told.

    Returning and refaulting it costs a training run on a CPU a twentieth to half of its time, by machine
    (docs/experiments/step-memory.md).
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of these numbers: malloc.h
    told = [libc.mallopt(mmap_max, 0), libc.mallopt(trim_threshold, 2**31 - 1), libc.mallopt(top_pad, 256 * 2**20)]
    return all(told)


def use_threads(count: int) -> None:
    """Have networks computed by so many threads of this process."""
    torch.set_num_threads(count)


def use_at_most(count: int) -> bool:
    """Have networks computed by no more threads of this process than so many; True where there were more."""
    more = torch.get_num_threads() > count
    if more:
        use_threads(count)
    return more
