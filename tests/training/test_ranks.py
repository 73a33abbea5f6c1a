"""Several processes train as one: the same losses, the same samples, one voice."""

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.networks import NETWORKS
from autoseg.training.ranks import ALONE, Ranks, Withdrawn, _device_of
from tests.helpers.ranks import STEPS, train, train_together


def equal(jobs, tmp_path):
    together = train_together(jobs, tmp_path / "found.json")
    for job in jobs:
        rows = train(job, tmp_path / "alone" / job.replace(":", "_"))
        assert len(rows) == STEPS
        for row, other in zip(rows, together[job], strict=True):
            assert other["train"] == pytest.approx(row.train_loss, abs=1e-5), job
            assert other["validation"] == pytest.approx(row.validation_loss, abs=1e-5), job
            assert other["seen"] == row.patch_dice["seen"] == 3, job
        assert abs(rows[-1].train_loss - rows[0].train_loss) > 1e-3, job  # something was learned, so gradients were the same


@pytest.mark.thorough
def test_two_ranks_have_the_losses_of_one(tmp_path):
    """A divided batch of three, with Dice of the batch and of each sample; and two whole batches against one twice as large."""
    equal(["unet:divided", "unet:per_sample", "unet:whole"], tmp_path)


@pytest.mark.thorough
def test_two_ranks_that_go_on_tell_the_mean_loss_of_both(tmp_path):
    together = train_together(["unet:resumed"], tmp_path / "found.json")["unet:resumed"]
    (row,) = train("unet:resumed", tmp_path / "alone")
    assert [other["train"] for other in together] == pytest.approx([row.train_loss], abs=1e-5)


@pytest.mark.slow
def test_two_ranks_have_the_losses_of_one_with_every_network(tmp_path):
    equal([f"{name}:divided" for name in NETWORKS], tmp_path)


def test_one_rank_is_a_training_as_ever():
    assert ALONE.highest([1, 2]) == [1, 2] == ALONE.summed([1, 2])
    module = torch.nn.Linear(1, 1)
    assert ALONE.wrapped(module) is module
    assert ALONE.alone(lambda: "done") == "done"
    assert ALONE.told([3.0], True) == (3.0, 1.0)


def test_shares_are_all_there_is():
    items = list("abcdefg")
    shares = [Ranks(i, 3).share(items) for i in range(3)]
    assert shares == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_whoever_loses_another_rank_says_so_and_other_errors_stay():
    with pytest.raises(Withdrawn, match="another process of this training ended"), Ranks(0, 2).watched():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:29500")
    with pytest.raises(RuntimeError, match="shapes"), Ranks(0, 2).watched():
        raise RuntimeError("shapes do not match")


def test_every_rank_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_device_of("auto", i, 2) for i in (0, 1)] == ["cuda:0", "cuda:1"]
    assert _device_of("cpu", 3, 4) == "cpu"
    with pytest.raises(TrainingError, match="3 processes .* 2 GPUs.*--nproc-per-node 2"):
        _device_of("auto", 0, 3)
    with pytest.raises(TrainingError, match="cannot share it"):
        _device_of("cuda:1", 0, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _device_of("auto", 0, 2) == "cpu"
