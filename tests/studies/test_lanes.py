"""Which folds are trained at the same time, and where: from names and numbers alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.errors import AutosegError
from autoseg.studies.lanes import Lane, bytes_of_a_fold, device_names, how_many_fit, lanes_of
from tests.helpers.models import make_plan

FOLDS = ("0", "1", "2", "3", "4")


def test_folds_on_a_cpu_share_its_cores() -> None:
    assert lanes_of(FOLDS, ("cpu",), 2, 2) == (Lane(("0", "2", "4"), "cpu", 1), Lane(("1", "3"), "cpu", 1))
    assert [lane.threads for lane in lanes_of(FOLDS, ("cpu",), 2, 8)] == [4, 4]
    assert lanes_of(FOLDS, ("cpu",), 1, 4) == (Lane(FOLDS, "cpu", 4),)
    assert [lane.folds for lane in lanes_of(("3",), ("cpu",), 5, 2)] == [("3",)]
    assert lanes_of((), ("cpu",), 5, 2) == ()


def test_what_is_left_after_an_interruption_has_the_threads_that_it_had() -> None:
    assert lanes_of(FOLDS, ("cpu",), 2, 4, ["3"]) == (Lane(("3",), "cpu", 2),)
    assert lanes_of(FOLDS, ("cpu",), 2, 4, []) == ()


def test_every_device_has_a_lane_and_no_fold_is_forgotten() -> None:
    devices = ("cuda:0", "cuda:1", "cuda:3")
    lanes = lanes_of(FOLDS, devices, 1, 16)
    assert [lane.device for lane in lanes] == list(devices)
    assert sorted(fold for lane in lanes for fold in lane.folds) == list(FOLDS)
    assert {lane.threads for lane in lanes} == {None}
    assert [lane.device for lane in lanes_of(FOLDS, devices[:2], 4, 16)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert lanes[0].name == "folds 0, 3"
    assert lanes[2].name == "fold 2"


def test_as_many_fit_as_cores_and_memory_allow() -> None:
    assert how_many_fit(5, 8, None, 2**30) == 5
    assert how_many_fit(5, 2, None, 2**30) == 2
    assert how_many_fit(5, 8, 3 * 2**30 + 5, 2**30) == 3
    assert how_many_fit(5, 8, 1000, 2**30) == 1


def test_a_fold_takes_more_memory_with_larger_batches() -> None:
    plan = make_plan()
    one, other = (bytes_of_a_fold(plan, batch_size, half=False) for batch_size in (2, 4))
    assert other > one > bytes_of_a_fold(plan, 2, half=True)
    larger = replace(plan, patch_size=(64, 64, 64))
    assert bytes_of_a_fold(larger, 2, half=False) > 2 * one - 2**30


@pytest.mark.parametrize("text", ["cuda:0,", "cuda:0,cuda:0", "", "cpu,,cuda", "cuda:0,cpu"])
def test_devices_are_of_one_kind_and_named_each_once(text: str) -> None:
    assert device_names("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    with pytest.raises(AutosegError, match="expected a device, or several"):
        device_names(text)
