"""A want of memory is an error with a remedy, whoever notices it."""

import numpy as np
import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.training.memory import refuse_too_large, told_when_short_of_memory
from planners import NetworkSpec

CPU = torch.device("cpu")
SPEC = NetworkSpec("unet", 1, 2, (32, 64), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (2, 2), (2,))


def test_a_training_that_cannot_fit_is_refused_before_it_begins():
    refuse_too_large(SPEC, (64, 64, 64), 2, CPU)
    with pytest.raises(
        TrainingError, match=r"(?s)4096 x 4096 x 4096, 2 at once, needs at least \d+\.\d GiB; cpu has .*--memory-gb"
    ):
        refuse_too_large(SPEC, (4096, 4096, 4096), 2, CPU)


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, np.uint8)])
def test_what_comes_later_is_told_with_its_remedy(allocate):
    with pytest.raises(TrainingError, match="(?s)^out of memory: .*allocate.*batch_size=1"), told_when_short_of_memory():
        allocate()


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="size of tensor a"), told_when_short_of_memory():
        torch.zeros(2) + torch.zeros(3)
