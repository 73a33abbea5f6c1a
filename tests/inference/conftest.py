"""The plan of a model whose answer is known on paper."""

import dataclasses

import pytest

from autoseg.networks import NETWORKS
from tests.helpers.models import LABELS, Threshold, ball_volume, make_plan, write_model, write_scans


@pytest.fixture
def threshold_plan(monkeypatch):
    monkeypatch.setitem(NETWORKS, "threshold", Threshold)
    plan = make_plan()
    return dataclasses.replace(plan, network=dataclasses.replace(plan.network, name="threshold"))


@pytest.fixture
def tools():
    """Functions of ``tests.helpers.models`` by name; in new tests import them."""
    return {f.__name__: f for f in (make_plan, write_model, ball_volume, write_scans)} | {"labels": LABELS}
