"""Self-attention over the voxels of a feature map, as a gated addition: ``x -> x + gate * merge(attend(x))``.

Tokens are the voxels, N of them, projected to queries, keys and values of half as many channels (as in Wang et al. 2018),
which are shared among heads, d for each, and divided by their root mean square over these d. Of the two kinds of attention,
*full* lets every voxel look at every voxel, with N x N weights. *Slot* attention has M learned slots W and two steps,
linear in N::

    A = softmax over the voxels of W k^T            gather: a slot's descriptor of the volume is A v
    y = softmax over the slots of q keys^T values   broadcast: keys and values are linear in the descriptors

The softmax of the gather runs over the voxels. Over the slots it would mix no space: each voxel would see itself alone.

Prior art: External Attention (Guo et al. 2021, arXiv 2105.02358) has learned slots as a memory that all voxels read;
A2-Nets (Chen et al. 2018, arXiv 1810.11579) gather descriptors of the whole image and distribute them to the voxels; the
inducing points of the Set Transformer (Lee et al. 2019, arXiv 1810.00825) are learned slots between two attention steps,
as here. Unlike there, a slot is not added to what it gathers: what voxels read comes from the volume alone.

Why it is built this way: normalised queries and keys bound the scores in bfloat16 (Henry et al. 2020; Dehghani et al. 2023);
with normalised values all voxels have one vote, whatever the scale of the features. The softmax is in float32. The gate, one
number per channel, starts at zero, so that a fresh block is the identity; it multiplies the weights of ``merge``, not the
maps. There is no multilayer perceptron: convolutions follow.

Full attention knows positions by rotations of queries and keys (RoPE: Su et al. 2021), each axis with a share of the channels
and voxels of the stage as its unit, so that any patch will do. Slots have positions from what stands before them, since
convolutions with zero padding tell the rim from the middle (Islam et al. 2020). A convolution of their own for that
(Chu et al. 2021) would cost more time on a CPU than the rest of the block.

Maps stay channels first, (B, heads, d, N): no copy into another order, and the softmax over voxels runs along memory. Slot
attention is therefore written as plain products: on a CPU torch's ``scaled_dot_product_attention`` takes 1.1 to 1.2 times their
time in bfloat16, 0.84 to 1.12 times in float32. Full attention uses it, since it keeps no N x N weights: 0.56 times the time of
products for 1280 voxels, 1.05 to 1.27 times for 175, where either takes few milliseconds (``benchmarks/attention.py``).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["FullAttention", "GatedAttention", "SlotAttention", "attention_blocks", "rotary_angles"]

BASE = 100  # longest wavelength of the rotations, in units of 2 pi voxels; the shortest is 1


def rms_normalise(x: torch.Tensor, dim: int) -> torch.Tensor:
    """``x`` divided by its root mean square along ``dim``."""
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + 1e-6).to(x.dtype)


def softmax(scores: torch.Tensor, dim: int) -> torch.Tensor:
    """In float32, returned in the format of ``scores``."""
    return torch.softmax(scores, dim, dtype=torch.float32).to(scores.dtype)


def project(weight: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """(outputs, inputs) weights times (B, inputs, N) maps."""
    return torch.bmm(weight.expand(len(maps), -1, -1), maps)


class GatedAttention(nn.Module):
    """What both kinds share: (B, C, z, y, x) -> the same shape.

    A kind has ``attend(q, k, v, grid)``, all maps (B, heads, d, N) with d = C / 2 / heads; grid is (z, y, x).

    Args:
        width: C, a multiple of ``2 * heads``.
        heads: attentions side by side.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.d = heads, width // 2 // heads
        self.project = nn.Linear(width, 3 * heads * self.d, bias=False)
        self.merge = nn.Linear(heads * self.d, width, bias=False)
        self.scale = nn.Parameter(torch.ones(self.d))  # of the scores, per channel
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads_of(x)
        y = self.attend(q, k, v, x.shape[2:]).flatten(1, 2)
        return x + project(self.gate[:, None] * self.merge.weight, y).unflatten(2, x.shape[2:])

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        """What the voxels read, (B, heads, d, N)."""
        raise NotImplementedError

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, (B, heads, d, N) each, normalised."""
        return rms_normalise(project(self.project.weight, x.flatten(2)).unflatten(1, (3, self.heads, self.d)), 3).unbind(1)


class SlotAttention(GatedAttention):
    """Slots gather descriptors over the voxels, voxels read them; ``slots`` of them for each head."""

    def __init__(self, width: int, heads: int, slots: int) -> None:
        super().__init__(width, heads)
        self.slots = nn.Parameter(torch.randn(heads, slots, self.d))
        self.describe = nn.Linear(self.d, 2 * self.d, bias=False)

    def weights(self, k: torch.Tensor) -> torch.Tensor:
        """(B, heads, slots, N): where each slot looks; the sum over voxels is 1."""
        return softmax(self.slots * self.d**-0.5 @ k, 3)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        keys, values = self.describe(self.weights(k) @ v.transpose(2, 3)).chunk(2, 3)
        keys = rms_normalise(keys, 3) * (self.scale * self.d**-0.5)
        return values.transpose(2, 3) @ softmax(keys @ q, 2)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """(B, heads * slots, z, y, x): ``weights`` on the grid of the features ``x`` that enter the block."""
        _, k, _ = self.heads_of(x)
        return self.weights(k).flatten(1, 2).unflatten(2, x.shape[2:])


class FullAttention(GatedAttention):
    """Every voxel looks at every voxel; ``axes`` are those of more than one voxel, the only ones with positions."""

    def __init__(self, width: int, heads: int, axes: tuple[int, ...]) -> None:
        super().__init__(width, heads)
        self.axes = axes

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        angles = rotary_angles(grid, self.axes, self.d // 2, q.device)
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        q, k = rotate(q * self.scale[:, None].to(q.dtype), cos, sin), rotate(k, cos, sin)
        q, k, v = (t.transpose(2, 3).contiguous() for t in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v)
        return y.transpose(2, 3)


def rotary_angles(grid: Sequence[int], axes: Sequence[int], pairs: int, device: torch.device | None = None) -> torch.Tensor:
    """(pairs, N) angles of the voxels of a grid: for each of ``axes`` an equal share of pairs of channels, the rest zero."""
    share = pairs // max(1, len(axes))
    frequencies = BASE ** (-torch.arange(share, device=device) / max(1, share))
    rows = [torch.zeros(pairs - share * len(axes), *grid, device=device)]
    for axis in axes:
        form = [-1 if a == axis else 1 for a in range(3)]
        position = torch.arange(grid[axis], device=device).reshape(form).expand(*grid)
        rows.append(frequencies[:, None, None, None] * position)
    return torch.cat(rows).flatten(1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(B, heads, d, N) with channels i and i + d / 2 turned as a pair."""
    first, second = x.chunk(2, 2)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), 2)


def attention_blocks(network: nn.Module) -> list[GatedAttention]:
    """The blocks of self-attention in ``network``, in its order."""
    return [module for module in network.modules() if isinstance(module, GatedAttention)]
