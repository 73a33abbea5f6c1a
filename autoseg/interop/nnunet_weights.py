"""Conversion of the weights of nnU-Net's two U-Nets to our names, and back.

Both programs have the same layers in the same order. The differences are the names, the direction in which decoder stages are
counted, and that our 2D networks are 3D networks of depth 1. nnU-Net also stores copies: the encoder inside the decoder, and
each layer of a block as ``all_modules``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from autoseg.errors import ModelError, shown
from autoseg.interop.checkpoint import StoredTensor
from autoseg.networks import build_network
from autoseg.networks.shapes import shapes_alone
from planners.plan import NetworkSpec

__all__ = ["expected_weights", "from_nnunet", "theirs", "to_nnunet"]

COPIES = re.compile(r"decoder\.encoder\.|.*\.all_modules\.")
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # of parallel and of compiled networks
RULES: tuple[tuple[str, str], ...] = (  # our name -> theirs; {up} counts decoder stages from the deepest
    (r"decoder\.ups\.(\d+)\.", "decoder.transpconvs.{up}."),
    (r"decoder\.heads\.(\d+)\.", "decoder.seg_layers.{up}."),
    (r"decoder\.stages\.(\d+)\.(\d+)\.", "decoder.stages.{up}.convs.{1}."),
    (r"encoder\.stem\.", "encoder.stem.convs.0."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.first\.", "encoder.stages.{0}.blocks.{1}.conv1."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.second\.", "encoder.stages.{0}.blocks.{1}.conv2."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.shortcut\.(\d+)\.", "encoder.stages.{0}.blocks.{1}.skip.{2}."),
    (r"encoder\.stages\.(\d+)\.(\d+)\.", "encoder.stages.{0}.0.convs.{1}."),
)


def expected_weights(spec: NetworkSpec) -> dict[str, torch.Tensor]:
    """The state dict of the network on the meta device: names and shapes."""
    with shapes_alone():
        state: dict[str, torch.Tensor] = build_network(spec).state_dict()
    return state


def theirs(name: str, spec: NetworkSpec) -> str | None:
    """nnU-Net's name for one of our weights; None for the input constants, which it does not have."""
    for pattern, target in RULES:
        if found := re.match(pattern, name):
            up = len(spec.features) - 2 - int(found[1]) if found.groups() else 0
            return target.format(*found.groups(), up=up) + name[found.end() :]
    return None


def from_nnunet(
    spec: NetworkSpec,
    weights: Mapping[str, StoredTensor],
    where: str,
    *,
    trainer: str,
    absent: Callable[[str], bool] = lambda name: False,
) -> dict[str, torch.Tensor]:
    """Our state dict from nnU-Net's weights.

    Args:
        spec: the network of the plan.
        weights: ``network_weights`` of a checkpoint.
        where: name of the file in messages.
        trainer: name of the training class, for messages.
        absent: whether one of their weights may be missing, because the plan has none for its layer: a bias, or the scale and
            shift of a normalisation. Zeros and ones replace it.

    Raises:
        ModelError: a layer that is missing, left over or of another shape; names the first one.
    """
    flat = all(kernel[0] == 1 for kernel in spec.kernels)
    refusal = (
        f"Take the plans.json and dataset.json of this training. If they are, its trainer, {shown(trainer, 80)}, changes the "
        "network, which is not supported"
    )
    found = {WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}
    state = {}
    used = set()
    for name, like in expected_weights(spec).items():
        name_there = theirs(name, spec)
        if name_there is None:
            state[name] = (torch.ones if name.endswith("std") else torch.zeros)(like.shape)
            continue
        stored = found.get(name_there)
        if stored is None and absent(name_there):
            state[name] = (torch.ones if name.endswith("norm.weight") else torch.zeros)(like.shape)
            continue
        used.add(name_there)
        shape = tuple(like.shape[:2] + like.shape[3:]) if like.ndim == 5 and flat else tuple(like.shape)
        if not isinstance(stored, StoredTensor) or stored.shape != shape:
            has = f"shape {stored.shape}" if isinstance(stored, StoredTensor) else "no such weights"
            raise ModelError(
                f"{where}: the network is not that of its plans: {name_there}: expected shape {shape}, found {has}. {refusal}"
            )
        state[name] = stored.load().float().reshape(like.shape)
    for name in found:
        if name not in used and not COPIES.match(name):
            raise ModelError(f"{where}: the network is not that of its plans, which has no {name}. {refusal}")
    return state


def to_nnunet(spec: NetworkSpec, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """nnU-Net's state dict of our network, including its copies; the inverse of ``from_nnunet``.

    nnU-Net always has deep-supervision heads: if our network has none, they are zeros, which prediction does not use.
    """
    flat = all(kernel[0] == 1 for kernel in spec.kernels)
    whole = replace(spec, deep_supervision=True)
    found: dict[str, torch.Tensor] = {}
    for name, like in expected_weights(whole).items():
        if there := theirs(name, spec):
            tensor = state[name] if name in state else torch.zeros(like.shape)
            found[there] = (tensor[:, :, 0] if flat and tensor.ndim == 5 else tensor).detach().cpu().contiguous()
    for name, tensor in list(found.items()):
        copy = name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")
        found[copy] = tensor
        if name.startswith("encoder."):
            found |= {f"decoder.{name}": tensor, f"decoder.{copy}": tensor}
    return found
