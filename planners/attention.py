"""Which stages of a self-attention U-Net have attention, and of which kind.

Both are chosen by cost, as a fraction of the multiply-adds of the backbone. Attention pays off in coarse stages, which have few
voxels with a large receptive field. The cost of full attention grows with the square of the number of voxels, that of slot
attention linearly (``autoseg/networks/attention.py``).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from planners.cost import attention_layers, count_elements, count_operations
from planners.plan import AttentionStage, Decision, NetworkSpec

__all__ = ["WHAT", "add_attention", "explain_attention"]

NAME = "self_attention_unet"
WHAT = "self-attention"  # subject of the decision
BACKBONES = {"unet": "plain", "residual_unet": "residual"}
COARSE, COARSE_IN_SMALL, SMALL = 4, 2, 64  # strides where attention begins; longest edge of a small patch, in voxels
TOTAL, FULL = 0.04, 0.015  # fractions of the backbone's operations: all blocks together, one block of full attention
HEAD, SLOTS = 32, 32  # channels of a head; slots for each head


def add_attention(spec: NetworkSpec, patch: Sequence[int]) -> NetworkSpec:
    """Make a U-Net the backbone of a self-attention U-Net.

    Args:
        spec: NetworkSpec of ``unet``, ``residual_unet`` or ``self_attention_unet``. For the last, the stages are chosen again.
        patch: (3,) voxels.

    Returns:
        NetworkSpec. Its attention is empty if no stage is cheap enough.
    """
    spec = replace(spec, name=NAME, backbone=BACKBONES.get(spec.name, spec.backbone), attention=())
    limit = count_operations(spec, patch)
    chosen = [entry for stage in _stages(spec, patch) if (entry := _entry(spec, patch, stage, limit))]
    while sum(_operations(spec, patch, entry) for entry in chosen) > TOTAL * limit:
        chosen.pop(0)  # the finest
    return replace(spec, attention=tuple(chosen))


def explain_attention(spec: NetworkSpec, patch: Sequence[int]) -> Decision:
    """The decision about self-attention."""
    backbone = replace(spec, attention=())
    operations, elements = count_operations(backbone, patch), count_elements(backbone, patch)
    parts = []
    for entry in spec.attention:
        slots = f" of {entry.slots} slots" if entry.slots else ""
        share = _operations(spec, patch, entry) / operations
        heads = f"{entry.heads} head{'s' * (entry.heads > 1)}"
        parts.append(f"stage {entry.stage} {entry.kind}, {heads}{slots}, {share:.2%} of operations")
    share = count_operations(spec, patch) / operations - 1
    more = count_elements(spec, patch) / elements - 1
    return Decision(
        WHAT,
        "; ".join(parts) or "none",
        f"behind the last encoder stage and those of stride {COARSE} or more ({COARSE_IN_SMALL} where the patch is at most "
        f"{SMALL} voxels across); full where that costs up to {FULL:.1%} of the backbone's operations, else by slots; without "
        f"the finest stages until all cost at most {TOTAL:.0%}",
        f"together {share:.2%} of {operations / 1e9:.4g} G multiply-adds, {more:.1%} more elements",
    )


def _stages(spec: NetworkSpec, patch: Sequence[int]) -> Iterator[int]:
    """Indices of the stages that may have attention, finest first. Stages of a single voxel are left out."""
    begin = COARSE_IN_SMALL if max(patch) <= SMALL else COARSE
    for stage in range(len(spec.features)):
        reached = [math.prod(stride[axis] for stride in spec.strides[: stage + 1]) for axis in range(3)]
        if (max(reached) >= begin or stage == len(spec.features) - 1) and _voxels(spec, patch, stage) > 1:
            yield stage


def _entry(spec: NetworkSpec, patch: Sequence[int], stage: int, limit: float) -> AttentionStage | None:
    """Full attention if it is cheap or costs no more than slots, else slots; None if no number of heads fits the features."""
    heads = _heads(spec.features[stage])
    if heads is None:
        return None
    full, slot = AttentionStage(stage, "full", heads), AttentionStage(stage, "slot", heads, SLOTS)
    most = max(FULL * limit, _operations(spec, patch, slot))
    return full if _operations(spec, patch, full) <= most else slot


def _heads(width: int) -> int | None:
    """Number of heads for half of ``width`` features: HEAD channels each, or the nearest smaller number that divides them; a
    multiple of 8 if possible."""
    inner = width // 2
    sizes = [d for d in range(min(HEAD, inner), 1, -1) if d % 2 == 0 and width % 2 == 0 and inner % d == 0]
    sizes.sort(key=lambda d: d % 8 > 0)
    return inner // sizes[0] if sizes else None


def _voxels(spec: NetworkSpec, patch: Sequence[int], stage: int) -> int:
    return math.prod(patch) // math.prod(math.prod(stride) for stride in spec.strides[: stage + 1])


def _operations(spec: NetworkSpec, patch: Sequence[int], entry: AttentionStage) -> int:
    voxels = _voxels(spec, patch, entry.stage)
    return sum(layer.operations for layer in attention_layers(entry, spec.features[entry.stage], voxels))
