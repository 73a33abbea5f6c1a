"""What a network costs, by arithmetic: elements of feature maps per sample, and parameters.

With V_s the voxels and F_s the features of stage s, e_s and d_s its encoder and decoder blocks, C_in and C_out the
channels at both ends (the estimate of nnU-Net 2.8, which leaves out the input)::

    unet           sum_s e_s F_s V_s                              + sum_{s<last} (d_s + 1) F_s V_s + (C_in + C_out) V_0
    residual_unet  F_0 V_0 + sum_s (2 e_s + c_s) F_s V_s          + sum_{s<last} (d_s + 1) F_s V_s + (C_in + C_out) V_0

c_s is 1 where a shortcut needs a map of its own, which is where stage s halves an axis or changes the width. The + 1 of
a decoder stage is what comes up from below. Not counted: heads of deep supervision, weights, optimiser, workspace; the
presets' constants allow for these.
"""

import math

__all__ = ["COSTS", "count_elements", "count_parameters"]


def _unet_encoder(spec, volumes):
    return sum(e * f * v for e, f, v in zip(spec.encoder_blocks, spec.features, volumes, strict=True))


def _residual_encoder(spec, volumes):
    total = spec.features[0] * volumes[0]
    before = spec.features[0]
    for stride, blocks, width, volume in zip(spec.strides, spec.encoder_blocks, spec.features, volumes, strict=True):
        shortcut = width != before or max(stride) > 1
        total += (2 * blocks + shortcut) * width * volume
        before = width
    return total


COSTS = {"unet": _unet_encoder, "residual_unet": _residual_encoder}


def count_elements(spec, patch_size, *, inputs=None, outputs=None):
    """Elements of feature maps that training keeps for one sample; int.

    Args:
        spec: ``NetworkSpec``. A name that is not in ``COSTS`` is counted by the plain rule.
        patch_size: (3,) voxels, multiples of ``spec.divisor``.
        inputs, outputs: channels to count at either end; None for the network's own.
    """
    inputs = spec.in_channels if inputs is None else inputs
    outputs = spec.out_channels if outputs is None else outputs
    volumes, volume = [], math.prod(patch_size)
    for stride in spec.strides:
        volume //= math.prod(stride)
        volumes.append(volume)
    encoder = COSTS.get(spec.name, _unet_encoder)(spec, volumes)
    decoder = sum((d + 1) * f * v for d, f, v in zip(spec.decoder_blocks, spec.features, volumes, strict=False))
    return encoder + decoder + (inputs + outputs) * volumes[0]


def count_parameters(spec):
    """Trainable numbers of the networks ``unet`` and ``residual_unet``; int.

    Convolutions have a bias, each is followed by an affine instance normalisation; shortcuts that change the width have
    a 1 x 1 x 1 convolution without bias and a normalisation; upsampling is a transposed convolution with bias, its
    kernel the stride; every decoder stage has a 1 x 1 x 1 head with bias under deep supervision, else the finest alone.
    """
    encoder = _residual_encoder_parameters if spec.name == "residual_unet" else _unet_encoder_parameters
    total = encoder(spec)
    for stage, blocks in enumerate(spec.decoder_blocks):
        width, below, kernel = spec.features[stage], spec.features[stage + 1], spec.kernels[stage]
        total += math.prod(spec.strides[stage + 1]) * below * width + width
        total += _convolution(kernel, 2 * width, width) + (blocks - 1) * _convolution(kernel, width, width)
        if stage == 0 or spec.deep_supervision:
            total += (width + 1) * spec.out_channels
    return total


def _convolution(kernel, before, width):
    """Weights, bias, and the scale and shift of the normalisation."""
    return math.prod(kernel) * before * width + 3 * width


def _unet_encoder_parameters(spec):
    total, before = 0, spec.in_channels
    for kernel, blocks, width in zip(spec.kernels, spec.encoder_blocks, spec.features, strict=True):
        total += _convolution(kernel, before, width) + (blocks - 1) * _convolution(kernel, width, width)
        before = width
    return total


def _residual_encoder_parameters(spec):
    before = spec.features[0]
    total = _convolution(spec.kernels[0], spec.in_channels, before)
    for kernel, blocks, width in zip(spec.kernels, spec.encoder_blocks, spec.features, strict=True):
        total += _convolution(kernel, before, width) + (2 * blocks - 1) * _convolution(kernel, width, width)
        if width != before:
            total += before * width + 2 * width
        before = width
    return total
