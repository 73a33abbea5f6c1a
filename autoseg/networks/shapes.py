"""Networks on the meta device: layers with shapes but without memory and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["shapes_alone"]


class _WithoutNumbers(TorchFunctionMode):
    """Skips the initialisation of layers, for which torch 2.13 imports its compiler even on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return (torch.empty if func in (torch.randn, torch.rand) else func)(*args, **(kwargs or {}))


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Context in which modules are built on the meta device."""
    with torch.device("meta"), _WithoutNumbers():
        yield
