"""Every parameter is moved by one optimiser, at its own rate; Muon does what torch's own does where that one can."""

from dataclasses import replace

import pytest
import torch

from autoseg.networks import NETWORKS, build_network
from autoseg.training.muon import Muon, orthogonalised
from autoseg.training.optimizers import build_optimizers, descend, set_pace
from autoseg.training.recipe import RECIPES, Recipe
from planners import AttentionStage, NetworkSpec

SPEC = NetworkSpec("unet", 1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,), restoration=True)


def _moved(optimizers):
    return {name: [p for g in optimizer.param_groups for p in g["params"]] for name, optimizer in optimizers.items()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("recipe", ["autoseg", "parity"])
def test_each_parameter_belongs_to_one_optimizer(name, recipe):
    network = build_network(replace(SPEC, name=name))
    moved = _moved(build_optimizers(network, RECIPES[recipe]))
    assert ("kernels" in moved) == (recipe == "autoseg")
    assert sorted(id(p) for part in moved.values() for p in part) == sorted(id(p) for p in network.parameters())
    inside = {id(p) for p in network.restoration.parameters()}
    assert {id(p) for p in moved["restoration"]} == inside
    assert all(p.ndim == 5 and id(p) not in inside for p in moved.get("kernels", ()))


def test_first_kernels_last_layers_and_attention_stay_with_sgd():
    network = build_network(replace(SPEC, name="self_attention_unet", attention=(AttentionStage(1, "slot", 1, 6),)))
    moved = {id(p) for p in _moved(build_optimizers(network, Recipe()))["kernels"]}
    names = {name: id(p) in moved for name, p in network.named_parameters() if p.ndim > 1 and "restoration" not in name}
    assert [name for name, by_muon in names.items() if by_muon] == [
        "encoder.stages.1.0.conv.weight",
        "decoder.ups.0.weight",
        "decoder.stages.0.0.conv.weight",
    ]
    assert {"encoder.stages.0.0.conv.weight", "decoder.heads.0.weight"} <= set(names)
    assert any(name.endswith(".slots") for name in names)


def test_rates_rise_and_fall_together():
    optimizers = build_optimizers(build_network(SPEC), Recipe(learning_rate=0.02, kernel_rate=0.1, restoration_rate=0.001))
    set_pace(optimizers, Recipe(learning_rate=0.02, kernel_rate=0.1, restoration_rate=0.001), 0.5, 4000)
    rates = {name: {group["lr"] for group in optimizer.param_groups} for name, optimizer in optimizers.items()}
    assert rates == {"others": {0.01}, "kernels": {0.05}, "restoration": {0.0005}}
    assert optimizers["kernels"].param_groups[0]["momentum"] == optimizers["others"].param_groups[0]["momentum"] == 0.95


def test_only_the_gradients_that_are_clipped_decide_how_they_are_clipped():
    """A huge gradient of a kernel, which Muon takes in any size, must not shrink the step of the others."""
    network = build_network(replace(SPEC, restoration=False))
    recipe = Recipe(learning_rate=1.0, clip_norm=1.0, momentum=0.0)
    optimizers = build_optimizers(network, recipe)
    set_pace(optimizers, recipe, 1.0, 100)
    moved = _moved(optimizers)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    moved["kernels"][0].grad.fill_(1e6)
    other = moved["others"][-1]
    other.grad.view(-1)[0] = 0.5
    before = other.detach().clone()
    descend(optimizers, recipe, 1.0)
    assert abs((before - other).view(-1)[0].item() - 0.5) < 1e-3
    assert all(p.grad is None for p in network.parameters())


def test_orthogonalised_matrices_have_their_directions_and_equal_lengths():
    """Three of them go through the rounds together, and must not mix."""
    torch.manual_seed(0)
    shapes = [(16, 432), (64, 64), (128, 16), (16, 40), (8, 8)]
    matrices = [10.0**i * torch.randn(shape) for i, shape in enumerate(shapes)]
    for matrix, result in zip(matrices, orthogonalised(matrices), strict=True):
        u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
        found = u.T @ result @ vt.T
        square = matrix.shape[0] == matrix.shape[1]  # has a singular value near zero
        assert torch.linalg.svdvals(found).min() > 0.4 or square
        assert torch.linalg.svdvals(found).max() < 1.3
        assert (found - torch.diag(found.diagonal())).abs().max() < 1e-4
    zeros = [torch.zeros(shape) for shape in shapes]
    assert all(map(torch.equal, orthogonalised(zeros), zeros))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon of its own")
@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_muon_goes_where_torchs_own_goes(shape):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    step = Muon([ours], lr=0.1, momentum=0.9)
    reference = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.0)
    for _ in range(5):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        step.step(), reference.step()
    assert (ours - theirs).norm() < 0.03 * (theirs - 1).norm()  # torch's computes in bfloat16


def test_a_kernel_moves_as_its_matrix_does():
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.zeros(4, 3, 2, 2, 2))
    matrix = torch.nn.Parameter(torch.zeros(4, 24))
    kernel.grad = torch.randn(kernel.shape)
    matrix.grad = kernel.grad.reshape(4, 24).clone()
    Muon([kernel], lr=0.1).step(), Muon([matrix], lr=0.1).step()
    assert torch.equal(kernel.reshape(4, 24), matrix)
    assert kernel.abs().max() > 0
