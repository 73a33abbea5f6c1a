"""Self-attention over the voxels of a feature map, as a gated addition: ``x -> x + gate * merge(attend(x))``.

Tokens are the N voxels, projected to queries, keys and values of half as many channels (as in Wang et al. 2018). The channels
are divided among heads, d for each, and normalised by their root mean square over these d. There are two kinds of attention. In
*full* attention every voxel attends to every voxel, with N x N weights. *Slot* attention has M learned slots W and two
steps, linear in N::

    A = softmax over the voxels of W k^T            gather: a slot's descriptor of the volume is A v
    y = softmax over the slots of q keys^T values   broadcast: keys and values are linear in the descriptors

The softmax of the gather runs over the voxels. Over the slots it would not mix positions: each voxel would see only itself.

Prior art: External Attention (Guo et al. 2021, arXiv 2105.02358) has learned slots as a memory that all voxels read;
A2-Nets (Chen et al. 2018, arXiv 1810.11579) gather descriptors of the whole image and distribute them to the voxels; the
inducing points of the Set Transformer (Lee et al. 2019, arXiv 1810.00825) are learned slots between two attention steps,
as here. Unlike there, a slot is not added to what it gathers: voxels read only information from the volume.

Why it is built this way: normalised queries and keys bound the scores in bfloat16 (Henry et al. 2020; Dehghani et al. 2023);
with normalised values all voxels have equal weight, whatever the scale of the features. The softmax is in float32. The gate,
one number per channel, starts at zero, so that a new block is the identity; it multiplies the weights of ``merge``, not the
maps. There is no multilayer perceptron: convolutions follow.

Full attention encodes positions by rotating queries and keys (RoPE: Su et al. 2021). Each axis has a part of the channels, in
units of the stage's voxels, so that any patch size works. Slots get positions from the layers before them, since convolutions
with zero padding distinguish the border from the middle (Islam et al. 2020). An additional convolution for positions (Chu et
al. 2021) would cost more time on a CPU than the rest of the block.

Maps stay channels first, (B, heads, d, N): nothing is copied into another order, and the softmax over voxels runs along memory.
Slot attention is therefore written as plain products: on a CPU torch's ``scaled_dot_product_attention`` takes 1.1 to 1.2 times
as long in bfloat16, 0.84 to 1.12 times in float32. Full attention uses it, because it keeps no N x N weights: it takes 0.56
times as long as products for 1280 voxels, 1.05 to 1.27 times for 175, where both take few milliseconds
(``benchmarks/attention.py``).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["FullAttention", "GatedAttention", "SlotAttention", "attention_blocks", "rotary_angles"]

BASE = 100  # longest wavelength of the rotations, in units of 2 pi voxels; the shortest is 1


def rms_normalise(x: torch.Tensor) -> torch.Tensor:
    """``x`` divided by its root mean square along axis 3."""
    return x * torch.rsqrt(x.square().mean(3, keepdim=True) + 1e-6).to(x.dtype)


def softmax(scores: torch.Tensor, dim: int) -> torch.Tensor:
    """Softmax in float32, returned in the number format of ``scores``."""
    return torch.softmax(scores, dim, dtype=torch.float32).to(scores.dtype)


def project(weight: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """(outputs, inputs) weights times (B, inputs, N) maps."""
    return torch.bmm(weight.expand(len(maps), -1, -1), maps)


class GatedAttention(nn.Module):
    """The common part of both kinds: (B, C, z, y, x) -> the same shape.

    A kind has ``attend(q, k, v, grid)``, all maps (B, heads, d, N) with d = C / 2 / heads; grid is (z, y, x).

    Args:
        width: C, a multiple of ``2 * heads``.
        heads: number of attention heads.
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
        """The output of attention for each voxel, (B, heads, d, N)."""
        raise NotImplementedError

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, (B, heads, d, N) each, normalised."""
        return rms_normalise(project(self.project.weight, x.flatten(2)).unflatten(1, (3, self.heads, self.d))).unbind(1)


class SlotAttention(GatedAttention):
    """Slots gather descriptors over the voxels, and voxels read them; ``slots`` slots for each head."""

    def __init__(self, width: int, heads: int, slots: int) -> None:
        super().__init__(width, heads)
        self.slots = nn.Parameter(torch.randn(heads, slots, self.d))
        self.describe = nn.Linear(self.d, 2 * self.d, bias=False)

    def weights(self, k: torch.Tensor) -> torch.Tensor:
        """(B, heads, slots, N): the attention of each slot; the sum over voxels is 1."""
        return softmax(self.slots * self.d**-0.5 @ k, 3)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        keys, values = self.describe(self.weights(k) @ v.transpose(2, 3)).chunk(2, 3)
        keys = rms_normalise(keys) * (self.scale * self.d**-0.5)
        return values.transpose(2, 3) @ softmax(keys @ q, 2)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """(B, heads * slots, z, y, x): ``weights`` on the grid of the block's input features ``x``."""
        _, k, _ = self.heads_of(x)
        return self.weights(k).flatten(1, 2).unflatten(2, x.shape[2:])


class FullAttention(GatedAttention):
    """Every voxel attends to every voxel. ``axes`` are those of more than one voxel; only these have positions."""

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
    """(pairs, N) angles of the voxels of a grid: each of ``axes`` has an equal number of channel pairs, the rest are zero."""
    share = pairs // max(1, len(axes))
    frequencies = BASE ** (-torch.arange(share, device=device) / max(1, share))
    rows = [torch.zeros(pairs - share * len(axes), *grid, device=device)]
    for axis in axes:
        form = [-1 if a == axis else 1 for a in range(3)]
        position = torch.arange(grid[axis], device=device).reshape(form).expand(*grid)
        rows.append(frequencies[:, None, None, None] * position)
    return torch.cat(rows).flatten(1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(B, heads, d, N) with channels i and i + d / 2 rotated as a pair."""
    first, second = x.chunk(2, 2)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), 2)


def attention_blocks(network: nn.Module) -> list[GatedAttention]:
    """The self-attention blocks of ``network``, in order."""
    return [module for module in network.modules() if isinstance(module, GatedAttention)]
