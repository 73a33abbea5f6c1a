"""Every parameter is moved by one optimiser, at its own rate; Muon does what torch's own does where that one can."""

from dataclasses import replace

import pytest
import torch

from autoseg.networks import NETWORKS, attention_blocks, build_network
from autoseg.training.muon import Muon, orthogonalised
from autoseg.training.optimizers import build_optimizers, descend, set_pace
from autoseg.training.recipe import RECIPES, Recipe
from planners import AttentionStage
from tests.helpers.networks import small_unet

SPEC = small_unet(4, 8, restoration=True)


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


ATTENTIVE = replace(SPEC, name="self_attention_unet", attention=(AttentionStage(1, "slot", 1, 6),))


BLOCK = "encoder.stages.1.1."
MATRICES = {f"{BLOCK}project.weight", f"{BLOCK}merge.weight", f"{BLOCK}describe.weight"}
SPARED = {f"{BLOCK}scale", f"{BLOCK}gate", f"{BLOCK}slots"}
KERNELS = {"encoder.stages.1.0.conv.weight", "decoder.ups.0.weight", "decoder.stages.0.0.conv.weight"}


@pytest.mark.parametrize("recipe", ["autoseg", "parity"])
@pytest.mark.parametrize("rate", [0.0, 0.005])
def test_first_kernels_and_last_layers_stay_with_sgd_and_attention_unless_it_has_a_rate(recipe, rate):
    network = build_network(ATTENTIVE)
    moved = _moved(build_optimizers(network, replace(RECIPES[recipe], attention_rate=rate)))
    by = {name: {n for n, p in network.named_parameters() if id(p) in {id(q) for q in found}} for name, found in moved.items()}
    assert by.get("attention", set()) == (SPARED if rate else set())
    assert by.get("kernels", set()) == (KERNELS | (MATRICES if rate else set()) if recipe == "autoseg" else set())
    assert {"encoder.stages.0.0.conv.weight", "decoder.heads.0.weight"} <= by["others"]


def test_without_a_rate_of_its_own_attention_stays_with_sgd_and_only_its_matrices_decay():
    network = build_network(ATTENTIVE)
    optimizers = build_optimizers(network, Recipe(weight_decay=0.01))
    decayed, spared = optimizers["others"].param_groups
    (block,) = attention_blocks(network)
    assert {id(p) for p in spared["params"]} == {id(p) for p in (block.slots, block.scale, block.gate)}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    assert id(block.merge.weight) in {id(p) for p in decayed["params"]}


@pytest.mark.thorough
@pytest.mark.parametrize("opens", [True, False])
def test_gates_open_in_a_short_training_with_a_rate_of_their_own(opens):
    """SGD's step follows the gradient's size, so by it they stay shut (docs/experiments/attention-open-gates.md)."""
    torch.manual_seed(0)
    network, recipe = build_network(replace(ATTENTIVE, restoration=False)), Recipe(attention_rate=0.005 * opens)
    optimizers = build_optimizers(network, recipe)
    set_pace(optimizers, recipe, 1.0, 20)
    (block,) = attention_blocks(network)
    begin = block.merge.weight.detach().clone()
    for _ in range(20):
        x = torch.rand(1, 1, 8, 8, 8)
        (1e-4 * network(x).square().mean()).backward()
        descend(optimizers, recipe, 0.0)
    assert (block.gate.abs().min() > 0.01) == opens
    assert ((block.merge.weight - begin).abs().mean() > 0.1 * begin.abs().mean()) == opens


def test_rates_rise_and_fall_together():
    recipe = Recipe(learning_rate=0.02, muon_learning_rate=0.1, attention_rate=0.004, restoration_rate=0.001)
    optimizers = build_optimizers(build_network(ATTENTIVE), recipe)
    set_pace(optimizers, recipe, 0.5, 4000)
    rates = {name: {group["lr"] for group in optimizer.param_groups} for name, optimizer in optimizers.items()}
    assert rates == {"others": {0.01}, "kernels": {0.05}, "attention": {0.002}, "restoration": {0.0005}}
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


def test_a_kernel_moves_the_same_in_whatever_order_it_lies():
    torch.manual_seed(0)
    kernels = [torch.nn.Parameter(torch.randn(6, 4, 3, 3, 3)) for _ in range(2)]
    kernels[1].data = kernels[0].detach().clone(memory_format=torch.channels_last_3d)
    for kernel in kernels:
        optimizer = Muon([kernel], lr=0.1)
        for step in range(3):
            kernel.grad = torch.sin(kernel.detach() + step)
            optimizer.step()
    assert torch.allclose(*kernels, atol=1e-5)
    assert kernels[1].is_contiguous(memory_format=torch.channels_last_3d)
    kernels[1].grad = kernels[1].grad.contiguous()  # as no convolution hands it back
    kernels[0].grad = kernels[1].grad.clone()
    for kernel in kernels:
        Muon([kernel], lr=0.1).step()
    assert torch.allclose(*kernels, atol=1e-5)


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
