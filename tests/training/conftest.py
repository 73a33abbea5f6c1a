"""A small plan for the tests of batches and folds."""

import pytest

from planners import Budget, ChannelStats, Fingerprint, get_planner


@pytest.fixture(scope="session")
def plan():
    fingerprint = Fingerprint(
        dataset="made_up",
        cases=("a", "b"),
        shapes=((20, 24, 22),) * 2,
        spacings_mm=((1.0, 1.0, 1.0),) * 2,
        channels=(ChannelStats("MRI", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0),),
        structures=("blob",),
        n_labels=2,
        relative_crop=1.0,
    )
    return get_planner("fullres_3d").plan(fingerprint, Budget())
