"""What holds for any data set."""

import json

from hypothesis import given
from hypothesis import strategies as st

from planners import (
    PLANNERS,
    PRESETS,
    Budget,
    ChannelStats,
    Fingerprint,
    Plan,
    count_elements,
    from_json,
    get_planner,
    plan_all,
    to_json,
)
from tests.helpers.examples import examples

EDGES = st.integers(1, 700)
MILLIMETRES = st.floats(0.05, 20)


@st.composite
def fingerprints(draw):
    cases = draw(st.integers(1, 12))
    shapes = [draw(st.tuples(EDGES, EDGES, EDGES)) for _ in range(cases)]
    if draw(st.booleans()):
        shapes = [(1, y, x) for _, y, x in shapes]
    names = draw(st.lists(st.sampled_from(["CT", "MRI", "image", "zscore", "rgb_to_0_1"]), min_size=1, max_size=20))
    low, width = draw(st.floats(-2000, 2000)), draw(st.floats(0, 5000))
    structures = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30, unique=True))
    return Fingerprint(
        dataset="any",
        cases=tuple(f"{i:03d}" for i in range(cases)),
        shapes=tuple(shapes),
        spacings_mm=tuple(draw(st.tuples(MILLIMETRES, MILLIMETRES, MILLIMETRES)) for _ in range(cases)),
        channels=tuple(ChannelStats(n, low, low, width / 4, low, low + width, low, low + width) for n in names),
        structures=tuple(structures),
        n_labels=len(structures) + 1,
        relative_crop=draw(st.floats(0.01, 1)),
        has_regions=draw(st.booleans()),
    )


BUDGETS = st.builds(Budget, st.none() | st.floats(1, 100), st.booleans())


@examples(50)
@given(fingerprints(), BUDGETS, st.sampled_from(sorted(PLANNERS)), st.sampled_from(sorted(PRESETS)))
def test_any_data_set_gets_a_valid_plan(fingerprint, budget, name, preset):
    plan = get_planner(name, preset).plan(fingerprint, budget)
    network = plan.network
    assert all(edge % divisor == 0 for edge, divisor in zip(plan.patch_size, network.divisor, strict=True))
    assert plan.patch_size[0] == 1 or name != "slices_2d"
    assert plan.batch_size >= (2 if budget.parity else 1)
    assert len(network.features) >= 2
    assert network.deep_supervision == (len(network.features) > 2)
    assert min(network.input_std) > 0
    labels = plan.coarse.count if plan.coarse else 0
    assert len(network.input_mean) == network.in_channels == len(fingerprint.channels) + labels
    assert len(plan.normalization) == len(fingerprint.channels)
    assert set(plan.mirror_axes) <= {axis for axis in range(3) if plan.patch_size[axis] > 1}
    assert 10_000 <= plan.iterations <= 250_000
    assert all(width >= 1 for width in plan.median_shape)
    assert get_planner(name, preset).plan(fingerprint, budget) == plan
    assert from_json(Plan, json.loads(json.dumps(to_json(plan)))) == plan


@examples(30)
@given(fingerprints(), st.none() | st.floats(1, 100), st.sampled_from(sorted(PRESETS)))
def test_the_feature_maps_of_a_batch_fit_into_the_budget(fingerprint, gb, preset):
    constants = PRESETS[preset]
    for plan in plan_all(fingerprint, Budget(gpu_memory_gb=gb), preset):
        reference = constants.elements_2d * 12 if plan.name == "slices_2d" else constants.elements_3d * 2
        allowed = reference * (gb or constants.memory_gb) / constants.memory_gb
        assert plan.memory_elements == count_elements(plan.network, plan.patch_size)
        assert plan.memory_elements * plan.batch_size <= allowed


@examples(20)
@given(fingerprints(), st.permutations(range(3)))
def test_plans_do_not_depend_on_how_the_scans_were_turned(fingerprint, order):
    """Where one axis is clearly the coarsest, patches turn with the scan (the other two axes keep their order)."""
    spacing, shape = (4.0, 1.0, 1.0), fingerprint.shapes[0][:1] + (128, 128)
    made = []
    for axes in ((0, 1, 2), order):
        turned = Fingerprint(
            "turned",
            fingerprint.cases,
            (tuple(shape[axis] for axis in axes),) * len(fingerprint.cases),
            (tuple(spacing[axis] for axis in axes),) * len(fingerprint.cases),
            fingerprint.channels,
            ("organ",),
            2,
        )
        made.append(get_planner("fullres_3d").plan(turned))
    assert made[0].patch_size == made[1].patch_size
    assert made[0].network == made[1].network
    assert made[0].spacing_mm == made[1].spacing_mm
