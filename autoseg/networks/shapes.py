"""Networks of shapes alone: layers without memory and without numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["shapes_alone"]


class _WithoutNumbers(TorchFunctionMode):
    """Layers keep what they were made with: on the meta device torch 2.13 imports its compiler to draw no numbers."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return (torch.empty if func in (torch.randn, torch.rand) else func)(*args, **(kwargs or {}))


@contextmanager
def shapes_alone() -> Iterator[None]:
    """What is built within has its parameters on the meta device."""
    with torch.device("meta"), _WithoutNumbers():
        yield
