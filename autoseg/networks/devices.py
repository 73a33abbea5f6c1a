"""Chooses the device, and prepares a network for it in one call that returns what it did."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.networks.cpu import put_channels_last, use_onednn
from autoseg.networks.precision import choose_precision
from autoseg.room import keep_memory
from planners.plan import NetworkSpec

__all__ = ["Applied", "choose_device", "devices_for", "peak_memory_mib", "prepare_for"]


@dataclass(frozen=True)
class Applied:
    """Changes made for a device; a record.

    Attributes:
        device: kind of device: ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32`` or ``bf16``.
        why: the reason for the precision, a phrase.
        channels_last: number of convolutions with channels-last kernels.
        onednn: number of convolutions that use oneDNN for small single samples.
        memory_kept: the process keeps the memory of large tensors.
        cudnn_benchmark: cuDNN benchmarks its algorithms for every new shape.
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
    """Prepare a network in place for its device; for a training run also the process.

    Weights keep their values; results differ by rounding. Call it once for each network, after loading weights.

    Args:
        spec: NetworkSpec of the network.
        patches: (3,) voxels of each patch size that will be used; the precision is measured on the last one.
        precision: ``fp32``, ``bf16``, or ``auto``, as for ``choose_precision``.
        training: True for training in a process of its own; False for prediction in any process.
    """
    chosen = choose_precision(precision, device, network, spec, patches, training=training)
    if training:
        torch.backends.cudnn.benchmark = device.type == "cuda"  # the patch size seldom changes
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
    """``auto`` chooses CUDA, else Apple's MPS, else the CPU; other names as in torch.

    Args:
        elsewhere: the device is on another machine, so it need not exist here; ``auto`` is then refused.

    Raises:
        AutosegError: the device is not available; the message lists the available ones.
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
    """All CUDA devices of this machine for ``auto`` or ``cuda``, to be divided among processes; else ()."""
    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    return tuple(f"cuda:{index}" for index in range(count))


def peak_memory_mib(device: torch.device) -> int | None:
    """Peak memory of this process so far: tensors on a CUDA device, else the whole process; None if unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    return round(getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
