"""Networks: a NetworkSpec becomes a ``torch.nn.Module``. This package does not depend on files, labels or plans.

All networks have the same interface, tested for each name in ``NETWORKS``: ``network(x)`` returns the logits (B, K, Z, Y, X)
on the grid of ``x`` (B, C, Z, Y, X), ``network(x, every_scale=True)`` a list of logits, finest first, for deep
supervision. The first operation is ``(x - input_mean) / input_std``. No weight shape depends on the patch. If the spec has
``restoration``, ``network(x, restore=True)`` returns a pair: the logits, and the restored ``x``, on its scale and in [0, 1]
(``heads``). With ``lazy_logits``, features and the last layer may replace the logits (``scores``). Everything that a caller
needs to know about a network is in its spec. Callers use only ``forward``, which is all that a wrapper for several devices
provides.

To add one: a function ``build(spec, ends) -> Module`` and its line below.
"""

from collections.abc import Iterator

from torch import nn

from autoseg.errors import PlanError
from autoseg.networks.attention import attention_blocks
from autoseg.networks.attention_gate_unet import build_attention_gate_unet
from autoseg.networks.blocks import check_patch
from autoseg.networks.deeplabv3 import build_deeplabv3
from autoseg.networks.fcn import build_fcn
from autoseg.networks.heads import Ends, restoration_parameters
from autoseg.networks.pspnet import build_pspnet
from autoseg.networks.scores import Scores
from autoseg.networks.segnet import build_segnet
from autoseg.networks.self_attention_unet import attention_maps, build_self_attention_unet, close_gates, slot_blocks
from autoseg.networks.unet import build_residual_unet, build_unet
from autoseg.networks.unet_plus_plus import build_unet_plus_plus
from autoseg.registry import Registry
from planners.plan import NetworkSpec

__all__ = [
    "NETWORKS",
    "Ends",
    "Scores",
    "attention_blocks",
    "attention_maps",
    "build_network",
    "check_patch",
    "close_gates",
    "restoration_parameters",
    "slot_blocks",
]

NETWORKS = Registry(
    "network",
    {
        "self_attention_unet": build_self_attention_unet,
        "unet": build_unet,
        "residual_unet": build_residual_unet,
        "fcn": build_fcn,
        "segnet": build_segnet,
        "deeplabv3": build_deeplabv3,
        "pspnet": build_pspnet,
        "unet_plus_plus": build_unet_plus_plus,
        "attention_gate_unet": build_attention_gate_unet,
    },
)


def build_network(spec: NetworkSpec, *, lazy_logits: bool = False, restoration_detached: bool = False) -> nn.Module:
    """Build the network described by ``spec``, with initial weights from torch's random state.

    Args:
        lazy_logits, restoration_detached: see Ends.

    Raises:
        AutosegError: no network of that name; the message lists the known ones.
        PlanError: numbers no network can be built from.
    """
    build = NETWORKS[spec.name]
    for problem in _problems(spec):
        raise PlanError(f"network {spec.name!r} cannot be built: {problem}. Correct the plan's network entry")
    network: nn.Module = build(spec, Ends(lazy_logits, restoration_detached))
    return network


def _problems(spec: NetworkSpec) -> Iterator[str]:
    """The faults in the numbers, as sentences."""
    counts = (spec.in_channels, spec.out_channels, *spec.features, *spec.encoder_blocks, *spec.decoder_blocks)
    if not spec.features or min(counts) < 1:
        yield "expected at least one stage, and channels, features and blocks of at least 1; found " + repr(spec)
    for name, triples in (("strides", spec.strides), ("kernels", spec.kernels)):
        if any(len(triple) != 3 or min(triple) < 1 for triple in triples):
            yield f"expected {name} of three positive entries each, found {triples}"
    if any(edge % 2 == 0 for kernel in spec.kernels for edge in kernel):
        yield f"expected odd kernel sizes, found {spec.kernels}"
    if spec.strides and max(spec.strides[0]) > 1:
        yield f"expected strides[0] to be (1, 1, 1): logits are on the image's grid; found {spec.strides[0]}"
    for name, values in (("input_mean", spec.input_mean), ("input_std", spec.input_std)):
        if values and len(values) != spec.in_channels:
            yield f"expected one {name} for each of {spec.in_channels} channels, found {len(values)}"
    if any(value <= 0 for value in spec.input_std):
        yield f"expected positive input_std, found {spec.input_std}"
