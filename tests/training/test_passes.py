"""Passes on a CPU; what a GPU records is in test_gpu.py."""

import torch

from autoseg.training.passes import WARM, Passes


def test_on_a_cpu_every_pass_is_computed_and_none_recorded():
    weight, said = torch.nn.Parameter(torch.ones(3)), []
    passes = Passes(lambda tensors, factor: factor * (weight * tensors[0]).sum(), [weight], torch.device("cpu"), said.append)
    for step in range(WARM + 3):
        loss = passes([torch.full((3,), float(step))], 2.0, same=step % 2 == 0)
        assert (loss.item(), loss.requires_grad) == (6.0 * step, False)
        assert weight.grad.tolist() == [2.0 * step] * 3
        weight.grad = None
    assert said == []
