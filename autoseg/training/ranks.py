"""One training in several processes, each with a device of its own: who is who, and what they tell each other.

A *rank* is one of these processes (``torchrun`` starts them, on one machine or on several that share a folder). All of them
take the same steps. The first one also decides, speaks and writes: plan, locks, checkpoints, history, model and report are of
one training, however many ranks it has. What differs from rank to rank is which samples it makes and which validation cases
it looks at.

Gradients travel over NCCL between GPUs, else over gloo. All else (numbers of a few bytes) travels over gloo, also between
GPUs, so that no rank waits for its GPU, and none is taken for dead while the first one prepares the data or writes. Where a
rank dies the others end too, and ``torchrun`` starts all of them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from autoseg.errors import AutosegError, TrainingError

__all__ = ["ALONE", "Ranks", "Withdrawn", "join"]

T = TypeVar("T")
PATIENCE = timedelta(hours=24)  # of the others while the first rank plans and prepares, or predicts its validation cases
STEP_PATIENCE = timedelta(minutes=30)  # for the gradients of a step, and for a checkpoint that the first rank writes meanwhile
LOST = ("gloo", "nccl", "connection", "socket", "timed out", "timeout", "tcpstore", "reset by peer", "broken pipe")


class Withdrawn(AutosegError):
    """This rank ends because another one did, which says why in its own words."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training.

    Attributes:
        index: of this one, from 0.
        count: of all.
        gradients: the process group that gradients travel over; None where there is one rank.
    """

    index: int = 0
    count: int = 1
    gradients: Any = field(default=None, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What is this rank's of a list that all ranks have: every ``count``-th item."""
        return items[self.index :: self.count]

    def highest(self, values: Sequence[float]) -> list[float]:
        """The largest value of any rank, number by number."""
        return [float(value) for value in values] if self.count == 1 else self._reduced(values, distributed.ReduceOp.MAX)

    def summed(self, values: Sequence[float]) -> list[float]:
        """The sum over all ranks, number by number, in double precision."""
        return [float(value) for value in values] if self.count == 1 else self._reduced(values, distributed.ReduceOp.SUM)

    def from_first(self, values: Sequence[float]) -> list[float]:
        """The numbers of the first rank; what the others give counts for their number alone. None may be negative."""
        return self.highest([value if self.is_first else 0.0 for value in values])

    def told(self, values: Sequence[float], stop: bool) -> tuple[float, ...]:
        """The numbers of the first rank, as ``from_first``, and 1 where any rank wants to stop, else 0."""
        return tuple(self.highest([*(value if self.is_first else 0.0 for value in values), stop]))

    def whole(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums over the voxels of this rank's samples -> over those of all ranks, on the same device.

        On the way back every rank gets the gradients of its own part: added up over the ranks they are those of the whole.
        """
        return sums if self.count == 1 else _Whole.apply(sums, self.gradients)  # type: ignore[no-untyped-call]

    def wrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """A module whose gradients are the mean over all ranks, and whose weights are those of the first."""
        if self.count == 1:
            return module
        with (
            self.watched()
        ):  # heads of scales that have no weight in a loss, or of a lesson that is not in every step, are unused
            return DistributedDataParallel(
                module, process_group=self.gradients, broadcast_buffers=False, find_unused_parameters=True
            )

    def alone(self, work: Callable[[], T]) -> T | None:
        """Have the first rank do something while the others wait; they get None.

        Raises:
            Withdrawn: on the other ranks, where it failed on the first one.
        """
        if not self.is_first:
            if self.highest([0.0])[0]:
                raise Withdrawn("the first process of this training failed")
            return None
        try:
            found = work()
        except BaseException:
            with suppress(Withdrawn):
                self.highest([1.0])
            raise
        self.highest([0.0])
        return found

    def in_order(self, work: Callable[[], T]) -> T:
        """Have the first rank do something, then all others the same: what it wrote lies there for them."""
        found = self.alone(work)
        return found if self.is_first else work()  # type: ignore[return-value]  # the first one has what it did

    @contextmanager
    def held(self, context: AbstractContextManager[Any]) -> Iterator[None]:
        """Have the first rank hold something, such as a lock, for all."""
        with ExitStack() as stack:
            self.alone(lambda: stack.enter_context(context))
            yield

    def refuse_unless_same(self, what: str, text: str) -> None:
        """Raise TrainingError where another rank has another text, such as of a file that all should see."""
        number = float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big"))
        high, low = self.highest([number, -number])
        if high != -low:
            raise TrainingError(
                f"process {self.index} of {self.count}: {what} is not the same on all of them (here: {text}). They need one "
                "workspace, one data set and one version of autoseg, on a folder that all machines see; then give the same "
                "command again"
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Whatever says that another rank is gone becomes a Withdrawn."""
        try:
            yield
        except RuntimeError as fault:
            line = (str(fault).splitlines() or [""])[0]
            if self.count == 1 or not any(word in str(fault).lower() for word in LOST):
                raise
            raise Withdrawn(f"another process of this training ended ({line}). The same command goes on from here") from fault

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        numbers = torch.tensor(values, dtype=torch.float64)
        with self.watched():
            distributed.all_reduce(numbers, how)
        return [float(value) for value in numbers]


ALONE = Ranks()


class _Whole(torch.autograd.Function):
    """See ``Ranks.whole``."""

    @staticmethod
    def forward(ctx: Any, sums: torch.Tensor, group: Any) -> torch.Tensor:
        total = sums.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


@contextmanager
def join(index: int, count: int, device: str, *, local: int = 0, here: int = 1) -> Iterator[tuple[Ranks, str]]:
    """Join the training that ``torchrun`` started, for as long as it lasts: (Ranks, the device of this one).

    Where the others are stands in the environment, as ``torch.distributed`` reads it.

    Args:
        index, count: of this process, and of all.
        device: that was asked for; ``auto`` and ``cuda`` become the GPU of this rank.
        local, here: of this process, and of all on this machine.

    Raises:
        TrainingError: there are more ranks than GPUs on this machine, or one GPU is named for all. Withdrawn: nobody answers.
    """
    if count == 1:
        yield ALONE, device
        return
    ranks, chosen = Ranks(index, count), _device_of(device, local, here)
    on_gpu = chosen.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(chosen)
    with ranks.watched():
        distributed.init_process_group("gloo", timeout=PATIENCE)
        gradients = distributed.new_group(backend="nccl" if on_gpu else "gloo", timeout=STEP_PATIENCE)
    yield Ranks(index, count, gradients), chosen
    distributed.destroy_process_group()  # not where something went wrong: then nobody would answer


def _device_of(asked: str, local: int, here: int) -> str:
    """The device of the rank that is number ``local`` of those ``here`` on this machine."""
    there = torch.cuda.device_count() if asked in ("auto", "cuda") and torch.cuda.is_available() else 0
    if asked == "auto" and not there:
        return "cpu"
    if asked in ("auto", "cuda"):
        if here > there:
            raise TrainingError(
                f"{here} processes were started on a machine with {there} GPUs. Give torchrun --nproc-per-node "
                f"{max(1, there)}, or --device cpu"
            )
        return f"cuda:{local}"
    if asked != "cpu" and here > 1:
        raise TrainingError(
            f"--device {asked}: {here} processes cannot share it. Give --device auto: each then takes its own GPU"
        )
    return asked
