"""The device that computes, and everything that is done to a network for its sake, in one call that says what it did."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.networks.cpu import keep_memory, put_channels_last, use_onednn
from autoseg.networks.precision import choose_precision
from planners.plan import NetworkSpec

__all__ = ["Applied", "choose_device", "devices_for", "peak_memory_mib", "prepare_for"]


@dataclass(frozen=True)
class Applied:
    """What was done for a device; a record.

    Attributes:
        device: its kind: ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32`` or ``bf16``.
        why: the reason for the precision, a phrase.
        channels_last: convolutions whose kernels lie channels last.
        onednn: convolutions that hand small single samples to oneDNN.
        memory_kept: the process keeps the memory of large tensors.
        cudnn_benchmark: cuDNN tries its algorithms for every new shape.
    """

    device: str
    precision: str
    why: str
    channels_last: int = 0
    onednn: int = 0
    memory_kept: bool = False
    cudnn_benchmark: bool = False

    @property
    def bf16(self) -> bool:
        return self.precision == "bf16"

    def __str__(self) -> str:
        return f"{'bfloat16' if self.bf16 else 'float32'}, {self.why}"


def prepare_for(
    device: torch.device,
    network: nn.Module,
    spec: NetworkSpec,
    patches: Sequence[Sequence[int]],
    *,
    precision: str = "auto",
    training: bool = False,
) -> Applied:
    """Prepare a network, in place, and for a training run the process too, for the device that it is on.

    Weights keep their values; results differ by rounding. Call it behind whatever loads weights, once for each network.

    Args:
        spec: of the network.
        patches: (3,) voxels of the patches that it will meet; the precision is tried on the last one.
        precision: ``fp32``, ``bf16``, or ``auto``, as ``choose_precision`` takes them.
        training: forward and backward passes, in a process that is the training's own; else predictions, in anybody's process.
    """
    chosen = choose_precision(precision, device, network, spec, patches, training=training)
    if training:
        torch.backends.cudnn.benchmark = device.type == "cuda"  # patches keep their size for long
    plain = device.type == "cpu" and chosen.name == "fp32"
    onednn = use_onednn(network) if plain else 0  # before the order of memory: its hooks give back what the next ones turn
    return Applied(
        device=device.type,
        precision=chosen.name,
        why=chosen.why,
        channels_last=put_channels_last(network) if plain and training else 0,
        onednn=onednn,
        memory_kept=keep_memory() if device.type == "cpu" and training else False,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
    )


def choose_device(name: str = "auto", *, elsewhere: bool = False) -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; other names as torch knows them.

    Args:
        elsewhere: it is the device of another machine, and need not be there; then ``auto`` means nothing.

    Raises:
        AutosegError: the device is not there; names what is.
    """
    if name == "auto" and not elsewhere:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if not elsewhere:
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as fault:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise AutosegError(
            f"--device {name}: not available on this machine, which has {', '.join(there)}. Choose of these"
        ) from fault
    return device


def devices_for(name: str) -> tuple[str, ...]:
    """All CUDA devices of this machine where ``auto`` or ``cuda`` is asked for, for several processes to share; else ()."""
    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    return tuple(f"cuda:{index}" for index in range(count))


def peak_memory_mib(device: torch.device) -> int | None:
    """The most memory this process has had so far: tensors on a CUDA device, else the process as a whole; None if unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return round(getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
