"""A want of memory is an error with a remedy, whoever notices it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.errors import TrainingError
from autoseg.training.memory import refuse_too_large, told_when_short_of_memory
from tests.helpers.networks import small_unet

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SPEC = small_unet(32, 64, blocks=2)


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


LIMITED = """
import resource
from pathlib import Path
import torch
from autoseg.errors import TrainingError
from autoseg.training.memory import refuse_too_large
from planners import NetworkSpec

spec = NetworkSpec("unet", 1, 2, (32, 64), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (2, 2), (2,))
refuse_too_large(spec, (64, 64, 64), 2, torch.device("cpu"))
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 50 * 2**20,) * 2)
try:
    refuse_too_large(spec, (64, 64, 64), 2, torch.device("cpu"))
except TrainingError as fault:
    print(fault)
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the address space is Linux's")
def test_a_limit_of_the_address_space_counts():
    told = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert re.search(r"needs at least 0\.\d GiB; cpu has 0\.0", told), told


@pytest.mark.parametrize(
    "allocate", [lambda args: torch.empty(2**60, dtype=torch.uint8), lambda args: np.empty(2**60, np.uint8)]
)
def test_the_command_line_says_in_a_sentence_that_memory_is_short(allocate, monkeypatch, capsys):
    monkeypatch.setattr("autoseg.cli.verify.run", allocate)
    assert main(["verify", "X"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("out of memory: ")
    assert re.search(r"; \d+\.\d .iB are free. Close other programs", told)
