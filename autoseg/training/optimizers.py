"""Which optimiser updates which parameters: the only module for learning rates, momenta and gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autoseg.networks import attention_blocks, restoration_parameters
from autoseg.training.muon import Muon
from autoseg.training.recipe import Recipe, momentum_for

__all__ = ["build_optimizers", "descend", "set_pace"]

RATES = {
    "others": "learning_rate",
    "kernels": "muon_learning_rate",
    "attention": "attention_rate",
    "restoration": "restoration_rate",
}
Optimizers = Mapping[str, torch.optim.Optimizer]  # by the parameters they update
RESTORATION_CLIP = 0.1  # largest gradient norm of the restoration loss: its deep head has no normalisation


def build_optimizers(network: torch.nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """The optimisers by the parameters they update. Every parameter belongs to exactly one.

    Returns:
        dictionary: ``kernels`` (Muon), of convolutions with more than one input channel and more than one voxel;
        ``restoration`` (Adam), the restoration head, whose gradients are small and rare; ``others`` (SGD with weight decay).
        With an ``attention_rate`` the matrices of attention are in ``kernels``, and its slots, scales and gates in
        ``attention`` (Adam); otherwise they are in ``others``, without decay. Entries other than ``others`` exist only if
        recipe and network have them.
    """
    head = {id(p) for p in restoration_parameters(network)}
    looks = {id(p) for block in attention_blocks(network) for p in block.parameters()}
    moved: dict[str, list[torch.nn.Parameter]] = {name: [] for name in RATES}
    spared: list[torch.nn.Parameter] = []
    for p in network.parameters():
        if id(p) in head:
            moved["restoration"].append(p)
        elif id(p) in looks and p.ndim != 2:
            (moved["attention"] if recipe.attention_rate else spared).append(p)
        elif recipe.muon_learning_rate and (_is_kernel(p) or id(p) in looks and recipe.attention_rate):
            moved["kernels"].append(p)
        else:
            moved["others"].append(p)
    decay = [{"params": moved["others"], "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "others": torch.optim.SGD(decay, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    }
    for name, kind in {"kernels": Muon, "attention": torch.optim.Adam, "restoration": torch.optim.Adam}.items():
        if moved[name]:
            optimizers[name] = kind(moved[name], lr=getattr(recipe, RATES[name]))
    return optimizers


def _is_kernel(parameter: torch.Tensor) -> bool:
    return parameter.ndim > 3 and parameter.shape[1] > 1 and parameter[0, 0].numel() > 1


def set_pace(optimizers: Optimizers, recipe: Recipe, rate: float, steps_expected: int) -> None:
    """Set every optimiser to ``rate`` times its highest learning rate, and to the momentum for the number of steps."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = getattr(recipe, RATES[name]) * rate
            if "momentum" in group:
                group["momentum"] = momentum_for(recipe, steps_expected)


def descend(optimizers: Optimizers, recipe: Recipe, weight: float) -> None:
    """Make one step of all optimisers, each with its gradients clipped separately, and clear the gradients.

    ``weight`` is the weight of the restoration loss. Muon's step length does not depend on the gradient, so it is not clipped.
    """
    most = {"others": recipe.clip_norm, "restoration": weight * RESTORATION_CLIP}
    for name, optimizer in optimizers.items():
        if name in most:
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], most[name])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
