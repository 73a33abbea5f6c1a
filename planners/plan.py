"""What a planner decides: the Plan, its NetworkSpec, the Budget it had, and a Decision for every choice.

Every tuple with one entry per axis is in *network order*: the axes of the canonical (z, y, x) array, permuted by
``Plan.axis_order`` so that the coarsest comes first. 2D is depth 1 (patch (1, Y, X), strides (1, 2, 2), kernels
(1, 3, 3)). A plan is stored as JSON that one may edit by hand; ``planners.records.from_json`` checks it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from planners.axes import Triple, triple
from planners.names import fault_of_name
from planners.records import added, schema_number

__all__ = ["AttentionStage", "Budget", "ChannelNormalization", "CoarseLabels", "Decision", "NetworkSpec", "Plan", "Resampling"]

SCHEMA = 3  # 2: what models of nnU-Net do otherwise; 3: cascades
# of each entry: beyond any network that somebody trained, and before one that no machine holds
LIMITS = (
    ("features", 1, 65536),
    ("strides", 1, 64),
    ("kernels", 1, 63),
    ("encoder_blocks", 0, 256),
    ("decoder_blocks", 0, 256),
)
WIDTH_STEP = 8  # of scaled widths: what vector units and tensor cores like


@dataclass(frozen=True)
class Budget:
    """What the planner may spend.

    ``gpu_memory_gb`` None means the preset's own reference. ``parity`` True reproduces nnU-Net's planners to the
    number, their flaws included.
    """

    gpu_memory_gb: float | None = None
    parity: bool = False


@dataclass(frozen=True)
class Decision:
    """One choice: what was chosen, by which rule, and from which numbers; each a sentence or a short phrase."""

    what: str
    chosen: str
    rule: str
    numbers: str = ""
    warning: bool = False


@dataclass(frozen=True)
class ChannelNormalization:
    """How one channel's intensities are brought to the network.

    ``scheme`` is a key of ``autoseg.preprocess.normalize.NORMALIZATIONS``. ``lower``, ``upper``, ``mean`` and ``std``
    are foreground statistics of the data set in scanner units (used by the CT schemes). The network's first
    operation is ``(x - input_mean) / input_std`` on the stored intensities. With ``use_mask`` only the voxels that are not
    zero count; with ``fill_holes`` those that they enclose as well.
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

    The ``coarse_*`` orders act along the coarsest axis, alone, where its spacing exceeds ``coarse_ratio`` times the
    finest (of the current grid, else of the new one) and is unique. With ``clip`` no image leaves its range of intensities,
    each slice its own where the coarse axis has another order, as cubic splines do at edges.
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
    """An input besides the image: what another model, the coarse stage of a cascade, says of the same scan.

    Its label codes 1 to ``count`` are as many channels behind those of the image, 1 where the code is and 0 elsewhere.
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
    """Self-attention behind the last block of encoder stage ``stage``, whose ``heads`` share half of the stage's features.

    ``kind`` is ``slot`` (linear in the voxels; ``slots`` of them for each head) or ``full`` (every voxel looks at every voxel;
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
    """A network in numbers. Entry s of a tuple is stage s, the finest first; three axes always.

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
        attention: where ``self_attention_unet`` has self-attention; the other networks ignore both.
        restoration: a second head restores the image; set by a training run that teaches it.
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
        """Why the strides cannot take a patch of (3,) voxels, and the nearest that they can; empty where they can."""
        divisor = self.divisor
        if all(edge > 0 and edge % step == 0 for edge, step in zip(patch, divisor, strict=True)):
            return ""
        nearest = tuple(max(1, (edge + step // 2) // step) * step for edge, step in zip(patch, divisor, strict=True))
        return (
            f"expected edges that are multiples of {divisor}, the product of the network's strides; found {tuple(patch)}. "
            f"Use {nearest}, or change the strides"
        )

    def scaled(self, factor: float) -> "NetworkSpec":
        """The same network with ``factor`` times the features: multiples of 8 that the heads of attention can share.

        Heads become fewer or more with the features, so that each keeps its size.
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
    """Everything that preparation, training and prediction need to know.

    Attributes:
        name: of the plan (and its file), such as ``fullres_3d``.
        dataset, planner, preset: where it comes from.
        axis_order: permutation of the (z, y, x) axes of ``orientation``; the coarsest first.
        spacing_mm: target spacing in network order.
        median_shape: median case at that spacing, voxels, network order.
        patch_size, batch_size: of training; the patch is also the window of prediction.
        batch_dice: Dice pooled over the batch.
        normalization: one entry per channel.
        resampling: spline orders.
        mirror_axes: network axes along which left and right may be exchanged (augmentation and test-time mirroring).
        iterations: default length of a training run.
        network: the default network.
        memory_elements: estimated elements of feature maps per sample, by the rule in ``planners/cost.py``.
        decisions: why each value was chosen.
        fingerprint_digest: of the fingerprint it was made from.
        schema: of this file format; a field that is ``added`` here or in what a plan is made of raises it.
        orientation: ``canonical``: scans are turned to head, front and right first; ``stored``: taken as their file has them.
        window_peak: where the weight of a window of prediction is largest: in its ``middle``, or at a ``voxel``, the one after
            the middle if that lies between two.
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
