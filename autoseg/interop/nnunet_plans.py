"""nnU-Net's ``plans.json`` and ``dataset.json``, in both of their formats, as a Plan and a LabelSchema.

nnU-Net 2 writes a network as ``architecture`` (a class name and its arguments); until 2.4, it wrote the numbers under separate
keys (``UNet_class_name``, ``conv_kernel_sizes``, ``pool_op_kernel_sizes`` ...). Names of classes and functions are compared
with the supported ones and never imported. Unknown names are refused: a model that is run differently than in training gives
plausible but wrong masks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoseg.data.labels import LabelSchema, read_labels
from autoseg.errors import DatasetError, ModelError, shown
from autoseg.names import counted
from planners.cost import count_elements
from planners.plan import ChannelNormalization, CoarseLabels, Decision, NetworkSpec, Plan, Resampling

__all__ = ["channel_names", "label_schema", "settle_configuration", "translate_plan"]

Json = Mapping[str, Any]

NETWORKS = {"PlainConvUNet": "unet", "ResidualEncoderUNet": "residual_unet"}
SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct_zscore",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale",
    "RGBTo01Normalization": "rgb",
}
READERS = {  # orientation of scans in memory: as in the file, or along the patient axes
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "NaturalImage2DIO": "stored",
    "Tiff3DIO": "stored",
    "NibabelIOWithReorient": "canonical",
}
RESAMPLERS = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet")  # splines; torch's linear interpolation
MEASURED = "foreground_intensity_properties_per_channel"
COARSE_RATIO = 3.0  # nnU-Net's anisotropy threshold
ITERATIONS = 250_000  # 1000 epochs of 250 steps


def settle_configuration(plans: Json, name: str, where: str) -> dict[str, Any]:
    """A configuration with its inherited entries filled in.

    Raises:
        ModelError: no configuration has that name, or it inherits from itself.
    """
    configurations = _part(plans, "configurations", dict, where)
    settled: dict[str, Any] = {}
    seen: list[str] = []
    current: Any = name
    while current is not None:
        if current in seen:
            raise ModelError(f"{where}: configuration {current!r} inherits from itself. Take the plans.json that nnU-Net wrote")
        if not isinstance(configurations.get(current), dict):
            raise ModelError(
                f"{where}: there is no configuration {current!r}; it has {', '.join(configurations)}. Use the plans.json "
                "that nnU-Net wrote beside this fold"
            )
        seen.append(current)
        settled = {**configurations[current], **settled}
        current = configurations[current].get("inherits_from")
    return settled


def channel_names(dataset: Json, where: str) -> tuple[str, ...]:
    """The image channels in order; ``modality`` is the older name of the entry."""
    entry = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(entry, dict) or not all(str(key).isdigit() for key in entry):
        raise ModelError(f"{where}: expected channel_names such as {{'0': 'CT'}}, found {shown(entry, 80)}")
    return tuple(str(entry[key]) for key in sorted(entry, key=int))


def label_schema(dataset: Json, where: str) -> LabelSchema:
    """The meaning of the heads. Regions are painted in ``regions_class_order``, each over the earlier ones."""
    try:
        schema = read_labels(dict(_part(dataset, "labels", dict, where)), dataset.get("regions_class_order"))
    except DatasetError as fault:
        raise ModelError(f"{where}: {fault}") from fault
    return LabelSchema(
        schema.structures, schema.values, schema.has_regions, schema.paint_values, schema.ignore, overwrite=schema.has_regions
    )


def translate_plan(
    plans: Json,
    configuration: str,
    *,
    channels: Sequence[str],
    labels: LabelSchema,
    mirror_axes: Sequence[int],
    trainer: str,
    where: str,
) -> Plan:
    """The Plan of one configuration.

    Args:
        plans: content of ``plans.json``.
        configuration: its name, such as ``3d_fullres``.
        channels: of the images, in order.
        labels: meaning of the network's outputs, and of those of the previous stage in a cascade.
        mirror_axes: axes of the network's input along which predictions may be mirrored, from the checkpoint.
        trainer: name of the training class, for information only.
        where: name of the file in messages.

    Raises:
        ModelError: a missing or unsupported entry, which is named.
    """
    found = settle_configuration(plans, configuration, where)
    coarse = _coarse_labels(found, labels, where)
    _only(found, "preprocessor_name", ("DefaultPreprocessor",), where)
    _only(plans, "label_manager", ("LabelManager",), where)
    reader = _part(plans, "image_reader_writer", str, where)
    if reader not in READERS:
        raise ModelError(f"{where}: scans were read by {reader}, which is not known here. Known: {', '.join(READERS)}")
    patch = _integers(found, "patch_size", where)
    if len(patch) not in (2, 3):
        raise ModelError(f"{where}: patch_size has {len(patch)} entries, expected 2 or 3")
    flat = len(patch) == 2
    spacing, shape = (_numbers(found, key, where) for key in ("spacing", "median_image_size_in_voxels"))
    if flat:  # slices keep their distance
        spacing = (_numbers(plans, "original_median_spacing_after_transp", where)[0], *spacing[-2:])
        shape = (_numbers(plans, "original_median_shape_after_transp", where)[0], *shape[-2:])
    network = _network(found, len(channels) + (coarse.count if coarse else 0), labels.n_heads, flat, where)
    window = (1,) * flat + patch
    try:
        return Plan(
            name=_file_name(configuration),
            dataset=_file_name(str(plans.get("dataset_name", ""))),
            planner="nnunet",
            preset=str(plans.get("experiment_planner_used", "")),
            axis_order=_three(_integers(plans, "transpose_forward", where), "transpose_forward", where),
            spacing_mm=_three(spacing, "spacing", where),
            median_shape=_three(shape, "median_image_size_in_voxels", where),
            patch_size=_three(window, "patch_size", where),
            batch_size=_part(found, "batch_size", int, where),
            batch_dice=bool(found.get("batch_dice", False)),
            normalization=_normalization(plans, found, channels, where),
            resampling=_resampling(found, where),
            mirror_axes=_mirror_axes(mirror_axes, flat, where),
            iterations=ITERATIONS,
            network=network,
            memory_elements=count_elements(network, window),
            decisions=_decisions(configuration, reader, trainer, mirror_axes, coarse),
            orientation=READERS[reader],
            window_peak="voxel",
            coarse=coarse,
        )
    except ValueError as fault:
        raise ModelError(f"{where}: {configuration}: {fault}") from fault


def _coarse_labels(found: Json, labels: LabelSchema, where: str) -> CoarseLabels | None:
    """What the second stage of a cascade reads in addition to the image; None for other configurations."""
    if found.get("previous_stage") is None:
        return None
    order, coarse_order = _resampler(found, "seg", where)
    if coarse_order not in (0, order):
        raise ModelError(
            f"{where}: resampling_fn_seg: spline order {coarse_order} along a coarse axis is not supported for the labels of a "
            "previous stage; nnU-Net plans order_z 0"
        )
    return CoarseLabels(_file_name(_part(found, "previous_stage", str, where)), len(labels.declared_values) - 1)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64]


def _decisions(
    configuration: str, reader: str, trainer: str, mirror_axes: Sequence[int], coarse: CoarseLabels | None
) -> tuple[Decision, ...]:
    axes = ", ".join(map(str, mirror_axes)) or "none"
    stage = (Decision("coarse stage", coarse.plan, "previous_stage of the plans: its labels are inputs"),) if coarse else ()
    return (
        *stage,
        Decision("plan", configuration, "of an nnU-Net model: its own planner chose spacing, patch and network"),
        Decision("weights", trainer, "they fit the network of the plan, layer by layer"),
        Decision("orientation of scans", READERS[reader], "as nnU-Net's reader hands them over", reader),
        Decision("mirroring", f"axes {axes}", "inference_allowed_mirroring_axes of the checkpoint"),
    )


def _network(found: Json, inputs: int, outputs: int, flat: bool, where: str) -> NetworkSpec:
    class_name, arguments = _architecture(found, where)
    if class_name not in NETWORKS:
        raise ModelError(f"{where}: the network {class_name} is not known here. Known: {', '.join(NETWORKS)}")
    residual = class_name == "ResidualEncoderUNet"
    _refuse_other_arguments(arguments, flat, where)
    features = _integers(arguments, "features_per_stage", where)
    n_stages = len(features)

    def triples(key: str) -> tuple[tuple[int, int, int], ...]:
        entries = _per_stage(arguments, key, n_stages, where)
        filled = [(entry,) * (3 - flat) if isinstance(entry, int) else tuple(entry) for entry in entries]
        if any(len(entry) != 3 - flat or not all(isinstance(n, int) for n in entry) for entry in filled):
            raise ModelError(f"{where}: {key}: expected {3 - flat} integers for each stage, found {entries}")
        return tuple(_three((1,) * flat + tuple(entry), key, where) for entry in filled)

    def counts(key: str, n: int) -> tuple[int, ...]:
        entries = _per_stage(arguments, key, n, where)
        if not all(isinstance(entry, int) for entry in entries):
            raise ModelError(f"{where}: {key}: expected integers, found {entries}")
        return tuple(entries)

    try:
        return NetworkSpec(
            name=NETWORKS[class_name],
            in_channels=inputs,
            out_channels=outputs,
            features=features,
            strides=triples("strides"),
            kernels=triples("kernel_sizes"),
            encoder_blocks=counts("n_blocks_per_stage" if residual else "n_conv_per_stage", n_stages),
            decoder_blocks=counts("n_conv_per_stage_decoder", n_stages - 1)[::-1],
            backbone="residual" if residual else "plain",
        )
    except ValueError as fault:
        raise ModelError(f"{where}: {fault}") from fault


def _architecture(found: Json, where: str) -> tuple[str, Json]:
    """(name of the class without its package, its arguments), from either format."""
    if "architecture" in found:
        entry = _part(found, "architecture", dict, where)
        name = str(_part(entry, "network_class_name", str, where)).rpartition(".")[2]
        return name, _part(entry, "arch_kwargs", dict, where)
    name = str(_part(found, "UNet_class_name", str, where))
    encoder = _integers(found, "n_conv_per_stage_encoder", where)
    base, most = (_part(found, key, int, where) for key in ("UNet_base_num_features", "unet_max_num_features"))
    return name, {
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(encoder))],
        "kernel_sizes": found.get("conv_kernel_sizes"),
        "strides": found.get("pool_op_kernel_sizes"),
        "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage": list(encoder),
        "n_conv_per_stage_decoder": found.get("n_conv_per_stage_decoder"),
    }


ANY: Callable[[Any], bool] = lambda value: True  # noqa: E731 - rules of a table
ARGUMENTS: dict[str, Callable[[Any], bool]] = {  # of both classes, and the values for which our networks equal theirs
    **dict.fromkeys(("n_stages", "features_per_stage", "kernel_sizes", "strides", "deep_supervision"), ANY),
    **dict.fromkeys(("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"), ANY),
    **dict.fromkeys(("conv_bias", "dropout_op", "dropout_op_kwargs"), ANY),  # a bias of zero equals none; dropout is inactive
    "norm_op_kwargs": lambda value: (value or {}).get("eps", 1e-5) == 1e-5 and not (value or {}).get("track_running_stats"),
    "nonlin": lambda value: str(value).endswith("LeakyReLU"),
    "nonlin_kwargs": lambda value: (value or {}).get("negative_slope", 0.01) == 0.01,
    **dict.fromkeys(("nonlin_first", "bottleneck_channels", "stem_channels"), lambda value: not value),
}


def _refuse_other_arguments(arguments: Json, flat: bool, where: str) -> None:
    """Refuse arguments that make a network differ from ours with the same numbers."""
    axes = "2d" if flat else "3d"
    rules = ARGUMENTS | {
        "conv_op": lambda value: str(value).lower().endswith(f"conv{axes}"),
        "norm_op": lambda value: str(value).lower().endswith(f"instancenorm{axes}"),
    }
    for key, value in arguments.items():
        if key not in rules or not rules[key](value):
            raise ModelError(f"{where}: the network has {key} = {shown(value, 80)}, which is not supported")


def _normalization(plans: Json, found: Json, channels: Sequence[str], where: str) -> tuple[ChannelNormalization, ...]:
    schemes = _part(found, "normalization_schemes", list, where)
    masked = _part(found, "use_mask_for_norm", list, where)
    measured = plans.get(MEASURED, plans.get("foreground_intensity_properties_by_modality"))
    if len(schemes) != len(channels) or len(masked) != len(channels):
        raise ModelError(
            f"{where}: {counted(len(channels), 'channel')}, but normalization_schemes of {len(schemes)} and "
            f"use_mask_for_norm of {len(masked)}. Use the dataset.json and the plans.json of the same training run"
        )
    entries = []
    for index, (channel, scheme, mask) in enumerate(zip(channels, schemes, masked, strict=True)):
        if scheme not in SCHEMES:
            raise ModelError(f"{where}: channel {channel!r}: {scheme} is not known here. Known: {', '.join(SCHEMES)}")
        constants: dict[str, Any] = {}
        if scheme == "CTNormalization":
            numbers = (measured or {}).get(str(index), {})
            keys = {"lower": "percentile_00_5", "upper": "percentile_99_5", "mean": "mean", "std": "std"}
            constants = {ours: _number(numbers, theirs, where) for ours, theirs in keys.items()}
        if scheme == "ZScoreNormalization" and mask:
            constants = {"use_mask": True, "fill_holes": True}
        entries.append(ChannelNormalization(channel, SCHEMES[scheme], **constants))
    return tuple(entries)


def _resampling(found: Json, where: str) -> Resampling:
    image = _resampler(found, "data", where)
    logits = _resampler(found, "probabilities", where)
    label = _resampler(found, "seg", where)
    return Resampling(
        image_order=image[0],
        label_order=label[0],
        logits_order=logits[0],
        coarse_image_order=image[1],
        coarse_label_order=label[1],
        coarse_logits_order=logits[1],
        coarse_ratio=COARSE_RATIO,
        clip=True,
    )


def _resampler(found: Json, kind: str, where: str) -> tuple[int, int]:
    """(order, order along a coarse axis) of ``resampling_fn_`` data, seg or probabilities."""
    key = f"resampling_fn_{kind}"
    name, how = found.get(key, RESAMPLERS[0]), found.get(f"{key}_kwargs") or {}
    by_torch = name == RESAMPLERS[1]
    order, coarse = (1, 0) if by_torch else (how.get("order", 3), how.get("order_z", 0))
    apart = how.get("force_separate_z", None if by_torch else False)
    if apart is False:
        coarse = order
    other = apart is True or how.get("separate_z_anisotropy_threshold", COARSE_RATIO) != COARSE_RATIO
    if by_torch:
        other |= (how.get("mode", "linear"), how.get("aniso_axis_mode", "nearest-exact")) != ("linear", "nearest-exact")
    if name not in RESAMPLERS or other:
        raise ModelError(
            f"{where}: {key} is {name} with {shown(dict(how), 120)}, not known here. Known: {', '.join(RESAMPLERS)}"
        )
    if order not in range(6) or coarse not in range(6):
        raise ModelError(f"{where}: {key}: expected spline orders from 0 to 5, found {order!r} and {coarse!r}")
    return order, coarse


def _mirror_axes(axes: Sequence[int], flat: bool, where: str) -> tuple[int, ...]:
    if any(not isinstance(axis, int) or axis not in range(3 - flat) for axis in axes) or len(set(axes)) < len(axes):
        raise ModelError(f"{where}: inference_allowed_mirroring_axes: expected axes from 0 to {2 - flat}, found {axes!r}")
    return tuple(axis + flat for axis in axes)


def _part(entry: Json, key: str, kind: type, where: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelError(f"{where}: expected {key} as a {kind.__name__}, found {shown(value, 80)}")
    return value


def _only(entry: Json, key: str, known: Sequence[str], where: str) -> None:
    if entry.get(key, known[0]) not in known:
        raise ModelError(f"{where}: {key} is {shown(entry[key], 80)}, which is not known here. Known: {', '.join(known)}")


def _number(entry: Json, key: str, where: str) -> float:
    value = entry.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ModelError(f"{where}: expected {key} as a number, found {shown(value, 80)}")
    return float(value)


def _numbers(entry: Json, key: str, where: str) -> tuple[float, ...]:
    values = _part(entry, key, list, where)
    return tuple(_number({key: value}, key, where) for value in values)


def _integers(entry: Json, key: str, where: str) -> tuple[int, ...]:
    values = _part(entry, key, list, where)
    return tuple(int(_part({key: value}, key, int, where)) for value in values)


def _per_stage(entry: Json, key: str, n: int, where: str) -> list[Any]:
    """One entry per stage; a single number stands for all."""
    value = entry.get(key)
    values = [value] * n if isinstance(value, int) else value
    if not isinstance(values, list) or len(values) != n:
        raise ModelError(f"{where}: expected {key} with {n} entries, found {shown(value, 80)}")
    return values


def _three(values: Sequence[Any], key: str, where: str) -> tuple[Any, Any, Any]:
    if len(values) != 3:
        raise ModelError(f"{where}: expected {key} with three entries, found {list(values)}")
    return values[0], values[1], values[2]
