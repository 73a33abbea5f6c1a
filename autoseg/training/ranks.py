"""One training run in several processes, each with its own device: their ranks, and how they communicate.

A *rank* is one of these processes (``torchrun`` starts them, on one machine or on several that share a folder). All ranks make
the same steps. Only the first one decides, logs and writes: a training run has one plan, lock, checkpoint, history, model and
report, however many ranks it has. Ranks differ only in the samples that they make and the validation cases that they
process.

Gradients are sent over NCCL between GPUs, else over gloo. Everything else (a few bytes) is sent over gloo, also between GPUs,
so that no rank waits for its GPU, and none times out while the first one prepares data or writes. If a rank dies, the
others also end, and ``torchrun`` starts all of them again.
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
PATIENCE = timedelta(hours=24)  # timeout while the first rank plans and prepares, or predicts its validation cases
STEP_PATIENCE = timedelta(minutes=30)  # timeout for the gradients of a step, including the first rank's checkpoint
LOST = ("gloo", "nccl", "connection", "socket", "timed out", "timeout", "tcpstore", "reset by peer", "broken pipe")


class Withdrawn(AutosegError):
    """This rank ends because another one ended, which reports the reason itself."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training run.

    Attributes:
        index: index of this process, from 0.
        count: number of processes.
        gradients: the process group for gradients; None for a single rank.
    """

    index: int = 0
    count: int = 1
    gradients: Any = field(default=None, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of a list that all ranks have: every ``count``-th item."""
        return items[self.index :: self.count]

    def highest(self, values: Sequence[float]) -> list[float]:
        """The largest value over all ranks, element by element."""
        return [float(value) for value in values] if self.count == 1 else self._reduced(values, distributed.ReduceOp.MAX)

    def summed(self, values: Sequence[float]) -> list[float]:
        """The sum over all ranks, element by element, in double precision."""
        return [float(value) for value in values] if self.count == 1 else self._reduced(values, distributed.ReduceOp.SUM)

    def from_first(self, values: Sequence[float]) -> list[float]:
        """The values of the first rank. The other ranks must pass as many; theirs are ignored. No value may be negative."""
        return self.highest([value if self.is_first else 0.0 for value in values])

    def told(self, values: Sequence[float], stop: bool) -> tuple[float, ...]:
        """The values of the first rank, as ``from_first``, and 1 if any rank wants to stop, else 0."""
        return tuple(self.highest([*(value if self.is_first else 0.0 for value in values), stop]))

    def whole(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums over the voxels of this rank's samples -> sums over the samples of all ranks, on the same device.

        In the backward pass every rank gets the gradients of its own part; their sum over the ranks is the whole gradient.
        """
        return sums if self.count == 1 else _Whole.apply(sums, self.gradients)  # type: ignore[no-untyped-call]

    def wrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module wrapped so that gradients are averaged over all ranks and weights are those of the first."""
        if self.count == 1:
            return module
        with self.watched():  # unused heads: scales without weight in the loss, and restoration in steps without a lesson
            return DistributedDataParallel(
                module, process_group=self.gradients, broadcast_buffers=False, find_unused_parameters=True
            )

    def alone(self, work: Callable[[], T]) -> T | None:
        """Run ``work`` on the first rank while the others wait and get None.

        Raises:
            Withdrawn: on the other ranks, if the first one failed.
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
        """Run ``work`` on the first rank, then on all others, which find what the first one wrote."""
        found = self.alone(work)
        return found if self.is_first else work()  # type: ignore[return-value]  # the first one has its result

    @contextmanager
    def held(self, context: AbstractContextManager[Any]) -> Iterator[None]:
        """Hold a context, such as a lock, on the first rank for all ranks."""
        with ExitStack() as stack:
            self.alone(lambda: stack.enter_context(context))
            yield

    def refuse_unless_same(self, what: str, text: str) -> None:
        """Raise TrainingError if ranks have different texts, for example of a file that all should see."""
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
        """Turn errors about a lost rank into Withdrawn."""
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
    """Join the training run that ``torchrun`` started, for the duration of the context: (Ranks, device of this rank).

    ``torch.distributed`` reads the addresses of the other ranks from the environment.

    Args:
        index, count: index of this process, and number of all.
        device: requested device; ``auto`` and ``cuda`` become the GPU of this rank.
        local, here: the same on this machine.

    Raises:
        TrainingError: this machine has fewer GPUs than ranks, or one GPU is named for all. Withdrawn: no answer.
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
    distributed.destroy_process_group()  # not after an error: the other ranks would not answer


def _device_of(asked: str, local: int, here: int) -> str:
    """The device of the rank with index ``local`` among the ``here`` ranks on this machine."""
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
