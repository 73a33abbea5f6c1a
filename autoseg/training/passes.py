"""The forward and backward pass of a batch; on a GPU recorded once, then replayed.

A step is a thousand kernels or more, and to give them to a GPU one by one takes Python longer than the GPU needs for those of a
small network (docs/experiments/first-gpu-runs.md). So once a few batches of one shape have passed, what they had the GPU do is
recorded as a CUDA graph, which is given to it as one. The graph computes on memory of its own: batches are copied in,
gradients stay there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from autoseg.training.batch import Batch

__all__ = ["Passes"]

logger = logging.getLogger(__name__)

WARM = 3  # passes of a shape before it is recorded: in these cuDNN chooses its algorithms


class Passes:
    """Callable: a Batch on the device -> its loss, a scalar tensor; gradients are in ``.grad`` until the next call.

    Where the device cannot record the passes they go on as before, which is logged.

    Args:
        run: (batch, weight of a lesson's loss) -> loss.
        parameters: all that may have a gradient; they stay where they are in memory.
        scale: gradients are those of so many times the loss.
        records: on a GPU; else every pass is given to it kernel by kernel.
    """

    def __init__(
        self,
        run: Callable[[Batch, float], torch.Tensor],
        parameters: Sequence[torch.nn.Parameter],
        device: torch.device,
        *,
        scale: float = 1.0,
        records: bool = True,
    ) -> None:
        self.run, self.parameters, self.device = run, parameters, device
        self.scale, self.records = scale, records and device.type == "cuda"
        self.shapes: list[torch.Size] = []
        self.passed = 0
        self.recording: _Recording | None = None

    def __call__(self, batch: Batch, weight: float) -> torch.Tensor:
        """A batch with a lesson is never recorded: what is computed depends on what its slices are like."""
        if batch.lesson is not None:
            return self._pass(batch, weight)
        shapes = [tensor.shape for tensor in batch.tensors]
        if shapes != self.shapes:
            self.shapes, self.passed, self.recording = shapes, 0, None  # the old recording's memory is free
        if self.records and self.passed == WARM:
            self.recording = self._recorded(batch, weight)
        self.passed += 1
        return self.recording.replay(batch) if self.recording else self._pass(batch, weight)

    def _pass(self, batch: Batch, weight: float) -> torch.Tensor:
        total = self.run(batch, weight)
        (total if self.scale == 1 else self.scale * total).backward()
        return total.detach()

    def _recorded(self, batch: Batch, weight: float) -> _Recording | None:
        graph, own = torch.cuda.CUDAGraph(), batch.each(torch.clone)
        here, apart = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        try:
            # whatever happens, things go on where they were; other threads, which make batches, use the GPU meanwhile
            with torch.cuda.stream(here), torch.cuda.graph(graph, stream=apart, capture_error_mode="thread_local"):
                total = self._pass(own, weight)
        except RuntimeError as fault:
            for parameter in self.parameters:
                parameter.grad = None
            why = str(fault).splitlines()[0]
            logger.warning("steps are slower than they could be, because no CUDA graph can be recorded: %s", why)
            return None
        return _Recording(graph, own, total, [(parameter, parameter.grad) for parameter in self.parameters])


class _Recording:
    """A CUDA graph, and where it finds its inputs and leaves its results."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        inputs: Batch,
        total: torch.Tensor,
        gradients: Sequence[tuple[torch.nn.Parameter, torch.Tensor | None]],
    ) -> None:
        self.graph, self.inputs, self.total, self.gradients = graph, inputs, total, gradients

    def replay(self, batch: Batch) -> torch.Tensor:
        for own, tensor in zip(self.inputs.tensors, batch.tensors, strict=True):
            own.copy_(tensor)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.total.clone()
