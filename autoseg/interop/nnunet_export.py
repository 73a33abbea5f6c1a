"""Our models as results folders for prediction with nnU-Net 2, if it supports the network and the preprocessing.

If masks could differ in nnU-Net, the export is refused with a reason: its normalisation schemes are z-score, CT and three more,
its labels are 0, 1, 2 ... without gaps, and its networks are the plain and the residual U-Net. Differences that change voxels
only by rounding are accepted: where the window weight peaks, and how far splines overshoot.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autoseg.atomic import making_folder, replacing
from autoseg.data.labels import LabelSchema
from autoseg.errors import ModelError
from autoseg.interop.nnunet_plans import MEASURED, NETWORKS, READERS, SCHEMES
from autoseg.interop.nnunet_postprocessing import FUNCTION
from autoseg.interop.nnunet_weights import to_nnunet
from autoseg.reconstruct.components import KeepLargest, LabelRule
from autoseg.workspace import write_json
from planners.plan import ChannelNormalization, NetworkSpec, Plan

__all__ = ["write_nnunet"]

TRAINER = "nnUNetTrainer"
RESAMPLER = "resample_data_or_seg_to_shape"
MOST_REGIONS = 12  # all combinations of overlapping regions are checked


def write_nnunet(
    folder: Path,
    *,
    plan: Plan,
    labels: LabelSchema,
    channels: tuple[str, ...],
    file_ending: str,
    weights: Mapping[str, Mapping[str, torch.Tensor]],
    postprocessing: Sequence[LabelRule] = (),
) -> Path:
    """Write a model as a results folder of nnU-Net 2; arguments as in ``save_bundle``.

    Raises:
        ModelError: the folder exists, or nnU-Net would give other masks, with the reason. Nothing is written.
    """
    if folder.exists():
        raise ModelError(f"{folder}: exists already; choose another folder")
    flat = plan.patch_size[0] == 1
    name = "2d" if flat else "3d_fullres"
    plans = _plans(plan, name, flat, file_ending)
    dataset, rules = _dataset(labels, channels, file_ending), _rules(postprocessing)
    axes = tuple(axis - flat for axis in plan.mirror_axes) or None
    with making_folder(folder) as made:
        for fold, state in weights.items():
            content = {
                "network_weights": to_nnunet(plan.network, state),
                "optimizer_state": None,
                "grad_scaler_state": None,
                "logging": {},
                "_best_ema": None,
                "current_epoch": 0,
                "init_args": {"configuration": name, "fold": int(fold) if fold.isdigit() else fold},
                "trainer_name": TRAINER,
                "inference_allowed_mirroring_axes": axes,
            }
            with replacing(made / f"fold_{fold}" / "checkpoint_final.pth") as draft:
                torch.save(content, draft)
        if postprocessing:
            write_json(made / f"crossval_results_folds_{'_'.join(sorted(weights))}" / "postprocessing.json", rules)
        write_json(made / "dataset.json", dataset)
        write_json(made / "plans.json", plans)
    return folder


def _rules(postprocessing: Sequence[LabelRule]) -> dict[str, Any]:
    """The content of a postprocessing.json."""
    for rule in postprocessing:
        if not isinstance(rule, KeepLargest) or rule.becomes:
            raise ModelError(f"nnU-Net keeps the largest piece of a structure and knows no other rule; the model has: {rule}")
    arguments = [{"labels_or_regions": list(rule.values)} for rule in postprocessing if isinstance(rule, KeepLargest)]
    return {"postprocessing_fns": [FUNCTION] * len(arguments), "postprocessing_kwargs": arguments}


def _plans(plan: Plan, name: str, flat: bool, file_ending: str) -> dict[str, Any]:
    normalization = [_scheme(how) for how in plan.normalization]
    rule, cut = plan.resampling, int(flat)
    resampling: dict[str, Any] = {}
    for kind, order, coarse in (
        ("data", rule.image_order, rule.coarse_image_order),
        ("seg", rule.label_order, rule.coarse_label_order),
        ("probabilities", rule.logits_order, rule.coarse_logits_order),
    ):
        resampling[f"resampling_fn_{kind}"] = RESAMPLER
        how = {"is_seg": kind == "seg", "order": order, "order_z": coarse, "force_separate_z": None}
        resampling[f"resampling_fn_{kind}_kwargs"] = how
    configuration = {
        "data_identifier": f"autoseg_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": plan.batch_size,
        "patch_size": list(plan.patch_size[cut:]),
        "median_image_size_in_voxels": list(plan.median_shape[cut:]),
        "spacing": list(plan.spacing_mm[cut:]),
        "normalization_schemes": [scheme for scheme, _ in normalization],
        "use_mask_for_norm": [how.use_mask for how in plan.normalization],
        **resampling,
        "batch_dice": plan.batch_dice,
        "architecture": _architecture(plan.network, flat),
    }
    return {
        "dataset_name": plan.dataset,
        "plans_name": "autosegPlans",
        "original_median_spacing_after_transp": list(plan.spacing_mm),
        "original_median_shape_after_transp": list(plan.median_shape),
        "image_reader_writer": _reader(plan, file_ending),
        "transpose_forward": list(plan.axis_order),
        "transpose_backward": [plan.axis_order.index(axis) for axis in range(3)],
        "experiment_planner_used": plan.planner,
        "label_manager": "LabelManager",
        MEASURED: {str(c): numbers for c, (_, numbers) in enumerate(normalization)},
        "configurations": {name: configuration},
    }


def _reader(plan: Plan, file_ending: str) -> str:
    if plan.orientation == "stored":
        return "NaturalImage2DIO" if file_ending in (".png", ".bmp", ".tif") else "SimpleITKIO"
    if file_ending not in (".nii", ".nii.gz"):
        raise ModelError(f"nnU-Net turns scans to the canonical orientation in NIfTI alone; the model's are {file_ending}")
    return next(reader for reader, orientation in READERS.items() if orientation == "canonical")


def _scheme(how: ChannelNormalization) -> tuple[str, dict[str, float]]:
    """(nnU-Net's scheme, its numbers) for a channel, including those of the network's first operation."""
    named = {ours: name for name, ours in SCHEMES.items()}
    trivial = (how.input_mean, how.input_std) == (0.0, 1.0)
    if how.scheme == "ct":  # clipped, scaled to [0, 1], then the network's affine: nnU-Net's scheme with other numbers
        width = how.upper - how.lower
        mean, std = how.lower + how.input_mean * width, how.input_std * width
        named["ct"], trivial = named["ct_zscore"], True
    else:
        mean, std = how.mean, how.std
    if how.scheme not in named or not trivial:
        raise ModelError(
            f"channel {how.channel!r}: nnU-Net has no normalisation like {how.scheme!r} followed by (x - {how.input_mean:g}) / "
            f"{how.input_std:g}. Plans made by autoseg plan_and_preprocess --parity have its own"
        )
    if how.use_mask and not how.fill_holes:
        raise ModelError(
            f"channel {how.channel!r}: nnU-Net fills the holes of the mask before it normalises, this model does not"
        )
    return named[how.scheme], {"percentile_00_5": how.lower, "percentile_99_5": how.upper, "mean": mean, "std": std}


def _architecture(spec: NetworkSpec, flat: bool) -> dict[str, Any]:
    classes = {ours: name for name, ours in NETWORKS.items()}
    if spec.name not in classes or spec.restoration:
        what = "a head that restores" if spec.restoration else f"no network {spec.name!r}"
        raise ModelError(f"nnU-Net has {'no network with ' if spec.restoration else ''}{what}; it has {', '.join(classes)}")
    axes, cut = ("2d", 1) if flat else ("3d", 0)
    residual = spec.name == "residual_unet"
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{classes[spec.name]}",
        "arch_kwargs": {
            "n_stages": len(spec.features),
            "features_per_stage": list(spec.features),
            "conv_op": f"torch.nn.modules.conv.Conv{axes}",
            "kernel_sizes": [list(kernel[cut:]) for kernel in spec.kernels],
            "strides": [list(stride[cut:]) for stride in spec.strides],
            blocks: list(spec.encoder_blocks),
            "n_conv_per_stage_decoder": list(spec.decoder_blocks[::-1]),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _dataset(labels: LabelSchema, channels: tuple[str, ...], file_ending: str) -> dict[str, Any]:
    values = labels.declared_values
    if values != tuple(range(len(values))) or labels.ignore not in (None, len(values)):
        raise ModelError(f"nnU-Net needs the label values 0, 1, 2 ... without gaps, and the one to ignore last; found {values}")
    entries: dict[str, Any] = {"background": 0}
    for name, group in zip(labels.structures, labels.values, strict=True):
        entries[name] = list(group) if labels.has_regions else group[0]
    if labels.ignore is not None:
        entries["ignore"] = labels.ignore
    order: dict[str, Any] = {}
    if labels.has_regions:
        _check_overlap(labels)
        order = {"regions_class_order": list(labels.paint_values)}
    names = {str(index): channel for index, channel in enumerate(channels)}
    return {"channel_names": names, "labels": entries, **order, "numTraining": 0, "file_ending": file_ending}


def _check_overlap(labels: LabelSchema) -> None:
    """Refuse regions whose overlap is lost by painting one over the other."""
    plainly = replace(labels, overwrite=True).paint_codes
    count = len(labels.structures)
    if labels.overwrite or labels.paint_codes == plainly:
        return
    if count <= MOST_REGIONS:
        ways = itertools.product((False, True), repeat=count)
        if all(_painted(labels.paint_codes, way) == _painted(plainly, way) for way in ways):
            return
    raise ModelError("regions of this model overlap in ways that nnU-Net, which paints one over the other, would lose")


def _painted(paint: tuple[tuple[int, ...], ...], found: tuple[bool, ...]) -> int:
    """The code of a voxel in which these regions are found."""
    code = 0
    for region, there in enumerate(found):
        code = paint[region][code] if there else code
    return code
