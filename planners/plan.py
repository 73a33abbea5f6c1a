"""The result of planning: the Plan, its NetworkSpec, the Budget, and a Decision for every choice.

Every tuple with one entry per axis is in *network order*: the axes of the canonical (z, y, x) array, permuted by
``Plan.axis_order`` so that the coarsest comes first. 2D is depth 1 (patch (1, Y, X), strides (1, 2, 2), kernels
(1, 3, 3)). A plan is stored as JSON and may be edited by hand; ``planners.records.from_json`` checks it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from planners.axes import Triple, triple
from planners.names import fault_of_name
from planners.records import added, schema_number

__all__ = ["AttentionStage", "Budget", "ChannelNormalization", "CoarseLabels", "Decision", "NetworkSpec", "Plan", "Resampling"]

SCHEMA = 3  # 2: fields for imported nnU-Net models; 3: cascades
# (field, least, most) of each entry; the most is beyond any real network, but still fits into memory
LIMITS = (
    ("features", 1, 65536),
    ("strides", 1, 64),
    ("kernels", 1, 63),
    ("encoder_blocks", 0, 256),
    ("decoder_blocks", 0, 256),
)
WIDTH_STEP = 8  # scaled widths are multiples of this, for vector units and tensor cores


@dataclass(frozen=True)
class Budget:
    """What the planner may spend.

    ``gpu_memory_gb`` None means the preset's reference. ``parity`` True reproduces the numbers of nnU-Net's planners
    exactly, including their flaws.
    """

    gpu_memory_gb: float | None = None
    parity: bool = False


@dataclass(frozen=True)
class Decision:
    """One choice: what was chosen, by which rule, and from which numbers. Each is a sentence or a short phrase."""

    what: str
    chosen: str
    rule: str
    numbers: str = ""
    warning: bool = False


@dataclass(frozen=True)
class ChannelNormalization:
    """How the intensities of one channel are normalised.

    ``scheme`` is a key of ``autoseg.preprocess.normalize.NORMALIZATIONS``. ``lower``, ``upper``, ``mean`` and ``std``
    are foreground statistics of the data set in scanner units (used by the CT schemes). The network's first
    operation is ``(x - input_mean) / input_std`` on the stored intensities. With ``use_mask`` only non-zero voxels
    count; with ``fill_holes`` also the zero voxels that they enclose.
    """

    channel: str
    scheme: str
    lower: float = 0.0
    upper: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    use_mask: bool = False
    input_mean: float = 0.0
    input_std: float = 1.0
    fill_holes: bool = added(2, False)


@dataclass(frozen=True)
class Resampling:
    """Spline orders of resampling; 0 nearest, 1 linear, 3 cubic.

    The ``coarse_*`` orders apply only along the coarsest axis, if its spacing exceeds ``coarse_ratio`` times the finest
    (of the current grid, else of the new one) and no other axis is as coarse. Cubic splines overshoot at edges; with
    ``clip`` the image is clipped to its range of intensities, slice by slice if the coarse axis has another order.
    """

    image_order: int = 3
    label_order: int = 1
    logits_order: int = 1
    coarse_image_order: int = 0
    coarse_label_order: int = 0
    coarse_logits_order: int = 1
    coarse_ratio: float = 3.0
    clip: bool = added(2, False)


@dataclass(frozen=True)
class CoarseLabels:
    """An additional input: the labels that the coarse stage of a cascade predicts for the same scan.

    Its label codes 1 to ``count`` become as many channels after those of the image: 1 where the label has that code, else 0.
    ``plan`` is the name of the coarse stage's plan.
    """

    plan: str
    count: int

    def __post_init__(self) -> None:
        if fault := fault_of_name(self.plan):
            raise ValueError(f"coarse labels need the plan they come from, found {self.plan!r}: {fault}")
        if self.count < 1:
            raise ValueError(f"coarse labels need at least one code, found {self.count}")


@dataclass(frozen=True)
class AttentionStage:
    """Self-attention after the last block of encoder stage ``stage``. Its ``heads`` divide half of the stage's features.

    ``kind`` is ``slot`` (cost linear in the voxels; ``slots`` for each head) or ``full`` (every voxel attends to every voxel;
    ``slots`` is 0).
    """

    stage: int
    kind: str
    heads: int
    slots: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("slot", "full"):
            raise ValueError(f"attention kind must be slot or full, found {self.kind!r}")
        if self.stage < 0 or self.heads < 1 or (self.slots < 1) == (self.kind == "slot"):
            raise ValueError(f"attention needs a stage, heads, and slots where it is of kind slot only; found {self}")


@dataclass(frozen=True)
class NetworkSpec:
    """The parameters of a network. Entry s of a tuple is stage s, finest first; always three axes.

    Attributes:
        name: a key of ``autoseg.networks.NETWORKS``.
        in_channels, out_channels: image channels; classes with background, or regions.
        features: channels of each stage.
        strides, kernels: of each stage; ``strides[0]`` is ones.
        encoder_blocks: convolutions (plain) or residual blocks (residual) of each encoder stage.
        decoder_blocks: convolutions of each decoder stage, finest first, one entry fewer.
        deep_supervision: one output per decoder stage in training.
        input_mean, input_std: per channel; the network's first operation is (x - mean) / std.
        backbone: ``plain`` or ``residual``: the encoder of ``self_attention_unet``.
        attention: where ``self_attention_unet`` has self-attention; other networks ignore ``backbone`` and ``attention``.
        restoration: a second head restores the image; set by the training run that trains it.
    """

    name: str
    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    deep_supervision: bool = True
    input_mean: tuple[float, ...] = ()
    input_std: tuple[float, ...] = ()
    backbone: str = "plain"
    attention: tuple[AttentionStage, ...] = ()
    restoration: bool = False

    def __post_init__(self) -> None:
        if self.backbone not in ("plain", "residual"):
            raise ValueError(f"backbone must be plain or residual, found {self.backbone!r}")
        lengths = {len(entry) for entry in (self.features, self.strides, self.kernels, self.encoder_blocks)}
        if lengths != {len(self.decoder_blocks) + 1}:
            names = ("features", "strides", "kernels", "encoder_blocks", "decoder_blocks")
            found = ", ".join(f"{name} with {len(getattr(self, name))}" for name in names)
            raise ValueError(f"expected one entry for each stage, in decoder_blocks one fewer; found {found}")
        for name, least, most in LIMITS:
            values = [v for entry in getattr(self, name) for v in (entry if isinstance(entry, tuple) else (entry,))]
            if values and not least <= min(values) <= max(values) <= most:
                raise ValueError(f"{name} must be from {least} to {most}, found {getattr(self, name)}")
        if min(self.in_channels, self.out_channels) < 1:
            raise ValueError(f"a network needs channels and outputs, found {self.in_channels} and {self.out_channels}")
        stages = [entry.stage for entry in self.attention]
        if stages != sorted(set(stages)):
            raise ValueError(f"attention needs ascending stages, each once; found {stages}")
        for entry in self.attention:
            if entry.stage >= len(self.features):
                raise ValueError(f"attention at stage {entry.stage}, but there are {len(self.features)} stages")
            if self.features[entry.stage] % (4 * entry.heads):
                raise ValueError(
                    f"attention at stage {entry.stage}: {self.features[entry.stage]} features cannot be shared among "
                    f"{entry.heads} heads: expected a multiple of {4 * entry.heads}"
                )

    @property
    def divisor(self) -> Triple:
        """(3,) voxels that a patch edge must be a multiple of: the product of the strides."""
        divisor = [1, 1, 1]
        for stride in self.strides:
            divisor = [d * s for d, s in zip(divisor, stride, strict=True)]
        return triple(divisor)

    def refusal(self, patch: Sequence[int]) -> str:
        """Why the strides do not fit a patch of (3,) voxels, with the nearest patch that fits; empty if they fit."""
        divisor = self.divisor
        if all(edge > 0 and edge % step == 0 for edge, step in zip(patch, divisor, strict=True)):
            return ""
        nearest = tuple(max(1, (edge + step // 2) // step) * step for edge, step in zip(patch, divisor, strict=True))
        return (
            f"expected edges that are multiples of {divisor}, the product of the network's strides; found {tuple(patch)}. "
            f"Use {nearest}, or change the strides"
        )

    def scaled(self, factor: float) -> "NetworkSpec":
        """The same network with ``factor`` times the features, in multiples of 8 that the attention heads divide.

        The number of heads scales with the features, so that each head keeps its size.
        """
        steps = [WIDTH_STEP] * len(self.features)
        attention = tuple(replace(entry, heads=max(1, round(entry.heads * factor))) for entry in self.attention)
        for entry in attention:
            steps[entry.stage] = math.lcm(WIDTH_STEP, 4 * entry.heads)
        widths = zip(self.features, steps, strict=True)
        features = tuple(max(step, round(width * factor / step) * step) for width, step in widths)
        return replace(self, features=features, attention=attention)


@dataclass(frozen=True)
class Plan:
    """Everything that preparation, training and prediction need.

    Attributes:
        name: name of the plan and its file, such as ``fullres_3d``.
        dataset, planner, preset: what it was made from.
        axis_order: permutation of the (z, y, x) axes of ``orientation``; the coarsest first.
        spacing_mm: target spacing in network order.
        median_shape: size of the median case at that spacing, in voxels, network order.
        patch_size, batch_size: for training; the patch is also the window of prediction.
        batch_dice: Dice pooled over the batch.
        normalization: one entry per channel.
        resampling: spline orders.
        mirror_axes: network axes along which patches may be mirrored (augmentation and test-time augmentation).
        iterations: default length of a training run.
        network: the default network.
        memory_elements: estimated elements of feature maps per sample, by the rule in ``planners/cost.py``.
        decisions: why each value was chosen.
        fingerprint_digest: digest of the fingerprint it was made from.
        schema: version of this file format; a field that is ``added`` here or in a record inside a plan raises it.
        orientation: ``canonical``: scans are reoriented to RAS+ first; ``stored``: scans keep the axes of their file.
        window_peak: where the weight of a prediction window is largest: at its ``middle``, or at a ``voxel``: the one after the
            middle if the middle lies between two.
        coarse: the labels of a coarse stage, if the network reads them beside the image.
    """

    name: str
    dataset: str
    planner: str
    preset: str
    axis_order: Triple
    spacing_mm: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    patch_size: Triple
    batch_size: int
    batch_dice: bool
    normalization: tuple[ChannelNormalization, ...]
    resampling: Resampling
    mirror_axes: tuple[int, ...]
    iterations: int
    network: NetworkSpec
    memory_elements: int
    decisions: tuple[Decision, ...] = ()
    fingerprint_digest: str = ""
    schema: int = schema_number(SCHEMA)
    orientation: str = added(2, "canonical")
    window_peak: str = added(2, "middle")
    coarse: CoarseLabels | None = added(3, None)

    def __post_init__(self) -> None:
        if self.orientation not in ("canonical", "stored"):
            raise ValueError(f"orientation must be canonical or stored, found {self.orientation!r}")
        if self.window_peak not in ("middle", "voxel"):
            raise ValueError(f"window_peak must be middle or voxel, found {self.window_peak!r}")
        if fault := fault_of_name(self.name):
            raise ValueError(f"name must be a plain file name, found {self.name!r}: {fault}")
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError(f"axis_order must be a permutation of 0, 1, 2, found {self.axis_order}")
        if not all(0 < spacing < math.inf for spacing in self.spacing_mm):
            raise ValueError(f"spacing_mm must be positive, found {self.spacing_mm}")
        if not {0, 1, 2}.issuperset(self.mirror_axes) or len(set(self.mirror_axes)) < len(self.mirror_axes):
            raise ValueError(f"mirror_axes must be among 0, 1, 2, each once, found {self.mirror_axes}")
        network, channels = self.network, [how.channel for how in self.normalization]
        labels = self.coarse.count if self.coarse else 0
        if len(channels) + labels != network.in_channels:
            more = f" and coarse {labels} labels" if labels else ""
            raise ValueError(f"normalization has {len(channels)} channels{more}, but the network takes {network.in_channels}")
        for name, as_it_is in (("input_mean", 0.0), ("input_std", 1.0)):
            expected = (*(getattr(how, name) for how in self.normalization), *(as_it_is,) * labels)
            if getattr(network, name) not in ((), expected):
                raise ValueError(f"network.{name} is {getattr(network, name)}, but normalization says {expected}")
        if min(*self.patch_size, self.batch_size, self.iterations) < 1:
            raise ValueError("patch_size, batch_size and iterations must be at least 1")
        if refusal := self.network.refusal(self.patch_size):
            raise ValueError(f"patch_size: {refusal}")

    def explain(self) -> str:
        """The decisions as lines of text, one paragraph each; warnings are marked."""
        lines = []
        for decision in self.decisions:
            mark = "! " if decision.warning else ""
            lines.append(f"{mark}{decision.what}: {decision.chosen}")
            lines.append(f"    because {decision.rule}" + (f" ({decision.numbers})" if decision.numbers else ""))
        return "\n".join(lines)
