"""Transfer learning: which weights of a model may be used as initial weights, and which are used.

Validation cases give an unbiased score only if no weights were trained on them, including the initial weights. So a fold starts
from weights that were trained on none of its validation cases: from the fold of the same name, or from any fold of a model
trained on other cases. Cases are identified by digests of their images, whatever their names. A model that does not record its
training cases, such as one of an older version, may have seen any case: only a fold without validation cases may start from
it.

The constants of a network's first operation, which scale intensities, belong to the plan and its data. They are never
transferred. Tensors with other channels, structures, widths or kernels are transferred in part (``adapt``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from autoseg.data.labels import LabelSchema
from autoseg.errors import TrainingError
from autoseg.names import counted, first_of
from autoseg.networks.blocks import InputScaling
from autoseg.training.adapt import Adapted, Meaning, adapt, image_convolution
from planners.plan import Plan

__all__ = ["Start", "Transfer", "choose_fold", "frozen_parameters", "load_matching", "meaning_of"]

State = Mapping[str, torch.Tensor]
BACKGROUND = "background"  # first output channel of a softmax
TAKEN = "taken"  # entry of ``Recipe.freeze``

OLD_INTENSITIES = "it scales the intensities of the data that the model learned from"


@dataclass(frozen=True)
class Transfer:
    """The initial weights that a fold took from a model; a record.

    Attributes:
        model: name of its file or folder; in older versions its path.
        digest: digest of the model.
        fold: fold of the model that the weights come from.
        why: why these may be used.
        taken: names of the tensors that were taken.
        left: name -> why, for each tensor of the model that was not taken.
        new: names of the tensors of the network that are not in the model.
        adapted: name -> how, for each tensor that was adapted to another shape or order.
    """

    model: str
    digest: str
    fold: str
    why: str
    taken: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    adapted: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        whole = len(self.taken) + len(self.adapted) + len(self.new)
        lines = [f"starting from fold {self.fold} of {self.model}: {len(self.taken)} of {whole} tensors; {self.why}"]
        lines += [f"  adapted: {first_of(names, 3)}: {how}" for how, names in _by_reason(self.adapted).items()]
        lines += [f"  left: {first_of(names, 3)}: {why}" for why, names in _by_reason(self.left).items()]
        return "\n".join(lines)


def meaning_of(plan: Plan, labels: LabelSchema) -> Meaning:
    """The Meaning (names of inputs and outputs) of the network of a plan."""
    coarse = [f"coarse label {code}" for code in range(1, (plan.coarse.count if plan.coarse else 0) + 1)]
    channels = (*(how.channel for how in plan.normalization), *coarse)
    return Meaning(channels, labels.structures if labels.has_regions else (BACKGROUND, *labels.structures))


@dataclass(frozen=True, eq=False)
class Start:
    """The initial weights of a fold.

    Attributes:
        source: the Transfer as far as it is known before the network is built.
        identity: identity of these weights: equal identities mean equal weights.
        learned_from: digests of all cases that these weights were trained on; empty if unknown.
        load: function that reads the weights, a state dictionary.
        meaning: names of the inputs and outputs of their network; None assumes that equal shapes have equal meanings.
    """

    source: Transfer
    identity: str
    learned_from: tuple[str, ...]
    load: Callable[[], State]
    meaning: Meaning | None = None


def choose_fold(
    model: str,
    learned_from: Mapping[str, Collection[str]],
    fold: str,
    held_back: Mapping[str, str],
    *,
    unseen: bool = False,
) -> tuple[str, str]:
    """The fold of a model whose weights ``fold`` may start from, and why.

    Args:
        model: name of the model, for messages.
        learned_from: fold of the model -> digests of its training cases; empty if the model does not record them.
        fold: fold to train.
        held_back: its validation cases -> digests.
        unseen: the user asserts that folds without recorded training cases were trained on none of them.

    Raises:
        TrainingError: every fold of the model may have seen a validation case.
    """
    names = sorted(learned_from, key=lambda name: name != fold)  # the fold of the same name first, then the others in order
    if not held_back:
        return names[0], "there are no validation cases"
    for name in names:
        if learned_from[name] and not set(held_back.values()) & set(learned_from[name]):
            return (
                name,
                f"it learned from {counted(len(learned_from[name]), 'case')}, and from no validation case",
            )
    silent = [name for name in names if not learned_from[name]]
    if unseen and silent:
        return silent[0], "by --unseen, it learned from no validation case; the model does not say"
    raise TrainingError(f"fold {fold} cannot start from {model}: {_refusal(learned_from, fold, held_back)}")


def _refusal(learned_from: Mapping[str, Collection[str]], fold: str, held_back: Mapping[str, str]) -> str:
    """Why every fold of a model is refused, and the remedy."""
    silent = [name for name in learned_from if not learned_from[name]]
    if silent:
        return (
            f"the model does not say which cases its fold {silent[0]} learned from, as those of older versions do not, so the "
            f"scores of {counted(len(held_back), 'validation case')} might mean nothing. Repeat the command that trained the "
            "model, which trains nothing again but records the cases; or train the fold all, which validates nothing; or, if "
            "it comes from elsewhere and you know that it saw none of them, add --unseen"
        )
    seen = sorted(case for case, digest in held_back.items() if any(digest in found for found in learned_from.values()))
    return (
        f"its weights learned from validation cases of this fold, such as {seen[0]}, so their scores would mean nothing. "
        f"Give a model with the same fold {fold} or of other cases, or train the fold all, which has no validation cases"
    )


def load_matching(
    network: torch.nn.Module, weights: State, source: Transfer, before: Meaning | None = None, now: Meaning | None = None
) -> Transfer:
    """Copy tensors of matching names into ``network``, adapted if they differ. Constants that scale intensities are left out.

    Args:
        weights: state dictionary of the model.
        source: Transfer that says where they come from.
        before, now: the Meaning of the model's network, and of this one; None assumes that equal shapes have equal meanings.

    Raises:
        TrainingError: no tensor fits.
    """
    own = network.state_dict()
    scaling = {
        f"{name}.{buffer}" if name else buffer
        for name, module in network.named_modules()
        if isinstance(module, InputScaling)
        for buffer, _ in module.named_buffers(recurse=False)
    }
    fitting = {name: tensor for name, tensor in weights.items() if name in own and name not in scaling}
    found = _fitted(network, fitting, before, now)
    taken = tuple(name for name, one in found.items() if not one.how)
    adapted = {name: one.how for name, one in found.items() if one.how}
    if not found:
        raise TrainingError("none of the model's weights fits this network. Use the --network and --plan of its training run")
    left = {name: _why_left(name, tensor, own, scaling) for name, tensor in weights.items() if name not in found}
    network.load_state_dict({**own, **{name: one.tensor for name, one in found.items()}})
    new = tuple(name for name in own if name not in found)
    return Transfer(source.model, source.digest, source.fold, source.why, taken, left, new, adapted)


def _fitted(network: torch.nn.Module, weights: State, before: Meaning | None, now: Meaning | None) -> dict[str, Adapted]:
    """The tensors that can be used, in the shapes and the order of ``network``."""
    own, found = network.state_dict(), {}
    if before is None or now is None:
        return {name: Adapted(tensor, "") for name, tensor in weights.items() if own[name].shape == tensor.shape}
    first, modules = image_convolution(network), dict(network.named_modules())
    for name, tensor in weights.items():
        module = modules[name.rpartition(".")[0]]
        one = adapt(module, tensor, own[name], module is first, before, now)
        if one is not None:
            found[name] = one
    return found


def _why_left(name: str, tensor: torch.Tensor, own: State, scaling: Collection[str]) -> str:
    if name in scaling:
        return OLD_INTENSITIES
    if name not in own:
        return "this network has no such tensor"
    if own[name].shape != tensor.shape:
        return "its shape differs in this network"
    return "it belongs to other structures"


def _by_reason(told: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in told.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def frozen_parameters(
    network: torch.nn.Module, freeze: Sequence[str], transfer: Transfer | None
) -> tuple[torch.nn.Parameter, ...]:
    """The parameters that ``Recipe.freeze`` selects.

    Raises:
        TrainingError: no weight begins with a given name; ``taken`` without a model to start from; nothing is left to train.
    """
    named = dict(network.named_parameters())
    chosen: set[str] = set()
    for part in freeze:
        if part == TAKEN and transfer is None:
            raise TrainingError(
                "freeze: 'taken' means what comes from a model, so name one with --from, or a part of the network"
            )
        taken = set(transfer.taken) & set(named) if part == TAKEN and transfer else set()
        found = taken or {name for name in named if f"{name}.".startswith(f"{part}.")}
        if not found:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in named))
            raise TrainingError(f"freeze: no weight's name begins with {part!r}. There are: {parts}, and parts of these")
        chosen |= found
    if named and len(chosen) == len(named):
        raise TrainingError("freeze: no part of the network is left to train. Freeze fewer parts")
    return tuple(named[name] for name in sorted(chosen))
