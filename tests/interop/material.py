"""Results folders of nnU-Net made by hand: the same files, names and structure, weights by chance."""

import json

import numpy as np
import torch

from autoseg.interop.nnunet_weights import to_nnunet
from autoseg.networks import build_network
from planners.plan import NetworkSpec

LABELS = {"background": 0, "left": 1, "right": 2}


def spec_of(flat=False, residual=False, classes=3, channels=1):
    """A small network of three stages."""
    kernel, stride = ((1, 3, 3), (1, 2, 2)) if flat else ((3, 3, 3), (2, 2, 2))
    name = "residual_unet" if residual else "unet"
    backbone = "residual" if residual else "plain"
    blocks = ((1, 2, 2), (1, 1)) if residual else ((2, 2, 2), (2, 2))
    widths, strides = (4, 8, 8), ((1, 1, 1), stride, stride)
    return NetworkSpec(name, channels, classes, widths, strides, (kernel,) * 3, *blocks, backbone=backbone)


def random_state(spec, seed=0):
    """Our state dict, norms and biases by chance too."""
    torch.manual_seed(seed)
    state = build_network(spec).state_dict()
    return {key: value if key.startswith("scaling") else value + 0.1 * torch.randn_like(value) for key, value in state.items()}


def configuration_of(spec, flat=False, **changes):
    """An entry of ``configurations``, as version 2.8 writes it."""
    axes, start = ("2d", 1) if flat else ("3d", 0)
    convs = "n_blocks_per_stage" if spec.backbone == "residual" else "n_conv_per_stage"
    package = "dynamic_network_architectures.architectures.unet"
    entry = {
        "data_identifier": "nnUNetPlans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16, 16][start:],
        "median_image_size_in_voxels": [20.0, 22.0, 24.0][start:],
        "spacing": [1.0, 1.0, 1.0][start:],
        "normalization_schemes": ["ZScoreNormalization"] * spec.in_channels,
        "use_mask_for_norm": [False] * spec.in_channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "batch_dice": False,
        "architecture": {
            "network_class_name": f"{package}.{'ResidualEncoderUNet' if spec.backbone == 'residual' else 'PlainConvUNet'}",
            "arch_kwargs": {
                "n_stages": len(spec.features),
                "features_per_stage": list(spec.features),
                "conv_op": f"torch.nn.modules.conv.Conv{axes}",
                "kernel_sizes": [list(kernel[start:]) for kernel in spec.kernels],
                "strides": [list(stride[start:]) for stride in spec.strides],
                convs: list(spec.encoder_blocks),
                "n_conv_per_stage_decoder": list(spec.decoder_blocks[::-1]),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return entry | changes


def older(entry):
    """The same configuration under the keys of the first versions."""
    entry = dict(entry)
    arguments = entry.pop("architecture")["arch_kwargs"]
    return entry | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": arguments["features_per_stage"][0],
        "unet_max_num_features": max(arguments["features_per_stage"]),
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [2, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }


def plans_of(configurations, **changes):
    """Content of ``plans.json``."""
    numbers = {"percentile_00_5": -50.0, "percentile_99_5": 250.0, "mean": 80.0, "std": 40.0}
    entry = {
        "dataset_name": "Dataset900_Phantom",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 22, 24],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": numbers},
        "configurations": configurations,
    }
    return entry | changes


def checkpoint_of(weights, configuration, **changes):
    """What a trainer saves, numbers of numpy, optimiser and device included."""
    entry = {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5)], "train_losses": [np.float64(-0.1)], "lrs": [0.01]},
        "_best_ema": np.float32(0.5),
        "current_epoch": 3,
        "init_args": {"configuration": configuration, "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    return entry | changes


def write_results(folder, spec, entry, *, name="3d_fullres", folds=("0",), plans=None, dataset=None, **checkpoint):
    """A results folder; returns our state dict of each fold."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps({**plans_of({name: entry}), **(plans or {})}))
    channels = {str(c): f"MRI{c}" for c in range(spec.in_channels)}
    about = {"channel_names": channels, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about | (dataset or {})))
    states = {}
    for seed, fold in enumerate(folds):
        states[fold] = random_state(spec, seed)
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        weights = torch.nn.Module().state_dict()  # an OrderedDict with metadata, as of every network
        weights.update(to_nnunet(spec, states[fold]))
        content = checkpoint_of(weights, name, **checkpoint)
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return states
