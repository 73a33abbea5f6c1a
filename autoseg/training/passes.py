"""The forward and backward pass of a batch; on a GPU recorded once, then replayed.

A step is a thousand kernels or more, and to give them to a GPU one by one takes Python longer than the GPU needs for those of a
small network (EXPERIMENTS.md). So once a few batches of one shape have passed, what they had the GPU do is recorded as a CUDA
graph, which is given to it as one. The graph computes on memory of its own: batches are copied in, gradients stay there.
"""

import torch

__all__ = ["Passes"]

WARM = 3  # passes of a shape before it is recorded: in these cuDNN chooses its algorithms


class Passes:
    """Callable: (tensors of a batch, on the device) -> loss, a scalar tensor; gradients are in ``.grad`` until the next call.

    Where the device cannot record the passes they go on as before.

    Args:
        run: function (tensors, weight) -> loss.
        parameters: list of all that may have a gradient; they stay where they are in memory.
        device: torch.device.
        say: told why passes are not recorded.
    """

    def __init__(self, run, parameters, device, say=lambda text: None):
        self.run, self.parameters, self.device, self.say = run, parameters, device, say
        self.shapes, self.passed, self.recording = None, 0, None

    def __call__(self, tensors, weight, *, same):
        """``same``: what is computed depends on nothing but the tensors, by their shapes alone, so that it can be recorded."""
        if not same:
            return self._pass(tensors, weight)
        shapes = [tensor.shape for tensor in tensors]
        if shapes != self.shapes:
            self.shapes, self.passed, self.recording = shapes, 0, None  # the old recording's memory is free
        if self.device.type == "cuda" and self.passed == WARM:
            self.recording = self._recorded(tensors, weight)
        self.passed += 1
        return self.recording.replay(tensors) if self.recording else self._pass(tensors, weight)

    def _pass(self, tensors, weight):
        total = self.run(tensors, weight)
        total.backward()
        return total.detach()

    def _recorded(self, tensors, weight):
        graph, inputs = torch.cuda.CUDAGraph(), [tensor.clone() for tensor in tensors]
        here, apart = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        try:
            # whatever happens, things go on where they were; other threads, which make batches, use the GPU meanwhile
            with torch.cuda.stream(here), torch.cuda.graph(graph, stream=apart, capture_error_mode="thread_local"):
                total = self._pass(inputs, weight)
        except RuntimeError as fault:
            for parameter in self.parameters:
                parameter.grad = None
            self.say(
                f"steps are slower than they could be, because no CUDA graph can be recorded: {str(fault).splitlines()[0]}"
            )
            return None
        return _Recording(graph, inputs, total, [(parameter, parameter.grad) for parameter in self.parameters])


class _Recording:
    """A CUDA graph, and where it finds its inputs and leaves its results."""

    def __init__(self, graph, inputs, total, gradients):
        self.graph, self.inputs, self.total, self.gradients = graph, inputs, total, gradients

    def replay(self, tensors):
        for own, tensor in zip(self.inputs, tensors, strict=True):
            own.copy_(tensor)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.total.clone()
