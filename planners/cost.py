"""The cost of a network by arithmetic: multiply-adds, parameters, and elements of feature maps that training keeps.

Every network is a list of layers, each with a cost. Elements are counted as nnU-Net 2.8 does: one map for each convolution, one
for each upsampled map, and the input and output. Training really keeps two maps for each convolution, before and after its
normalisation, which is twice the elements counted; any other map that it keeps counts as half. The presets' constants allow
for that, and for heads of deep supervision, weights, optimiser and workspace. V_s and F_s are the voxels and features of
stage s, e_s and d_s its encoder and decoder blocks, C_in and C_out the input and output channels::

    unet           sum_s e_s F_s V_s                              + sum_{s<last} (d_s + 1) F_s V_s + (C_in + C_out) V_0
    residual_unet  F_0 V_0 + sum_s (2 e_s + c_s) F_s V_s          + sum_{s<last} (d_s + 1) F_s V_s + (C_in + C_out) V_0

c_s is 1 where a shortcut needs a map of its own: where stage s halves an axis or changes the width. The layers of the other
networks are listed below; ``tests/contracts/test_costs.py`` compares all of them with what the built network keeps.

If there are more logits than features in the finest stage, C_out is 0 in the networks of ``POSTPONING``: the loss computes
these logits a few slices at a time (autoseg/networks/scores.py), so memory does not grow with the number of structures.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from planners.axes import Triple, triple
from planners.plan import AttentionStage, NetworkSpec

__all__ = ["LAYERS", "attention_layers", "count_elements", "count_operations", "count_parameters", "prefers_lazy_logits"]

# Dilated networks: the numbers of autoseg/networks/dilated.py, deeplabv3.py and pspnet.py
STAGES, FINEST_STRIDE, ATROUS_WIDTH, PYRAMID_WIDTH = 6, 8, 256, 512
ATROUS, PARTS = 3, (2, 3, 6)
RESTORATION_WIDTH, RESTORATION_BLOCKS, RESTORATION_MIXED = 64, 4, 8  # of autoseg/networks/heads.py
# Networks whose last layer computes logits on the grid of the image
POSTPONING = {"self_attention_unet", "unet", "residual_unet", "segnet", "unet_plus_plus", "attention_gate_unet"}


@dataclass(frozen=True)
class Layer:
    """Multiply-adds, parameters and elements of one layer, for one sample."""

    operations: int
    parameters: int
    elements: int


def count_elements(
    spec: NetworkSpec, patch_size: Sequence[int], *, inputs: int | None = None, outputs: int | None = None
) -> int:
    """Elements of feature maps that training keeps for one sample; int.

    Args:
        spec: ``NetworkSpec``. A name that is not in ``LAYERS`` is counted as a plain U-Net.
        patch_size: (3,) voxels, multiples of ``spec.divisor``.
        inputs, outputs: input and output channels to count; None for those of the network that training keeps.
    """
    inputs = spec.in_channels if inputs is None else inputs
    outputs = outputs if outputs is not None else 0 if prefers_lazy_logits(spec) else spec.out_channels
    return sum(layer.elements for layer in _layers(spec, patch_size)) + (inputs + outputs) * math.prod(patch_size)


def prefers_lazy_logits(spec: NetworkSpec, networks: int = 1) -> bool:
    """Whether ``networks`` networks together have fewer features than logits, so that computing logits piece by piece saves
    memory."""
    return spec.name in POSTPONING and networks * spec.features[0] < spec.out_channels


def count_operations(spec: NetworkSpec, patch_size: Sequence[int]) -> int:
    """Multiply-adds of convolutions and attention in one forward pass of one sample, with all heads; int.

    A restoration head is counted on the same patch, as in prediction; its training uses smaller patches.
    """
    return sum(layer.operations for layer in _layers(spec, patch_size))


def count_parameters(spec: NetworkSpec) -> int:
    """Number of trainable parameters; int."""
    return sum(layer.parameters for layer in _layers(spec, spec.divisor))


def attention_layers(entry: AttentionStage, width: int, voxels: int) -> Iterator[Layer]:
    """The two steps of one ``AttentionStage`` on a grid of ``voxels`` voxels: projections, attention."""
    inner = width // 2
    d = inner // entry.heads
    yield Layer(4 * inner * width * voxels, 4 * inner * width + width + d, (6 * inner + width) * voxels // 2)
    if entry.kind == "full":
        yield Layer(2 * voxels**2 * inner, 0, 3 * inner * voxels // 2)
    else:
        scores = entry.heads * entry.slots
        describe = 2 * d * d
        operations = 4 * entry.slots * inner * voxels + scores * describe
        yield Layer(operations, scores * d + describe, (4 * scores + inner) * voxels // 2)


def _layers(spec: NetworkSpec, patch_size: Sequence[int]) -> list[Layer]:
    layers = list(LAYERS.get(spec.name, _unet)(spec, patch_size))
    return [*layers, *_restoration(spec, patch_size)] if spec.restoration else layers


def _restoration(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    """The restoration head, as in autoseg/networks/heads.py. It has no normalisation, so every map is kept once."""
    deep = any(kernel[0] > 1 for kernel in spec.kernels)
    kernel, stride = ((3, 3, 3), (2, 2, 2)) if deep else ((1, 3, 3), (1, 2, 2))
    voxels, coarse = math.prod(patch_size), math.prod(-(-edge // s) for edge, s in zip(patch_size, stride, strict=True))
    channels, width, mixed = spec.in_channels, RESTORATION_WIDTH, RESTORATION_MIXED
    inputs = mixed + 2 * channels + spec.features[0]
    convolutions = (
        (stride, channels + 1, width, coarse),
        *[(kernel, width, width, coarse)] * (2 * RESTORATION_BLOCKS),
        (kernel, inputs, mixed, voxels),
        (kernel, mixed, channels, voxels),
    )
    for shape in convolutions:
        yield replace(_convolution(*shape, norm=False), elements=0)
    yield replace(_up(width, mixed, stride, coarse * math.prod(stride)), elements=0)
    on_fine, on_coarse = channels + 1 + inputs + mixed, (1 + 2 * RESTORATION_BLOCKS) * width
    yield Layer(0, 0, (on_fine * voxels + on_coarse * coarse) // 2)


def _volumes(strides: Sequence[Triple], patch_size: Sequence[int]) -> list[int]:
    """Voxels of each stage."""
    volumes, volume = [], math.prod(patch_size)
    for stride in strides:
        volume //= math.prod(stride)
        volumes.append(volume)
    return volumes


def _convolution(kernel: Sequence[int], before: int, width: int, voxels: int, *, bias: bool = True, norm: bool = True) -> Layer:
    """A convolution, with the scale and shift of the normalisation that follows it."""
    weights = math.prod(kernel) * before * width
    return Layer(weights * voxels, weights + (bias + 2 * norm) * width, width * voxels)


def _stack(kernel: Triple, before: int, width: int, voxels: int, blocks: int) -> Iterator[Layer]:
    yield _convolution(kernel, before, width, voxels)
    for _ in range(blocks - 1):
        yield _convolution(kernel, width, width, voxels)


def _head(width: int, classes: int, voxels: int) -> Layer:
    """An output head. Its map is counted once, at the end of the network."""
    return replace(_convolution((1,), width, classes, voxels, norm=False), elements=0)


def _up(below: int, width: int, stride: Triple, voxels: int) -> Layer:
    """A transposed convolution with bias; its kernel equals its stride. ``voxels`` is the size of its result."""
    weights = math.prod(stride) * below * width
    return Layer(below * width * voxels, weights + width, width * voxels)


def _plain_encoder(spec: NetworkSpec, volumes: Sequence[int]) -> Iterator[Layer]:
    before = spec.in_channels
    for kernel, blocks, width, voxels in zip(spec.kernels, spec.encoder_blocks, spec.features, volumes, strict=True):
        yield from _stack(kernel, before, width, voxels, blocks)
        before = width


def _residual_encoder(spec: NetworkSpec, volumes: Sequence[int]) -> Iterator[Layer]:
    """Shortcuts that change the width have a 1 x 1 x 1 convolution without bias and a normalisation."""
    before = spec.features[0]
    yield _convolution(spec.kernels[0], spec.in_channels, before, volumes[0])
    stages = zip(spec.strides, spec.kernels, spec.encoder_blocks, spec.features, volumes, strict=True)
    for stride, kernel, blocks, width, voxels in stages:
        yield from _stack(kernel, before, width, voxels, 2 * blocks)
        if width != before:
            yield _convolution((1,), before, width, voxels, bias=False)
        elif max(stride) > 1:
            yield Layer(0, 0, width * voxels)
        before = width


def _decoder(spec: NetworkSpec, volumes: Sequence[int]) -> Iterator[Layer]:
    """With deep supervision every stage has a head, else only the finest."""
    for s, blocks in enumerate(spec.decoder_blocks):
        width = spec.features[s]
        yield _up(spec.features[s + 1], width, spec.strides[s + 1], volumes[s])
        yield from _stack(spec.kernels[s], 2 * width, width, volumes[s], blocks)
    for s in range(max(1, len(spec.decoder_blocks)) if spec.deep_supervision else 1):
        yield _head(spec.features[s], spec.out_channels, volumes[s])


def _unet(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    volumes = _volumes(spec.strides, patch_size)
    yield from _plain_encoder(spec, volumes)
    yield from _decoder(spec, volumes)


def _residual_unet(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    volumes = _volumes(spec.strides, patch_size)
    yield from _residual_encoder(spec, volumes)
    yield from _decoder(spec, volumes)


def _self_attention_unet(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    yield from (_residual_unet if spec.backbone == "residual" else _unet)(spec, patch_size)
    volumes = _volumes(spec.strides, patch_size)
    for entry in spec.attention:
        yield from attention_layers(entry, spec.features[entry.stage], volumes[entry.stage])


def _attention_gate_unet(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    """Gates on all skips except the finest, computed on the next coarser grid."""
    yield from _unet(spec, patch_size)
    volumes = _volumes(spec.strides, patch_size)
    skips = len(spec.features) - 1
    for s in range(min(1, max(0, skips - 1)), skips):
        width, below, coarse = spec.features[s], spec.features[s + 1], volumes[s + 1]
        middle = max(1, width // 2)
        yield _convolution(spec.strides[s + 1], width, middle, coarse, bias=False, norm=False)
        yield _convolution((1,), below, middle, coarse, norm=False)
        yield _convolution((1,), middle, 1, coarse, norm=False)


def _unet_plus_plus(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    """Node (i, j) keeps its j + 1 concatenated inputs. Of the two that a U-Net concatenates, one is counted."""
    volumes, depth = _volumes(spec.strides, patch_size), len(spec.features) - 1
    yield from _plain_encoder(spec, volumes)
    for i in range(depth):
        width, voxels = spec.features[i], volumes[i]
        for j in range(1, depth - i + 1):
            yield _up(spec.features[i + 1], width, spec.strides[i + 1], voxels)
            yield Layer(0, 0, (j - 1) * width * voxels // 2)
            yield from _stack(spec.kernels[i], (j + 1) * width, width, voxels, spec.decoder_blocks[i])
    for _ in range(max(1, depth) if spec.deep_supervision else 1):
        yield replace(_head(spec.features[0], spec.out_channels, volumes[0]), elements=0)


def _fcn(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    """Logits of the coarse stages, upsampled by transposed convolutions whose kernel is twice the stride."""
    volumes, classes = _volumes(spec.strides, patch_size), spec.out_channels
    yield from _plain_encoder(spec, volumes)
    reached = [max(math.prod(s[axis] for s in spec.strides[: stage + 1]) for axis in range(3)) for stage in range(len(volumes))]
    coarse = next((stage for stage, stride in enumerate(reached) if stride >= FINEST_STRIDE), len(volumes))
    finest = max(0, min(coarse, len(volumes) - 3))
    for s in range(finest, len(volumes)):
        yield _convolution((1,), spec.features[s], classes, volumes[s], norm=False)
        if s > finest:
            kernel = [2 * step - step % 2 for step in spec.strides[s]]
            weights = math.prod(kernel) * classes**2
            yield Layer(weights * volumes[s], weights, classes * volumes[s - 1])


def _segnet(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    """Pooled maps; their indices of eight bytes, which count as two maps in float32; unpooled maps."""
    volumes, features = _volumes(spec.strides, patch_size), spec.features
    yield from _plain_encoder(spec, volumes)
    for s, blocks in enumerate(spec.decoder_blocks):
        yield Layer(0, 0, 3 * features[s] * volumes[s + 1] // 2)
        yield _convolution(spec.kernels[s + 1], features[s + 1], features[s], volumes[s + 1])
        yield Layer(0, 0, features[s] * volumes[s] // 2)
        yield from _stack(spec.kernels[s], features[s], features[s], volumes[s], blocks)
    for s in range(max(1, len(spec.decoder_blocks)) if spec.deep_supervision else 1):
        yield _head(features[s], spec.out_channels, volumes[s])


def _dilated_encoder(spec: NetworkSpec, patch_size: Sequence[int]) -> tuple[list[Layer], int, NetworkSpec]:
    """(layers, voxels of the coarsest grid, spec): at most STAGES stages, strides up to FINEST_STRIDE, later stages dilated."""
    strides, kept, reached = spec.strides[:STAGES], [], (1, 1, 1)
    for stage, stride in enumerate(strides):
        last = len(strides) > 2 and stage == len(strides) - 1
        stays = triple(1 if last or r * s > FINEST_STRIDE else s for r, s in zip(reached, stride, strict=True))
        reached = triple(r * k for r, k in zip(reached, stays, strict=True))
        kept.append(stays)
    short = replace(
        spec,
        features=spec.features[:STAGES],
        strides=tuple(kept),
        kernels=spec.kernels[:STAGES],
        encoder_blocks=spec.encoder_blocks[:STAGES],
        decoder_blocks=spec.decoder_blocks[: STAGES - 1],
        attention=(),
    )
    volumes = _volumes(kept, patch_size)
    return list(_residual_encoder(short, volumes)), volumes[-1], short


def _image_branch(inputs: int, middle: int, outputs: int) -> Layer:
    return Layer(0, (inputs + 1) * middle + middle * outputs, 0)


def _deeplabv3(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    layers, voxels, short = _dilated_encoder(spec, patch_size)
    yield from layers
    inputs, kernel = short.features[-1], short.kernels[-1]
    width = min(ATROUS_WIDTH, inputs)
    yield _convolution((1,), inputs, width, voxels)
    for _ in range(ATROUS):
        yield _convolution(kernel, inputs, width, voxels)
    yield _convolution((1,), (ATROUS + 1) * width, width, voxels)
    yield _image_branch(inputs, width, width)
    yield _head(width, spec.out_channels, voxels)


def _pspnet(spec: NetworkSpec, patch_size: Sequence[int]) -> Iterator[Layer]:
    layers, voxels, short = _dilated_encoder(spec, patch_size)
    yield from layers
    inputs, kernel = short.features[-1], short.kernels[-1]
    width, share = min(PYRAMID_WIDTH, inputs), max(1, inputs // (len(PARTS) + 1))
    for parts in PARTS:
        yield replace(_convolution((1,), inputs, share, min(voxels, parts**3)), elements=share * voxels)
    yield Layer(0, 0, inputs * voxels)
    yield _convolution(kernel, inputs + len(PARTS) * share, width, voxels)
    yield _image_branch(inputs, share, width)
    yield _head(width, spec.out_channels, voxels)


LAYERS: dict[str, Callable[[NetworkSpec, Sequence[int]], Iterator[Layer]]] = {
    "self_attention_unet": _self_attention_unet,
    "unet": _unet,
    "residual_unet": _residual_unet,
    "fcn": _fcn,
    "segnet": _segnet,
    "deeplabv3": _deeplabv3,
    "pspnet": _pspnet,
    "unet_plus_plus": _unet_plus_plus,
    "attention_gate_unet": _attention_gate_unet,
}
