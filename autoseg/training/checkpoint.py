"""Everything needed to resume a training run, in one file: weights, averaged weights, optimiser states, and the loop state.

The file is safetensors with a JSON header: loading it runs no code. It is written under another name and then moved, so the
last complete checkpoint always survives. Random states are not stored: every step seeds its own generator.

The header holds a digest of the state and of every tensor, so that a flipped bit is an error and not another model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from autoseg.atomic import replacing
from autoseg.errors import TrainingError, blamed_on
from autoseg.workspace import parse_json
from planners.records import from_json, to_json

__all__ = ["LoopState", "load_checkpoint", "read_state", "refuse_other", "save_checkpoint"]


@dataclass(frozen=True)
class LoopState:
    """Where a training run stands.

    Attributes:
        step: optimiser steps done.
        seconds: time spent in training so far, over all sessions.
        steps_expected: steps of the whole training run, at the pace so far; sets momentum and averaging.
        checks: validation losses measured so far.
        smoothed: running mean of the validation loss, or None before the first.
        best: lowest ``smoothed`` so far, or None.
        since_best: validations since then.
        cooldown: fraction of the length at which the learning rate began to fall early, or None.
        bf16: number format chosen at the start.
        finished: the length is used up.
        identity: digest of the recipe, plan, network, cases and seed of this state.
        losses: of the steps since the last validation; only in a checkpoint.
        threads: CPU threads used by networks at the start, which affect the last digits; 0 if unknown.
    """

    identity: str
    steps_expected: int
    bf16: bool
    step: int = 0
    seconds: float = 0.0
    checks: int = 0
    smoothed: float | None = None
    best: float | None = None
    since_best: int = 0
    cooldown: float | None = None
    finished: bool = False
    losses: tuple[float, ...] = ()
    threads: int = 0


def save_checkpoint(
    path: Path,
    state: LoopState,
    network: torch.nn.Module,
    averaged: dict[str, torch.Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
) -> None:
    """Write the checkpoint.

    Args:
        path: file to write.
        state: LoopState.
        network: the module that is trained.
        averaged: dictionary of averaged tensors, or empty.
        optimizers: their states are stored, in the order of the parameters.
    """
    tensors = {f"weights.{name}": t for name, t in network.state_dict().items()}
    tensors |= {f"averaged.{name}": t for name, t in averaged.items()}
    optimizers = list(optimizers)
    for i, parameter in enumerate(network.parameters()):
        for optimizer in optimizers:
            remembered = optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{i}.{name}": t for name, t in remembered.items() if t is not None}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(to_json(state))
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as draft:
        save_file(tensors, draft, metadata={"state": text, "digest": _digest(text, tensors), "state_digest": _digest(text, {})})


def load_checkpoint(
    path: Path, network: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> tuple[LoopState, dict[str, torch.Tensor]]:
    """Restore a checkpoint.

    Returns:
        (LoopState, averaged): ``network`` and ``optimizers`` are filled in place.

    Raises:
        TrainingError: the file is damaged or belongs to another network.
    """
    with _blamed_on(path):
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = _state(about, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        if about.get("digest") not in (None, _digest(about["state"], tensors)):  # None: older versions wrote no digest
            raise ValueError("it is not what was written")
        network.load_state_dict(_part(tensors, "weights."))
    for i, parameter in enumerate(network.parameters()):
        remembered = _part(tensors, f"optimizer.{i}.")
        owner = next(o for o in optimizers if any(parameter is p for group in o.param_groups for p in group["params"]))
        for name, tensor in remembered.items():  # Adam's step counter is on the CPU
            owner.state[parameter][name] = tensor if name == "step" else tensor.to(parameter.device)
    return state, _part(tensors, "averaged.")


def read_state(path: Path) -> LoopState | None:
    """The LoopState of a checkpoint; None if there is no checkpoint."""
    if not Path(path).is_file():
        return None
    with _blamed_on(path), safe_open(path, framework="np") as file:
        return _state(file.metadata() or {}, path)


def refuse_other(path: Path, state: LoopState, identity: str) -> None:
    """Raise TrainingError if a checkpoint is of another training run than the one with this identity."""
    if state.identity != identity:
        raise TrainingError(
            f"{path} was made with other settings, data or plan. Continue with the old settings, train under "
            "another name (autoseg train --name), or start it again with --fresh"
        )


def _blamed_on(path: Path) -> AbstractContextManager[None]:
    return blamed_on(path, "the whole checkpoint of this training run", TrainingError, "Start the run again with --fresh.")


def _state(about: dict[str, str], path: Path) -> LoopState:
    """The LoopState in the header of a file. ValueError: the header was changed."""
    if about.get("state_digest") not in (None, _digest(about["state"], {})):
        raise ValueError("its state is not what was written")
    state: LoopState = from_json(LoopState, parse_json(about["state"], path, TrainingError))
    return state


def _digest(text: str, tensors: dict[str, torch.Tensor]) -> str:
    """Digest of a text and of the names, types, shapes and bytes of tensors, in hexadecimal digits."""
    found = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
