"""The statement of each decision of a planner or a training run, by its subject; numbers are those of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autoseg.methods.statement import NOTHING, Statement, joined, named, number, size
from autoseg.names import counted
from planners.plan import AttentionStage, ChannelNormalization, Decision, NetworkSpec, Plan

__all__ = ["DECISIONS", "NETWORK_CITES", "normalization", "planned", "statement_of"]

NNUNET = ("isensee2021nnunet",)
AXES = ("first", "second", "third")

NETWORK_CITES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("U-Net", ("ronneberger2015unet", "cicek2016unet3d", "isensee2021nnunet")),
    "residual_unet": ("U-Net with a residual encoder", ("ronneberger2015unet", "he2016residual", "isensee2024revisited")),
    "self_attention_unet": ("U-Net with gated self-attention", ("ronneberger2015unet", "cicek2016unet3d", "wang2018nonlocal")),
    "fcn": ("fully convolutional network", ("long2015fcn",)),
    "segnet": ("SegNet", ("badrinarayanan2017segnet",)),
    "deeplabv3": ("DeepLabv3", ("chen2017deeplabv3", "he2016residual")),
    "pspnet": ("PSPNet", ("zhao2017pspnet", "he2016residual")),
    "unet_plus_plus": ("UNet++", ("zhou2020unetplusplus",)),
    "attention_gate_unet": ("Attention U-Net", ("oktay2018attention", "ronneberger2015unet")),
}

SCHEMES: Mapping[str, str] = {
    "ct": "were clipped to [{lower}, {upper}], percentiles of the foreground of the training cases, and scaled to the unit "
    "range",
    "ct_zscore": "were clipped to [{lower}, {upper}] and standardised with mean {mean} and standard deviation {std}, "
    "all of the foreground of the training cases",
    "robust": "were clipped to percentiles of each scan and scaled to the unit range",
    "zscore": "were standardised with mean and standard deviation of each scan",
    "rescale": "were scaled from minimum and maximum of each scan to the unit range",
    "rgb": "of pictures were scaled from bytes to the unit range",
    "none": "were taken as they are",
}


def normalization(how: ChannelNormalization) -> Statement:
    """How the intensities of a channel were normalised."""
    told = SCHEMES.get(how.scheme, "were normalised by the scheme {scheme}")
    values = {name: number(getattr(how, name)) for name in ("lower", "upper", "mean", "std")}
    where = " Only voxels other than zero counted." if how.use_mask else ""
    what = told.format_map({**values, "scheme": how.scheme})
    return Statement(f"Intensities of channel {named([how.channel])} {what}.{where}", NNUNET)


def _spacing(plan: Plan, why: Decision) -> Statement:
    return Statement(f"Scans were resampled to voxels of {size(plan.spacing_mm)} mm; rule: {why.rule}.", NNUNET)


def _axis_order(plan: Plan, why: Decision) -> Statement:
    return Statement("Sizes are given from the axis of the coarsest spacing to that of the finest.")


def _resampling(plan: Plan, why: Decision) -> Statement:
    how = plan.resampling
    return Statement(
        f"Images were resampled by splines of order {how.image_order}, label maps, label by label, by splines of order "
        f"{how.label_order}. Along an axis more than {number(how.coarse_ratio)} times coarser than the finest one, orders were "
        f"{how.coarse_image_order} and {how.coarse_label_order}.",
        NNUNET,
    )


def _patch(plan: Plan, why: Decision) -> Statement:
    return Statement(f"The network sees patches of {size(plan.patch_size)} voxels; rule: {why.rule}.", NNUNET)


def network(spec: NetworkSpec) -> Statement:
    """The architecture in numbers."""
    title, cites = NETWORK_CITES.get(spec.name, (spec.name, ()))
    return Statement(
        f"The network is a {title} with {len(spec.features)} resolution stages of {joined(map(str, spec.features))} features, "
        f"instance normalisation and leaky rectifiers. Its input has {counted(spec.in_channels, 'channel')}, its output "
        f"{counted(spec.out_channels, 'channel')}.",
        (*cites, "ulyanov2016instance"),
    )


def _attention(plan: Plan, why: Decision) -> Statement:
    if not plan.network.attention:
        return NOTHING
    told = joined(map(_attention_stage, plan.network.attention))
    return Statement(f"Self-attention with a learned gate, closed at the start, follows {told}.", ("wang2018nonlocal",))


def _attention_stage(stage: AttentionStage) -> str:
    kind = f"{stage.slots} learned slots per head" if stage.kind == "slot" else "all voxels"
    return f"the encoder stage of index {stage.stage} ({stage.heads} {'head' if stage.heads == 1 else 'heads'}, over {kind})"


def _batch_dice(plan: Plan, why: Decision) -> Statement:
    whose = "pooled over the batch" if plan.batch_dice else "of each sample"
    return Statement(f"The Dice term of the loss was {whose}; rule: {why.rule}.", ("isensee2021nnunet", "milletari2016vnet"))


def _mirroring(plan: Plan, why: Decision) -> Statement:
    if not plan.mirror_axes:
        return Statement("Neither training nor prediction mirrored scans.")
    axes = joined(AXES[axis] for axis in plan.mirror_axes)
    return Statement(f"Training and prediction mirrored scans along the {axes} axis; rule: {why.rule}.", NNUNET)


def _low_resolution(plan: Plan, why: Decision) -> Statement:
    return Statement(f"A plan of low resolution {why.chosen} ({why.numbers}); rule: {why.rule}.", NNUNET)


def _of_data(plan: Plan, why: Decision) -> Statement:
    """A fact about the data for the reader; the advice to the user is left out."""
    return Statement(f"The data hold {why.what} ({why.numbers}).")


def _own_words(plan: Plan, why: Decision) -> Statement:
    """The decision in its own words."""
    numbers = f" ({why.numbers})" if why.numbers else ""
    told = why.chosen.replace("`", "'")
    return Statement(f"{why.what[0].upper()}{why.what[1:]}: {told}; {why.rule}{numbers}.")


def _told_elsewhere(plan: Plan, why: Decision) -> Statement:
    """Nothing: the training statements say it, or it does not concern readers of a paper."""
    return NOTHING


Tell = Callable[[Plan, Decision], Statement]

DECISIONS: Mapping[str, Tell] = {  # ``Decision.what``, or its start if the key ends with a space -> statement
    "axis order": _axis_order,
    "spacing": _spacing,
    "resampling": _resampling,
    "normalisation of ": _told_elsewhere,  # channel by channel, with the numbers of the plan
    "patch": _patch,
    "network in place of the plan's": _told_elsewhere,  # the network is described as used
    "network": _told_elsewhere,
    "self-attention": _attention,
    "batch size": _told_elsewhere,  # the batch of the training run is described
    "memory": _told_elsewhere,
    "batch Dice": _batch_dice,
    "mirroring": _mirroring,
    "iterations": _told_elsewhere,  # the length of the training run is described
    "low resolution": _low_resolution,
    "slices": _own_words,
    "3D for 2D data": _own_words,
    "two kinds of scans ": _of_data,
    "scans with unusual spacing": _of_data,
    "coarse stage": _own_words,
    "cascade": _told_elsewhere,  # the input of the network is described
    "plan": _own_words,
    "weights": _own_words,
    "orientation of scans": _own_words,
    # of a training run, whose statements read the settled values
    "batch": _told_elsewhere,
    "devices": _told_elsewhere,
    "patches": _told_elsewhere,
    "validations": _told_elsewhere,
    "width": _told_elsewhere,
    "restoration": _told_elsewhere,
    "precision": _told_elsewhere,
    # of a study
    "configuration": _own_words,
    "ensemble": _own_words,
    "post-processing": _own_words,
    "post-processing of ": _own_words,
    "temperature": _own_words,
}


def statement_of(plan: Plan, why: Decision) -> Statement:
    """The statement of a decision for a paper; decisions of external planners keep their own words."""
    begins = (what for what in DECISIONS if what.endswith(" ") and why.what.startswith(what))
    return DECISIONS.get(why.what if why.what in DECISIONS else next(begins, ""), _own_words)(plan, why)


def planned(plan: Plan) -> tuple[Statement, ...]:
    """The statements of a plan on grid, intensities and patches."""
    decided = [statement_of(plan, why) for why in plan.decisions]
    return (*decided, *(normalization(how) for how in plan.normalization))
