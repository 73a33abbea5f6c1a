"""The cost of a network: its weights, and the operations of one pass over a patch, including a restoration head.

Networks are built on torch's *meta* device, which has shapes but no numbers, so that counting takes neither memory nor
time. Convolutions and matrix products are counted, also within attention; a multiply-add is two operations. Normalisation,
activations, pooling and interpolation are left out: they cost memory traffic, not arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from autoseg.networks import build_network
from autoseg.networks.shapes import shapes_alone
from planners.plan import NetworkSpec

__all__ = ["NetworkCost", "match_operations", "measure_cost"]


@dataclass(frozen=True)
class NetworkCost:
    """Number of trainable parameters, and the operations of one forward pass over one patch."""

    parameters: int
    operations: int


def measure_cost(spec: NetworkSpec, patch: Sequence[int]) -> NetworkCost:
    """NetworkCost of the network of ``spec`` on a patch of (3,) voxels.

    Raises:
        PlanError: no network can be built from the spec, or it does not fit the patch.
    """
    with shapes_alone():
        network = build_network(spec).eval()
        image = torch.empty(1, spec.in_channels, *patch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image, restore=spec.restoration)
    return NetworkCost(sum(p.numel() for p in network.parameters()), counter.get_total_flops())


def match_operations(spec: NetworkSpec, patch: Sequence[int], operations: float) -> NetworkSpec:
    """The spec with all widths scaled by one factor, so that a forward pass costs as close to ``operations`` as possible.

    Widths are multiples of 8, and divisible among the attention heads. The factor is found by bisection, with a real count
    at each trial.
    """

    @cache  # widths are whole numbers, so close trials are the same network
    def excess(candidate: NetworkSpec) -> float:
        return math.log(measure_cost(candidate, patch).operations / operations)

    low, high = 1 / max(spec.features), 1.0
    while excess(spec.scaled(high)) < 0:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(spec.scaled(middle)) < 0 else (low, middle)
    return min(spec.scaled(low), spec.scaled(high), key=lambda candidate: abs(excess(candidate)))
