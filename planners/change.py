"""Replaces the network of a finished plan. Grid, patch, intensities and length stay, so that networks can be compared."""

import math
from dataclasses import replace

from planners.attention import NAME as SELF_ATTENTION
from planners.attention import WHAT as ABOUT_ATTENTION
from planners.attention import add_attention, explain_attention
from planners.cost import count_elements
from planners.patch import BATCH_2D, BATCH_3D
from planners.plan import Decision, NetworkSpec, Plan
from planners.presets import PRESETS

__all__ = ["CHANGED", "refit", "with_network"]

CHANGED = "network in place of the plan's"
RESIDUAL = ("residual_unet", "deeplabv3", "pspnet")  # networks whose ``encoder_blocks`` are residual blocks


def with_network(plan: Plan, name: str) -> Plan:
    """The plan with the named network, and a Decision that says what changed. The decision about self-attention is made again.

    The patch stays. The number of blocks follows the kind of network: residual networks have 1, 3, 4, 6, 6, ... in the encoder
    and 1 convolution in the decoder (preset m), plain ones 2 and 2 (preset classic). If the plan's network is of the same kind,
    its numbers are kept. If the plan's batch does not fit into memory, the batch becomes smaller; if not even one sample fits,
    the decision is a warning. The memory limit is the preset's card, or what the plan already takes if that is more.

    Args:
        plan: Plan.
        name: a key of ``autoseg.networks.NETWORKS``; the plan's own name returns it unchanged.

    Returns:
        Plan
    """
    network = plan.network
    if name == network.name:
        return plan
    residual = network.backbone == "residual" if network.name == SELF_ATTENTION else network.name in RESIDUAL
    wanted = residual if name == SELF_ATTENTION else name in RESIDUAL
    if wanted != residual:
        preset = PRESETS["m" if wanted else "classic"]
        stages = len(network.features)
        blocks = preset.encoder_blocks + preset.encoder_blocks[-1:] * stages
        network = replace(network, encoder_blocks=blocks[:stages], decoder_blocks=(preset.decoder_blocks,) * (stages - 1))
    network = replace(network, name=name, backbone="residual" if wanted else "plain", attention=())
    if name == SELF_ATTENTION:
        network = add_attention(network, plan.patch_size)
    changed, capacity = refit(plan, network), _capacity(plan)
    batch, elements = changed.batch_size, changed.memory_elements
    fits = elements * batch <= capacity
    decision = Decision(
        CHANGED,
        f"{name}, batch {batch}" + ("" if fits else ", which may not fit into memory"),
        "the patch stays, so that networks can be compared; the batch shrinks where memory is short"
        + ("" if fits else ". Plan with more --memory-gb, choose another network, or expect to run out of memory"),
        f"{elements / 1e6:.4g} M elements per sample, {capacity / 1e6:.4g} M fit; the plan's {plan.network.name} has "
        f"{plan.memory_elements / 1e6:.4g} M and batch {plan.batch_size}",
        warning=not fits,
    )
    kept = [earlier for earlier in plan.decisions if earlier.what != ABOUT_ATTENTION]
    attention = [explain_attention(network, plan.patch_size)] if name == SELF_ATTENTION else []
    decisions = (*kept, decision, *attention)
    return replace(changed, decisions=decisions)


def refit(plan: Plan, network: NetworkSpec) -> Plan:
    """The plan with another NetworkSpec, its memory, and the batch that fits (never larger than before). The patch stays."""
    elements = count_elements(network, plan.patch_size)
    batch = min(plan.batch_size, max(1, math.floor(_capacity(plan) / elements)))
    return replace(plan, network=network, batch_size=batch, memory_elements=elements)


def _capacity(plan: Plan) -> float:
    """Elements that fit into the card of the plan's preset, or the elements of the plan's own batch if they are more."""
    own = plan.memory_elements * plan.batch_size
    if plan.preset not in PRESETS:
        return own
    preset = PRESETS[plan.preset]
    return max(own, preset.elements_2d * BATCH_2D if plan.patch_size[0] == 1 else preset.elements_3d * BATCH_3D)
