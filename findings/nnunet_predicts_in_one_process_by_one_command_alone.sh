#!/usr/bin/env bash
# nnU-Net 2.8.1 predicts without worker processes (-npp 0 -nps 0) with nnUNetv2_predict, not with nnUNetv2_predict_from_modelfolder.
#
# Both have the same two options. Input: a valid results folder of a network with random weights, and one volume of 16x16x16.
#
# Seen:
#   nnUNetv2_predict: status 0, a mask
#   nnUNetv2_predict_from_modelfolder: status 1, no mask, ValueError: Number of processes must be at least 1
#   nnUNetv2_predict_from_modelfolder -npp 1 -nps 1: status 0, a mask
# What to do: nnUNetv2_predict for one process, with nnUNet_results set; or give the other one process for each of both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nnunetv2==2.8.1 torch==2.13.0 numpy==2.4.6 simpleitk==2.5.7
cd "$folder"
export nnUNet_raw="$folder/raw" nnUNet_preprocessed="$folder/pre" nnUNet_results="$folder/results"
mkdir raw pre scans
model="results/Dataset900_Noise/nnUNetTrainer__nnUNetPlans__3d_fullres"
venv/bin/python - "$model" <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

model = Path(sys.argv[1])
(model / "fold_0").mkdir(parents=True)
numbers = {"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]}
numbers |= {"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "conv_bias": True, "dropout_op_kwargs": None}
numbers |= {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin_kwargs": {"inplace": True}, "dropout_op": None}
classes = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
network = PlainConvUNet(input_channels=1, num_classes=2, deep_supervision=False, **numbers, **classes)
named = {key: f"{value.__module__}.{value.__name__}" for key, value in classes.items()}
resampling = {}
for kind, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
    how = {"is_seg": kind == "seg", "order": order, "order_z": 0, "force_separate_z": None}
    resampling |= {f"resampling_fn_{kind}": "resample_data_or_seg_to_shape", f"resampling_fn_{kind}_kwargs": how}
configuration = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 16, 16],
    "median_image_size_in_voxels": [16, 16, 16],
    "spacing": [1.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "batch_dice": False,
    **resampling,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": numbers | named,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
plans = {
    "dataset_name": "Dataset900_Noise",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
    "original_median_shape_after_transp": [16, 16, 16],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {}},
    "configurations": {"3d_fullres": configuration},
}
(model / "plans.json").write_text(json.dumps(plans))
labels = {"background": 0, "noise": 1}
dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
(model / "dataset.json").write_text(json.dumps(dataset))
checkpoint = {
    "network_weights": network.state_dict(),
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "3d_fullres", "fold": 0},
    "inference_allowed_mirroring_axes": (0, 1, 2),
}
torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
scan = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
sitk.WriteImage(sitk.GetImageFromArray(scan), "scans/noise_0000.nii.gz")
PYTHON
common=(-i scans -f 0 -device cpu --disable_tta --disable_progress_bar)

run() {  # name of the folder of masks, then the command: its status, whether there is a mask, and the last line if it failed
  local out=$1 status=0
  shift
  "venv/bin/$1" "${@:2}" -o "$out" "${common[@]}" >"$out.log" 2>&1 || status=$?
  echo "$1: status $status, $([ -e "$out/noise.nii.gz" ] && echo a mask || echo no mask)"
  [ "$status" = 0 ] || tail -n 1 "$out.log"
}

run predict nnUNetv2_predict -d 900 -c 3d_fullres -npp 0 -nps 0
run modelfolder nnUNetv2_predict_from_modelfolder -m "$model" -npp 0 -nps 0
run workers nnUNetv2_predict_from_modelfolder -m "$model" -npp 1 -nps 1
venv/bin/python - <<'PYTHON'
from pathlib import Path

masks = [name for name in ("predict", "modelfolder", "workers") if Path(name, "noise.nii.gz").exists()]
said = Path("modelfolder.log").read_text()
assert masks == ["predict", "workers"], "nnU-Net does otherwise now: look at this finding"
assert "ValueError: Number of processes must be at least 1" in said, "nnU-Net says another thing now: look at this finding"
PYTHON
