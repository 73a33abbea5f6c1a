"""Real scans: those that were held out are rarely called unlike the training scans, those of another kind always."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.scan import scan_case
from autoseg.data.unlike import TrainingScans, Unlike, training_scans
from autoseg.imaging.files import read_volume
from autoseg.imaging.volume import Volume
from autoseg.preprocess.facts import unlike_training
from planners.plan import ChannelNormalization, Plan
from tests.helpers.models import make_plan

DATA = Path(__file__).parents[3] / "shared" / "data"
SCHEMES = {"Dataset004_Hippocampus": "robust", "Dataset027_ACDC": "robust", "Dataset055_HeadNeckCT": "ct"}
EVERY = {"Dataset004_Hippocampus": 4, "Dataset027_ACDC": 4, "Dataset055_HeadNeckCT": 2}  # of the cases

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all((DATA / name).is_dir() for name in SCHEMES), reason="the real data sets are not here"),
]


def plan_of(name: str) -> Plan:
    how = ChannelNormalization("C", SCHEMES[name], lower=-150.0, upper=1500.0)
    network = make_plan().network
    return dataclasses.replace(
        make_plan(), normalization=(how,), network=dataclasses.replace(network, input_mean=(), input_std=())
    )


def halves(name: str) -> tuple[DatasetSpec, TrainingScans, list[Volume]]:
    """(data set, what a model keeps of three quarters of some cases, the other quarter)."""
    spec = read_dataset(DATA / name)
    cases = spec.training[:: EVERY[name]]
    held = cases[::4]
    known = training_scans(("C",), [scan_case(case, spec) for case in cases if case not in held])
    assert known is not None
    return spec, known, [read_volume(case.images) for case in held]


@pytest.fixture(scope="module", params=sorted(SCHEMES))
def learned(request: pytest.FixtureRequest) -> tuple[str, TrainingScans, list[Volume]]:
    _, known, held = halves(request.param)
    return request.param, known, held


def told(learned: tuple[str, TrainingScans, list[Volume]], volume: Volume) -> tuple[Unlike, ...]:
    name, known, _ = learned
    return unlike_training(volume, plan_of(name), known)


def test_scans_that_were_held_out_are_rarely_called_unlike(learned: tuple[str, TrainingScans, list[Volume]]) -> None:
    alarms = [told(learned, volume) for volume in learned[2]]
    assert sum(map(bool, alarms)) <= 1, alarms


def test_scans_of_another_data_set_are_unlike(learned: tuple[str, TrainingScans, list[Volume]]) -> None:
    for other in SCHEMES:
        if other != learned[0]:
            spec = read_dataset(DATA / other)
            assert all(told(learned, read_volume(case.images)) for case in spec.training[:6])


def test_scans_that_were_cropped_or_coarsened_are_unlike(learned: tuple[str, TrainingScans, list[Volume]]) -> None:
    for volume in learned[2][:6]:
        data, grid = volume.data, volume.geometry
        coarse = [max(1, edge // 4) for edge in grid.shape]
        picked = [np.minimum(np.arange(n) * 4 + 2, edge - 1) for n, edge in zip(coarse, grid.shape, strict=True)]
        assert told(learned, Volume(data[np.ix_(range(len(data)), *picked)], grid.resized(coarse)))
        for axis in range(3):
            lower, shape = [0, 0, 0], list(grid.shape)
            lower[axis], shape[axis] = shape[axis] // 3, shape[axis] // 3
            box = tuple(slice(a, a + n) for a, n in zip(lower, shape, strict=True))
            assert told(learned, Volume(data[(slice(None), *box)], grid.cropped(lower, shape)))


def test_inverted_contrast_and_ct_of_another_unit_are_told(learned: tuple[str, TrainingScans, list[Volume]]) -> None:
    for volume in learned[2][:6]:
        data, grid = volume.data, volume.geometry
        if learned[0] != "Dataset004_Hippocampus":  # whose histogram is balanced
            assert told(learned, Volume(data.max() + data.min() - data, grid))
        if learned[0] == "Dataset055_HeadNeckCT":
            assert told(learned, Volume((data - data.min()) / np.ptp(data), grid))
            assert told(learned, Volume(data + 1024, grid))
