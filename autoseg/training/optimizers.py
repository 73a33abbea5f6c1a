"""Which optimiser moves which parameters, and how far: the one place where rates, momenta and clipping meet the network."""

import torch

from autoseg.networks import parameter_groups
from autoseg.training.muon import Muon
from autoseg.training.recipe import momentum_for

__all__ = ["build_optimizers", "descend", "set_pace"]

RESTORATION_CLIP = 0.1  # norm of the gradient of the restoration's loss, at most: its deep head has no normalisation


def build_optimizers(network, recipe):
    """The optimisers by what they move; every parameter belongs to one of them.

    Returns:
        dictionary: ``kernels`` (Muon), of the convolutions with more than one input channel and more than one voxel;
        ``restoration`` (Adam), the head that restores, whose gradients are small and seldom; ``others`` (SGD). The first two
        only where recipe and network have them.
    """
    head = list(network.restoration.parameters()) if hasattr(network, "restoration") else []
    apart = {id(parameter) for parameter in head}
    kernels = [p for p in network.parameters() if recipe.kernel_rate and id(p) not in apart and _is_kernel(p)]
    apart |= {id(parameter) for parameter in kernels}
    groups = parameter_groups(network, recipe.weight_decay)
    groups = [{**group, "params": [p for p in group["params"] if id(p) not in apart]} for group in groups]
    optimizers = {"others": torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)}
    if kernels:
        optimizers["kernels"] = Muon(kernels, lr=recipe.kernel_rate)
    if head:
        optimizers["restoration"] = torch.optim.Adam(head, lr=recipe.restoration_rate)
    return optimizers


def _is_kernel(parameter):
    return parameter.ndim > 3 and parameter.shape[1] > 1 and parameter[0, 0].numel() > 1


def set_pace(optimizers, recipe, rate, steps_expected):
    """Give every optimiser ``rate`` times its highest learning rate, and the momentum that fits the number of steps."""
    highest = {"others": recipe.learning_rate, "kernels": recipe.kernel_rate, "restoration": recipe.restoration_rate}
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = highest[name] * rate
            if "momentum" in group:
                group["momentum"] = momentum_for(recipe, steps_expected)


def descend(optimizers, recipe, weight):
    """One step of all, their gradients clipped apart, and forgotten; ``weight`` is that of the restoration's loss.

    Muon's step has one length whatever the gradient's, so there is nothing to clip.
    """
    most = {"others": recipe.clip_norm, "restoration": weight * RESTORATION_CLIP}
    for name, optimizer in optimizers.items():
        if name in most:
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], most[name])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
