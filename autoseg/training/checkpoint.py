"""What resuming a training needs, in one file: weights, averaged weights, the optimisers' memory, and the state of the loop.

The file is safetensors with a JSON header: loading it runs no code. It is written beside its place and moved, so the last
whole checkpoint always survives. Random numbers need no place in it: every step seeds its own.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from autoseg.atomic import replacing
from autoseg.errors import TrainingError
from planners.records import from_json, to_json

__all__ = ["LoopState", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True)
class LoopState:
    """Where a training stands.

    Attributes:
        step: optimiser steps done.
        seconds: spent in training so far, over all sessions.
        steps_expected: of the whole training, by the pace so far; sets momentum and averaging.
        checks: validation losses measured so far.
        smoothed: running mean of the validation loss, or None before the first.
        best: lowest ``smoothed`` so far, or None.
        since_best: checks since then.
        cooldown: fraction of the length at which the learning rate began to fall early, or None.
        bf16: number format chosen at the start.
        finished: the length is used up.
        identity: digest of recipe, plan, network, cases and seed that this state belongs to.
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


def save_checkpoint(path, state, network, averaged, optimizers):
    """Write the checkpoint.

    Args:
        path: file to write.
        state: LoopState.
        network: the module that is trained.
        averaged: dictionary of averaged tensors, or empty.
        optimizers: what they remember of each parameter is stored, in the order of the parameters.
    """
    tensors = {f"weights.{name}": t for name, t in network.state_dict().items()}
    tensors |= {f"averaged.{name}": t for name, t in averaged.items()}
    for i, parameter in enumerate(network.parameters()):
        for optimizer in optimizers:
            remembered = optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{i}.{name}": t for name, t in remembered.items() if t is not None}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(path) as draft:
        save_file(tensors, draft, metadata={"state": json.dumps(to_json(state))})


def load_checkpoint(path, network, optimizers):
    """Put a checkpoint back.

    Returns:
        (LoopState, averaged): ``network`` and ``optimizers`` are filled in place.

    Raises:
        TrainingError: the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = from_json(LoopState, json.loads(file.metadata()["state"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        network.load_state_dict(_part(tensors, "weights."))
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError, ValueError) as fault:
        raise TrainingError(
            f"{path}: the checkpoint does not fit or is damaged ({fault}). Start the run anew with --fresh"
        ) from fault
    for i, parameter in enumerate(network.parameters()):
        remembered = _part(tensors, f"optimizer.{i}.")
        owner = next(o for o in optimizers if any(parameter is p for group in o.param_groups for p in group["params"]))
        for name, tensor in remembered.items():  # Adam counts its steps on the CPU
            owner.state[parameter][name] = tensor if name == "step" else tensor.to(parameter.device)
    return state, _part(tensors, "averaged.")


def read_state(path):
    """The LoopState of a checkpoint, or None where there is none."""
    if not Path(path).is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            return from_json(LoopState, json.loads(file.metadata()["state"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as fault:
        raise TrainingError(f"{path}: the checkpoint is damaged ({fault}). Start the run anew with --fresh") from fault


def _part(tensors, prefix):
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
