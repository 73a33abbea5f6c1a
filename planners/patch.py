"""The patch, the network that suits it, and the batch, so that training fits into memory.

Start from a cube in millimetres no larger than the median case. While the feature maps exceed the budget, shorten the
edge that covers most of the case. The remaining memory goes into the batch, within limits set by the data.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from planners.attention import add_attention, explain_attention
from planners.axes import Triple, triple
from planners.cost import count_elements, count_parameters
from planners.fingerprint import Fingerprint
from planners.plan import Budget, Decision, NetworkSpec
from planners.presets import Preset
from planners.spacing import Grid, say
from planners.topology import MIN_EDGE, Topology, choose_features, choose_topology

__all__ = ["Fit", "explain_fit", "fit_patch"]

CUBE, SQUARE = 256**3, 2048**2  # voxels and pixels to start from; nnU-Net
BATCH_3D, BATCH_2D = 2, 12  # reference batches; nnU-Net
LEAST_BATCH = 2  # nnU-Net
DATA_SHARE = 0.05  # fraction of the data set's voxels in one batch; nnU-Net's classic planner
HARD_LIMIT = 4  # times the reference batch: README.md, "Batch"


@dataclass(frozen=True)
class Fit:
    """A patch and a batch with their network.

    ``elements`` is per sample, ``capacity`` the most for all samples of a batch together; ``limit`` says what limits the batch
    size.
    """

    patch: Triple
    batch_size: int
    network: NetworkSpec
    elements: int
    capacity: float
    limit: str


def fit_patch(fingerprint: Fingerprint, budget: Budget, preset: Preset, grid: Grid, *, slices: bool = False) -> Fit:
    """The largest patch within the budget, its network and its batch.

    Args:
        grid: ``Grid`` to work on.
        slices: True for 2D patches of depth 1.

    Returns:
        Fit. If even the smallest patch exceeds the budget, it is returned nevertheless, and ``explain_fit`` warns.

    Raises:
        ValueError: a budget without memory.
    """
    capacity = _capacity(budget, preset, slices)
    least = preset.least_batch_2d if slices else LEAST_BATCH
    # nnU-Net counts every entry of ``labels``, also the background of regions and ignore, and no input channels
    inputs, outputs = (0, fingerprint.n_labels) if budget.parity else (None, None)
    topology = choose_topology(grid.spacing_mm, _first_patch(grid, slices))
    network = _network(fingerprint, preset, budget, topology, slices)
    elements = count_elements(network, topology.patch, inputs=inputs, outputs=outputs)
    while elements * least > capacity and (smaller := _smaller(topology, grid)):
        topology = smaller
        network = _network(fingerprint, preset, budget, topology, slices)
        elements = count_elements(network, topology.patch, inputs=inputs, outputs=outputs)
    batch, limit = _batch(budget, preset, capacity / elements, grid.n_voxels / math.prod(topology.patch), slices)
    return Fit(topology.patch, batch, network, elements, capacity, limit)


def explain_fit(fit: Fit, grid: Grid, preset: Preset, budget: Budget) -> Iterator[Decision]:
    """Decisions about patch, network and batch."""
    gb = _memory_gb(budget, preset)
    numbers = f"{fit.elements / 1e6:.4g} M elements per sample, {fit.capacity / 1e6:.4g} M fit into {gb:g} GB"
    edges = [edge * mm for edge, mm in zip(fit.patch, grid.spacing_mm, strict=True)]
    yield Decision(
        "patch",
        f"{say(fit.patch)} voxels, {say(edges)} mm",
        "the largest whose feature maps fit into memory, at most the median case, rounded up to what pooling divides",
        f"median case {say(grid.median_shape)}; {numbers}",
    )
    pools = [round(math.log2(d)) for d in fit.network.divisor]
    encoder = "" if budget.parity else f" with a {fit.network.backbone} encoder"
    yield Decision(
        "network",
        f"{fit.network.name}{encoder}, {len(fit.network.features)} stages",
        "halve each axis while 4 voxels remain, those of coarse spacing later",
        f"halved {say(pools)} times, {count_parameters(fit.network) / 1e6:.2f} M parameters",
    )
    if not budget.parity:
        yield explain_attention(fit.network, fit.patch)
    yield Decision("batch size", str(fit.batch_size), fit.limit, numbers)
    if fit.elements * fit.batch_size > fit.capacity and not budget.parity:
        yield Decision(
            "memory",
            "may not suffice",
            "no smaller patch is left to try; give Budget.gpu_memory_gb more, or expect to run out of memory",
            numbers,
            warning=True,
        )


def _capacity(budget: Budget, preset: Preset, slices: bool) -> float:
    """Elements of a whole batch that fit into the budget."""
    reference = preset.elements_2d * BATCH_2D if slices else preset.elements_3d * BATCH_3D
    return reference * _memory_gb(budget, preset) / preset.memory_gb


def _memory_gb(budget: Budget, preset: Preset) -> float:
    gb = preset.memory_gb if budget.gpu_memory_gb is None else budget.gpu_memory_gb
    if gb <= 0:
        raise ValueError(f"Budget.gpu_memory_gb must be positive, found {gb}")
    return gb


def _first_patch(grid: Grid, slices: bool) -> tuple[float, float, float]:
    """A cube (or square) in millimetres with the volume of CUBE voxels, at most the median case."""
    axes = (1, 2) if slices else (0, 1, 2)
    volume_mm = (SQUARE if slices else CUBE) * math.prod(grid.spacing_mm[axis] for axis in axes)
    edge_mm = volume_mm ** (1 / len(axes))
    wanted = [max(1, round(edge_mm / grid.spacing_mm[axis])) if axis in axes else 1 for axis in range(3)]
    return triple(min(edge, median) for edge, median in zip(wanted, grid.median_shape, strict=True))


def _smaller(topology: Topology, grid: Grid) -> Topology | None:
    """The topology of the next smaller patch, or None. The edge that covers most of the median case goes first."""
    cover = [edge / median for edge, median in zip(topology.patch, grid.median_shape, strict=True)]
    for axis in sorted(range(3), key=lambda axis: (cover[axis], axis), reverse=True):
        step = topology.divisor[axis]
        if topology.patch[axis] - step < MIN_EDGE:
            continue
        full_step = _shortened(topology, grid, axis, step)
        # a shorter edge is often halved fewer times, so a smaller step is enough: 256 to 224 instead of 192
        small_step = _shortened(topology, grid, axis, full_step.divisor[axis])
        for smaller in (small_step, full_step):
            if math.prod(smaller.patch) < math.prod(topology.patch):  # padding may have undone the step
                return smaller
    return None


def _shortened(topology: Topology, grid: Grid, axis: int, step: int) -> Topology:
    patch = list(topology.patch)
    patch[axis] -= step
    return choose_topology(grid.spacing_mm, patch)


def _network(fingerprint: Fingerprint, preset: Preset, budget: Budget, topology: Topology, slices: bool) -> NetworkSpec:
    """The preset's network, with self-attention in default mode."""
    stages = len(topology.strides)
    blocks = preset.encoder_blocks
    spec = NetworkSpec(
        name=preset.network,
        in_channels=len(fingerprint.channels),
        out_channels=len(fingerprint.structures) + (0 if fingerprint.has_regions else 1),
        features=choose_features(stages, slices),
        strides=topology.strides,
        kernels=topology.kernels,
        encoder_blocks=tuple(blocks[min(stage, len(blocks) - 1)] for stage in range(stages)),
        decoder_blocks=(preset.decoder_blocks,) * (stages - 1),
        deep_supervision=stages > 2,  # two stages have one output, and nnU-Net's weights for one are 0 / 0
    )
    return spec if budget.parity else add_attention(spec, topology.patch)


def _batch(budget: Budget, preset: Preset, by_memory: float, patches_in_data: float, slices: bool) -> tuple[int, str]:
    """(batch size, what limits it)."""
    share = preset.data_share if budget.parity else DATA_SHARE
    limits = {
        "no more than fit into memory": round(by_memory) if budget.parity else math.floor(by_memory),
        f"at most {share:.0%} of the data set's voxels in one batch": round(share * patches_in_data),
    }
    if not budget.parity:
        reference = BATCH_2D if slices else BATCH_3D
        limits[f"at most {HARD_LIMIT} times the reference batch of {reference}"] = HARD_LIMIT * reference
    limit = min(limits, key=limits.__getitem__)
    least = LEAST_BATCH if budget.parity or by_memory >= LEAST_BATCH else 1
    if limits[limit] < least:
        return least, f"never fewer than {least}, although {limit}"
    return limits[limit], limit
