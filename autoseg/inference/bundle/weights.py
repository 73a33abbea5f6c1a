"""The weights of a model's folds: safetensors files, and the networks they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch

from autoseg.errors import AutosegError, ModelError, blamed_on
from autoseg.inference.bundle.members import Read
from autoseg.inference.bundle.record import AGAIN, WeightFile, weight_name
from autoseg.inference.bundle.value import Bundle, State
from autoseg.networks import build_network
from autoseg.networks.shapes import shapes_alone
from planners.plan import NetworkSpec

__all__ = ["as_bytes", "load_networks", "load_weights", "weight_file"]


def as_bytes(state: State) -> bytes:
    """Weights as the bytes of a file; equal weights give equal files."""
    return safetensors.torch.save({key: value.detach().cpu().clone().contiguous() for key, value in state.items()})


def weight_file(fold: str, data: bytes, cases: tuple[str, ...], networks: Mapping[str, NetworkSpec]) -> WeightFile:
    """The entry in ``model.json`` for the weights of a fold trained on ``cases``."""
    return WeightFile(fold, _digest_of(data), len(data), cases, network=networks.get(fold))


def load_weights(read: Read, folder: str, entry: WeightFile, path: Path) -> State:
    """The weights described in ``model.json``; ModelError if the file has others, or is damaged."""
    name = f"{folder}{weight_name(entry.fold)}"
    data = read(name)
    found = _digest_of(data)
    if found != entry.digest:
        raise ModelError(
            f"{path}: {name} is not the file that was saved\n  expected digest {entry.digest}\n"
            f"  found digest    {found}\n{AGAIN}"
        )
    with blamed_on(f"{path}: {name}", "a safetensors file", ModelError, AGAIN):
        return safetensors.torch.load(data)


def load_networks(
    bundle: Bundle, folds: Iterable[str | int] | None = None, *, lazy_logits: bool = False
) -> dict[str, torch.nn.Module]:
    """The networks of a model, on the CPU and ready for prediction.

    Args:
        bundle: the Bundle.
        folds: names (or numbers) of folds; None for all of them.
        lazy_logits: as in ``build_network``.

    Returns:
        Fold name -> nn.Module in evaluation mode, in the requested order.

    Raises:
        ModelError: a fold that the model lacks, weights that are damaged or do not fit, an unknown network.
    """
    names = list(bundle.folds) if folds is None else [str(fold) for fold in folds]
    missing = [name for name in names if name not in bundle.folds]
    if missing or not names:
        wanted = f"no fold {missing[0]!r}" if missing else "no fold to predict with"
        raise ModelError(f"{bundle.name}: {wanted}. The model has: {', '.join(bundle.folds) or 'none'}")
    return {name: _load_network(bundle, name, lazy_logits) for name in names}


def _load_network(bundle: Bundle, fold: str, lazy_logits: bool) -> torch.nn.Module:
    state = bundle.folds[fold]()
    with blamed_on(f"{bundle.name}: {weight_name(fold)}", "weights that fit its plan", ModelError, AGAIN):
        # without memory, of which a damaged plan may ask for any amount
        with suppress(NotImplementedError), shapes_alone():
            _built(bundle, fold, lazy_logits).load_state_dict(state, assign=True)
        network = _built(bundle, fold, lazy_logits)
        network.load_state_dict(state)
    return network.eval()


def _built(bundle: Bundle, fold: str, lazy_logits: bool) -> torch.nn.Module:
    try:
        return build_network(bundle.network_of(fold), lazy_logits=lazy_logits)
    except AutosegError as fault:
        raise ModelError(f"{bundle.name}: the network {bundle.network_of(fold).name!r} cannot be built: {fault}") from fault


def _digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
