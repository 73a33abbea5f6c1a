"""What only a CUDA device can show; run with ``make gpu``."""

import json

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.imaging.files import read_label_volume
from autoseg.networks import NETWORKS, build_network
from autoseg.phantoms import write_phantoms
from autoseg.training.augment import PRESETS, Setting, apply, draw
from autoseg.training.batch import Batch
from autoseg.training.losses import dice_cross_entropy
from autoseg.training.muon import orthogonalised
from autoseg.training.passes import WARM, Passes
from planners import AttentionStage
from tests.helpers.networks import small_unet

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_a_training_on_the_gpu_learns_and_its_model_predicts_the_same_on_both(tmp_path):
    raw, workspace = write_phantoms(tmp_path / "Dataset007_Abdomen", training=10, test=2), ["--workspace", str(tmp_path / "w")]
    assert main(["train", str(raw), "0", "--iterations", "400", "--device", "cuda", *workspace]) == 0
    run = tmp_path / "w" / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0"
    assert json.loads((run / "fold.json").read_text())["device"] == "cuda"
    metrics = json.loads((run / "validation" / "metrics.json").read_text())
    assert np.mean([s["mean"] for s in metrics["structures"] if s["metric"] == "dice"]) > 0.8
    masks = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        assert main(["predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--device", device, *workspace]) == 0
        masks[device] = [read_label_volume(path).data for path in sorted(out.glob("*.nii.gz"))]
    for first, second in zip(masks["cpu"], masks["cuda"], strict=True):
        assert (first == second).mean() > 0.995


def _passes(network, regions=()):
    def run(batch, weight):
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(batch.images)
        return dice_cross_entropy(logits.float(), batch.codes, regions=regions)

    return Passes(run, list(network.parameters()), torch.device("cuda"))


def _batch(edge=16, seed=0):
    torch.manual_seed(seed)
    images, codes = torch.rand(2, 1, edge, edge, edge), torch.randint(0, 2, (2, edge, edge, edge))
    return Batch(images, codes).to(torch.device("cuda"))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("regions", [(), ((1, 2), (2,))])
def test_recorded_passes_compute_what_others_do(name, regions, caplog):
    attention = (AttentionStage(1, "slot", 1, 6), AttentionStage(2, "full", 1, 0)) if name == "self_attention_unet" else ()
    spec = small_unet(8, 16, 16, name=name, deep_supervision=False, attention=attention)
    torch.manual_seed(0)
    network = build_network(spec).cuda().train()
    passes = _passes(network, regions)
    for step, edge in enumerate([16] * (WARM + 3) + [8] * (WARM + 2)):
        batch, found = _batch(edge, step), {}
        for same in (True, False):
            loss = passes(batch, 1.0) if same else passes._pass(batch, 1.0)
            found[same] = torch.cat([loss.view(1), *(p.grad.flatten() for p in network.parameters() if p.grad is not None)])
            network.zero_grad(set_to_none=True)
        assert (found[True] - found[False]).norm() < 0.03 * found[False].norm()
        with torch.no_grad():
            for parameter in network.parameters():  # a recording sees the weights of now
                parameter.mul_(0.98)
    assert passes.recording is not None
    assert caplog.messages == []


def test_passes_that_cannot_be_recorded_go_on_and_say_so(caplog):
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))

    def run(batch, _):
        return (weight * batch.images.sum().item()).sum()  # waits for the GPU

    passes, stream = Passes(run, [weight], torch.device("cuda")), torch.cuda.current_stream()
    for step in range(WARM + 3):
        image = torch.full((2,), float(step), device="cuda")
        assert passes(Batch(image, image), 1.0).item() == 6 * step
        assert weight.grad.tolist() == [2.0 * step] * 3
        weight.grad = None
    (told,) = caplog.messages
    assert "no CUDA graph" in told
    assert torch.cuda.current_stream() == stream


def test_samples_are_augmented_on_the_gpu_as_on_the_cpu():
    setting, rng = Setting((20, 24, 16), (0.3,), (0.2,), spacing_mm=(1.0, 1.0, 2.0)), np.random.default_rng(0)
    for _ in range(60):
        drawn = draw(rng, PRESETS["nnunet"], setting)
        noisy = any(name in ("noise", "thick_slices") for name, _ in drawn.steps)
        image, codes = torch.rand(1, *drawn.source_size), torch.randint(0, 4, drawn.source_size, dtype=torch.int16)
        ours, expected = apply(image.cuda(), codes.cuda(), drawn), apply(image, codes, drawn)
        assert (ours[1].cpu() == expected[1]).float().mean() > 0.999
        assert noisy or (ours[0].cpu() - expected[0]).abs().mean() < 1e-4


def test_kernels_are_orthogonalised_on_the_gpu_as_on_the_cpu():
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((16, 432), (64, 16), (16, 100))]
    for ours, expected in zip(orthogonalised([m.cuda() for m in matrices]), orthogonalised(matrices), strict=True):
        assert (ours.cpu() - expected).norm() < 1e-2 * expected.norm()
