"""Topology, memory, patch and batch."""

import time
from dataclasses import replace

import pytest

from planners import PRESETS, Budget, count_elements, count_parameters, get_planner
from planners.topology import choose_features, choose_topology
from tests.helpers.networks import small_unet


def test_a_cube_is_halved_down_to_four_voxels():
    topology = choose_topology((1, 1, 1), (128, 128, 128))
    assert topology.strides == ((1, 1, 1),) + ((2, 2, 2),) * 5
    assert set(topology.kernels) == {(3, 3, 3)}


def test_thick_slices_are_halved_later_and_begin_with_flat_kernels():
    topology = choose_topology((4, 1, 1), (32, 128, 128))
    assert topology.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert topology.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_edges_are_rounded_up_to_what_the_strides_divide():
    assert choose_topology((1, 1, 1), (36, 50, 35)).patch == (40, 56, 40)
    assert choose_topology((1, 1, 1), (36.5, 50, 35)).patch == (40, 56, 40)


def test_an_axis_of_one_voxel_is_left_alone():
    topology = choose_topology((0.1, 1, 1), (1, 64, 64))
    assert {stride[0] for stride in topology.strides} == {kernel[0] for kernel in topology.kernels} == {1}
    assert topology.strides == tuple((1, *stride[1:]) for stride in choose_topology((1, 1, 1), (64, 64, 64)).strides)


@pytest.mark.parametrize("patch", [(1, 1, 1), (2, 3, 5), (7, 7, 7), (1, 1, 9), (8, 8, 8), (16, 11, 3)])
def test_there_are_two_stages_however_small_the_image(patch):
    topology = choose_topology((1, 1, 1), patch)
    assert len(topology.strides) == len(topology.kernels) >= 2
    assert all(edge % divisor == 0 for edge, divisor in zip(topology.patch, topology.divisor, strict=True))
    assert all(edge >= wanted for edge, wanted in zip(topology.patch, patch, strict=True))


def test_features_double_up_to_their_limit():
    assert choose_features(7, slices=False) == (32, 64, 128, 256, 320, 320, 320)
    assert choose_features(7, slices=True) == (32, 64, 128, 256, 512, 512, 512)


SPEC = small_unet(4, 8, blocks=2)


def test_elements_of_a_plain_network_counted_by_hand():
    # 8^3 and 4^3 voxels; encoder 2 * 4 and 2 * 8 maps, decoder 2 + 1 times 4, input 1, output 2
    assert count_elements(SPEC, (8, 8, 8)) == 512 * (8 + 12 + 3) + 64 * 16
    assert count_elements(SPEC, (8, 8, 8), inputs=0, outputs=5) == 512 * (8 + 12 + 5) + 64 * 16


def test_elements_of_a_residual_network_counted_by_hand():
    # stem 4; one block of 2 maps; two blocks of 2 maps and a shortcut; decoder 1 + 1 times 4; ends 3
    spec = replace(SPEC, name="residual_unet", encoder_blocks=(1, 2), decoder_blocks=(1,))
    assert count_elements(spec, (8, 8, 8)) == 512 * (4 + 8 + 8 + 3) + 64 * (4 * 8 + 8)


def test_parameters_counted_by_hand():
    def convolution(before, after):
        return 27 * before * after + 3 * after

    decoder = 8 * 8 * 4 + 4 + convolution(8, 4)
    plain = convolution(1, 4) + convolution(4, 4) + convolution(4, 8) + convolution(8, 8) + convolution(4, 4)
    assert count_parameters(SPEC) == plain + decoder + 2 * 5
    residual = convolution(1, 4) + 2 * convolution(4, 4) + convolution(4, 8) + convolution(8, 8) + 4 * 8 + 16
    spec = replace(SPEC, name="residual_unet", encoder_blocks=(1, 1), decoder_blocks=(1,))
    assert count_parameters(spec) == residual + decoder + 2 * 5


@pytest.mark.thorough
def test_more_input_channels_leave_room_for_less(fingerprint_of):
    big = [((1, 1, 1), (400, 400, 400), 50)]
    one, many = (get_planner("fullres_3d").plan(fingerprint_of(big, ("MRI",) * n)) for n in (1, 60))
    voxels = [plan.patch_size[0] * plan.patch_size[1] * plan.patch_size[2] for plan in (one, many)]
    assert voxels[0] > voxels[1]
    assert many.memory_elements * many.batch_size <= 2 * 560e6


@pytest.mark.thorough
def test_more_memory_gives_no_smaller_patch(liver):
    plans = [get_planner("fullres_3d").plan(liver, Budget(gpu_memory_gb=gb)) for gb in (2, 4, 8, 16, 40, 80)]
    voxels = [plan.patch_size[0] * plan.patch_size[1] * plan.patch_size[2] for plan in plans]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]


@pytest.mark.parametrize("preset", PRESETS)
def test_small_scans_do_not_get_absurd_batches(hippocampus, preset):
    assert get_planner("fullres_3d", preset).plan(hippocampus).batch_size == 8
    assert get_planner("slices_2d", preset).plan(hippocampus).batch_size == 48


@pytest.mark.thorough
def test_a_hopeless_budget_is_warned_about(liver):
    plan = get_planner("fullres_3d").plan(liver, Budget(gpu_memory_gb=1e-5))
    assert plan.batch_size == 1
    assert any(decision.warning and decision.what == "memory" for decision in plan.decisions)


def test_one_output_scale_needs_no_deep_supervision(fingerprint_of):
    plan = get_planner("fullres_3d").plan(fingerprint_of([((1, 1, 1), (8, 8, 8), 3)]))
    assert len(plan.network.features) == 2
    assert not plan.network.deep_supervision


def test_regions_have_no_background_channel(fingerprint_of):
    groups, names = [((1, 1, 1), (64, 64, 64), 9)], ("whole tumour", "tumour core")
    regions = fingerprint_of(groups, structures=names, has_regions=True, n_labels=3)
    ignoring = fingerprint_of(groups, structures=names, has_ignore=True, n_labels=4)
    assert get_planner("fullres_3d").plan(regions).network.out_channels == 2
    assert get_planner("fullres_3d").plan(ignoring).network.out_channels == 3


def test_iterations_grow_with_the_data_between_two_limits(hippocampus, liver, fingerprint_of):
    brain = fingerprint_of([((1, 1, 1), (138, 170, 138), 484)], ("T1", "T1ce", "T2", "FLAIR"))
    lengths = [get_planner("fullres_3d").plan(data).iterations for data in (hippocampus, brain, liver)]
    assert lengths == [10_000, 37_000, 250_000]
    assert get_planner("fullres_3d").plan(hippocampus, Budget(parity=True)).iterations == 250_000


def test_a_plan_takes_milliseconds(liver):
    start = time.process_time()
    get_planner("slices_2d").plan(liver)
    get_planner("fullres_3d", "xl").plan(liver)
    assert time.process_time() - start < 1  # some 50 ms; the rest is for slow machines
