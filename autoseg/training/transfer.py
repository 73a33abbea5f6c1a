"""Starting from the weights of a model: which of them may be used, which are taken over, and which stay behind.

The validation cases of a fold tell something only where no weight has seen them, not even those that the training started with.
So a fold starts from weights that learned from none of its validation cases: from the fold of the same name, or from any fold
of a model that learned from other cases. Cases are known by digests of their images, whatever they are called. A model that
does not say what it learned from, such as one of an older version, may have seen anything: only a fold without validation cases
starts from it.

The constants of a network's first operation, which scale intensities, belong to the plan and its data: they are never taken
over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch

from autoseg.errors import TrainingError
from autoseg.networks.blocks import InputScaling

__all__ = ["Start", "Transfer", "choose_fold", "load_matching"]

State = Mapping[str, torch.Tensor]

OLD_INTENSITIES = "it scales the intensities of the data that the model learned from"


@dataclass(frozen=True)
class Transfer:
    """What a fold took over from the model it started with; a record.

    Attributes:
        model: name of its file or folder, in older versions its path.
        digest: of the model.
        fold: whose weights they are.
        why: why these may be used.
        taken: names of the tensors that were taken over.
        left: name -> why, for each tensor of the model that was not.
        new: names of the tensors of the network that the model did not give.
    """

    model: str
    digest: str
    fold: str
    why: str
    taken: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        whole = len(self.taken) + len(self.new)
        lines = [f"starting from fold {self.fold} of {self.model}: {len(self.taken)} of {whole} tensors; {self.why}"]
        reasons: dict[str, list[str]] = {}
        for name, why in self.left.items():
            reasons.setdefault(why, []).append(name)
        lines += [f"  left: {_some(names)}: {why}" for why, names in reasons.items()]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Start:
    """The weights that a fold starts with.

    Attributes:
        source: the Transfer as far as it is known before the network is.
        identity: of these weights: two starts of one identity begin with the same.
        learned_from: digests of all cases that these weights have seen; empty where nobody knows.
        load: reads the weights, a state dictionary.
    """

    source: Transfer
    identity: str
    learned_from: tuple[str, ...]
    load: Callable[[], State]


def choose_fold(
    model: str, learned_from: Mapping[str, Collection[str]], fold: str, held_back: Mapping[str, str]
) -> tuple[str, str]:
    """The fold of a model whose weights ``fold`` may start from, and why.

    Args:
        model: for messages.
        learned_from: fold of the model -> digests of the cases it learned from; empty where the model does not say.
        fold: that will be trained.
        held_back: its validation cases -> digests.

    Raises:
        TrainingError: every fold of the model may have seen a validation case.
    """
    names = sorted(learned_from, key=lambda name: name != fold)  # that of the same name first, the others as they come
    if not held_back:
        return names[0], "there are no validation cases"
    for name in names:
        if learned_from[name] and not set(held_back.values()) & set(learned_from[name]):
            return (
                name,
                f"it learned from {len(learned_from[name])} cases, none of the {len(held_back)} validation cases is among them",
            )
    raise TrainingError(f"fold {fold} cannot start from {model}: {_refusal(learned_from, fold, held_back)}")


def _refusal(learned_from: Mapping[str, Collection[str]], fold: str, held_back: Mapping[str, str]) -> str:
    """What is wrong with every fold of a model, and the way out."""
    silent = [name for name in learned_from if not learned_from[name]]
    if silent:
        return (
            f"the model does not say which cases its fold {silent[0]} learned from, as those of older versions do not, so the "
            f"scores of the {len(held_back)} validation cases might mean nothing. Repeat the command that trained the model, "
            "which repeats no training but writes it down, or train the fold all, which holds nothing back"
        )
    seen = sorted(case for case, digest in held_back.items() if any(digest in found for found in learned_from.values()))
    return (
        f"its weights learned from validation cases of this fold, such as {seen[0]}, so their scores would mean nothing. "
        f"Give a model that has the same fold {fold}, one of other cases, or train the fold all, which holds nothing back"
    )


def load_matching(network: torch.nn.Module, weights: State, source: Transfer) -> Transfer:
    """Copy the tensors that fit by name and shape into ``network``, but for constants that scale intensities.

    Raises:
        TrainingError: none fits.
    """
    own = network.state_dict()
    scaling = {
        f"{name}.{buffer}" if name else buffer
        for name, module in network.named_modules()
        if isinstance(module, InputScaling)
        for buffer, _ in module.named_buffers(recurse=False)
    }
    left = {name: why for name, tensor in weights.items() if (why := _why_left(name, tensor, own, scaling))}
    taken = {name: tensor for name, tensor in weights.items() if name not in left}
    if not taken:
        raise TrainingError("none of the model's weights fits this network. Use --network and --plan as it was trained with")
    network.load_state_dict({**own, **taken})
    new = tuple(name for name in own if name not in taken)
    return Transfer(source.model, source.digest, source.fold, source.why, tuple(taken), left, new)


def _why_left(name: str, tensor: torch.Tensor, own: State, scaling: Collection[str]) -> str:
    if name in scaling:
        return OLD_INTENSITIES
    if name not in own:
        return "this network has no such tensor"
    if own[name].shape != tensor.shape:
        return "this network's has another shape"
    return ""


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
