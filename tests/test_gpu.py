"""What only a CUDA device can show; run with ``make gpu``."""

import json

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.imaging.files import read_label_volume
from autoseg.phantoms import write_phantoms

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_a_training_on_the_gpu_learns_and_its_model_predicts_the_same_on_both(tmp_path):
    raw, workspace = write_phantoms(tmp_path / "Dataset007_Abdomen", training=10, test=2), ["--workspace", str(tmp_path / "w")]
    assert main(["train", str(raw), "0", "--iterations", "400", "--device", "cuda", *workspace]) == 0
    run = tmp_path / "w" / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0"
    assert json.loads((run / "run.json").read_text())["device"] == "cuda"
    metrics = json.loads((run / "validation" / "metrics.json").read_text())
    assert np.mean([s["mean"] for s in metrics["structures"] if s["metric"] == "dice"]) > 0.8
    masks = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        assert main(["predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--device", device, *workspace]) == 0
        masks[device] = [read_label_volume(path).data for path in sorted(out.glob("*.nii.gz"))]
    for first, second in zip(masks["cpu"], masks["cuda"], strict=True):
        assert (first == second).mean() > 0.995
