"""Whatever is killed or stopped at whatever moment: the same command ends in the state of a run that nobody disturbed.

A few moments of each verb in the usual tests, 150 kills with ``-m slow``; ``benchmarks/kills.py`` counts them.
"""

import os

import pytest

from tests.helpers.kills import WHOLE, disturb, serving

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are killed in forks")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("kills")) as server:
        yield server


@pytest.mark.parametrize(
    ("verb", "kills", "stops"),
    [
        ("plan_and_preprocess", 3, 1),
        ("train", 1, 0),
        ("predict", 1, 0),
        pytest.param("reconstruct", 1, 0, marks=pytest.mark.slow),
        ("convert", 3, 1),
        pytest.param("evaluate", 1, 0, marks=pytest.mark.slow),
    ],
)
def test_a_killed_command_ends_in_the_state_of_an_undisturbed_one_when_it_is_repeated(server, verb, kills, stops):
    done = disturb(server, verb, kills=kills, stops=stops)
    assert done.killed == kills
    assert done.stopped == 3 * stops


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("verb", "kills"), WHOLE.items())
def test_150_kills_lose_nothing(server, verb, kills):
    done = disturb(server, verb, kills=kills, stops=2, seed=2)
    assert done.killed == kills
    assert done.stopped >= 3  # those before a change always arrive


def test_the_whole_is_150_kills_over_seven_verbs():
    assert len(WHOLE) >= 7
    assert sum(WHOLE.values()) >= 150
