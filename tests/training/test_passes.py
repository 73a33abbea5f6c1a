"""Passes on a CPU; what a GPU records is in test_gpu.py."""

import logging

import torch

from autoseg.training.batch import Batch, Lesson
from autoseg.training.passes import WARM, Passes


def test_on_a_cpu_every_pass_is_computed_and_none_recorded(caplog):
    weight = torch.nn.Parameter(torch.ones(3))
    passes = Passes(lambda batch, factor: factor * (weight * batch.images).sum(), [weight], torch.device("cpu"))
    for step in range(WARM + 3):
        image = torch.full((3,), float(step))
        with caplog.at_level(logging.INFO):
            loss = passes(Batch(image, image, Lesson(image, image, image) if step % 2 else None), 2.0)
        assert (loss.item(), loss.requires_grad) == (6.0 * step, False)
        assert weight.grad.tolist() == [2.0 * step] * 3
        weight.grad = None
    assert caplog.messages == []
    assert passes.recording is None


def test_a_batch_changed_tensor_by_tensor_keeps_their_order():
    tensors = [torch.full((1,), float(i)) for i in range(5)]
    batch = Batch(tensors[0], tensors[1], Lesson(*tensors[2:]))
    assert [tensor.item() for tensor in batch.each(lambda tensor: tensor + 10).tensors] == [10, 11, 12, 13, 14]
    assert Batch(*tensors[:2]).each(torch.clone).lesson is None
