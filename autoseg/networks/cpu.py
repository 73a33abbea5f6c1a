"""Speed on a CPU: oneDNN convolutions and channels-last kernels.

Each function changes a network or the process in place and returns what it did. ``devices.prepare_for`` decides which to use.
Results change only by rounding.
"""

import torch
from torch import nn

__all__ = ["put_channels_last", "use_at_most", "use_onednn", "use_threads"]

LAST = torch.channels_last_3d
SMALL = 20480  # torch 2.13 uses oneDNN for a single sample if channels x slices x rows are more (ConvParams::use_mkldnn)


def use_onednn(network: nn.Module) -> int:
    """Use oneDNN also for convolutions of ``network`` for which torch would not use it; returns the number of layers.

    For float32. For a small single sample torch uses its own convolution code, which takes three to five times as long in the
    coarse stages of a U-Net (docs/experiments/convolutions-onednn.md). The layers are not replaced; hooks convert their
    input.
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
    """Compute the convolutions of ``network`` and the layers between them channels last; returns the number of layers.

    For training in float32: with AVX2 a step is shorter by a tenth to a quarter (docs/experiments/channels-last.md). Flat
    kernels and those of a single channel would be slower and are not changed; their output maps are reordered.
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


def use_threads(count: int) -> None:
    """Set the number of threads of this process that compute networks."""
    torch.set_num_threads(count)


def use_at_most(count: int) -> bool:
    """Limit the number of threads of this process that compute networks; True if there were more before."""
    more = torch.get_num_threads() > count
    if more:
        use_threads(count)
    return more
