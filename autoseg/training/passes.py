"""The forward and backward pass of a batch. On a GPU it is recorded once, then replayed.

A step has a thousand kernels or more. For a small network, launching them one by one from Python takes longer than the GPU
needs to compute them (docs/experiments/first-gpu-runs.md). So after a few batches of one shape, the pass is recorded as a CUDA
graph, which is launched as a whole. The graph has its own memory: batches are copied into it, gradients stay there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from autoseg.training.batch import Batch

__all__ = ["Passes"]

logger = logging.getLogger(__name__)

WARM = 3  # passes of a shape before it is recorded, in which cuDNN chooses its algorithms


class Passes:
    """Callable: a Batch on the device -> its loss, a scalar tensor; gradients are in ``.grad`` until the next call.

    If recording fails on the device, this is logged, and passes run without a graph.

    Args:
        run: (batch, weight of a lesson's loss) -> loss.
        parameters: all parameters that may have a gradient; they must not move in memory.
        scale: factor of the gradients.
        records: record passes on a GPU; otherwise kernels are launched one by one.
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
        """Run a pass. Batches with a lesson are never recorded: their computation depends on their slice thickness."""
        if batch.lesson is not None:
            return self._pass(batch, weight)
        shapes = [tensor.shape for tensor in batch.tensors]
        if shapes != self.shapes:
            self.shapes, self.passed, self.recording = shapes, 0, None  # frees the memory of the old recording
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
            # the stream is restored also after an error; threads that make batches use the GPU meanwhile
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
    """A CUDA graph with the tensors of its inputs and results."""

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
