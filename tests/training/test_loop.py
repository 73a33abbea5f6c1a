"""The loop: resuming is exact, failures come out, early stopping ends early."""

import time
from dataclasses import replace

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.networks import build_network
from autoseg.networks.devices import prepare_for
from autoseg.training import loop
from autoseg.training.batch import Batch, Lesson
from autoseg.training.checkpoint import LoopState, read_state
from autoseg.training.loop import Job, Length, NotFinite, _steps_expected, fit
from autoseg.training.losses import dice_cross_entropy
from autoseg.training.recipe import Recipe
from planners import AttentionStage
from tests.helpers.networks import small_unet

SPEC = small_unet(4, 8, 8, input_mean=(0.5,), input_std=(0.25,))
RECIPE = Recipe(batch_size=2, patch_curriculum=(), bf16=False, validations=6, patience=None, checkpoint_minutes=1000)


def batch(step, fraction, left=0):
    """Bright blobs to be found; every step its own."""
    generator = torch.Generator().manual_seed(step)
    codes = (torch.nn.functional.avg_pool3d(torch.randn(2, 1, 16, 16, 16, generator=generator), 5, 1, 2) > 0.08).short()
    images = codes * 0.5 + 0.2 * torch.rand(codes.shape, generator=generator)
    return Batch(images, codes[:, 0])


def run(
    folder,
    *,
    recipe=RECIPE,
    steps=24,
    length=None,
    batch=batch,
    identity="same",
    rows=None,
    network=None,
    loss=dice_cross_entropy,
):
    torch.manual_seed(0)
    done = fit(
        network or build_network(SPEC).train(),
        batch,
        [_plain(1000)],
        Job(
            recipe=recipe,
            length=length or Length(steps=steps),
            loss=loss,
            score=lambda results: {"blob": 0.5 * len(list(results))},
            device=torch.device("cpu"),
            identity=identity,
            checkpoint=folder / "checkpoint.safetensors",
            prepare=_prepare,
        ),
        on_check=[].append if rows is None else rows.append,
    )
    assert done.applied.precision == ("bf16" if done.state.bf16 else "fp32")
    return done.state, done.weights


def _prepare(network, precision):
    return prepare_for(torch.device("cpu"), network, SPEC, [(16, 16, 16)], precision=precision, training=True)


def _plain(step):
    return batch(step, 1.0)


@pytest.mark.thorough
def test_checks_take_no_more_than_their_share_of_a_short_time(tmp_path):
    def slow_to_check(logits, codes):
        if not torch.is_grad_enabled():
            time.sleep(0.06)
        return dice_cross_entropy(logits, codes)

    rows = []
    state, _ = run(tmp_path, recipe=replace(RECIPE, validations=25), length=Length(seconds=1.2), loss=slow_to_check, rows=rows)
    assert 1 < len(rows) < 12  # all 25 would take 1.5 s
    assert rows[-1].step == state.step  # the weights at the end are measured, whether a check used up the rest or not
    assert state.seconds >= 1.2


def test_steps_are_expected_at_the_pace_so_far():
    """Small patches for two fifths of the time, of which three take as long as a whole one."""
    length, voxels = Length(seconds=100), [(0.4, 10), (1.0, 30)]
    begun = LoopState(identity="", steps_expected=1, bf16=False)
    assert _steps_expected(length, replace(begun, step=12, seconds=4), voxels) == 3 * 40 + 60
    assert _steps_expected(length, replace(begun, step=3 * 40 + 30, seconds=70), voxels) == 3 * 40 + 60
    assert _steps_expected(length, replace(begun, step=170, seconds=101), voxels) == 170
    assert _steps_expected(Length(steps=9), begun, voxels) == 9


@pytest.mark.thorough
def test_it_learns(tmp_path):
    rows = []
    run(tmp_path, steps=40, rows=rows)
    assert rows[-1].validation_loss < 0.7 * rows[0].validation_loss
    assert [row.step for row in rows] == sorted({row.step for row in rows})
    assert len(rows) == RECIPE.validations


@pytest.mark.thorough
def test_resuming_equals_not_having_been_interrupted(tmp_path):
    rows, before, after = [], [], []
    _, straight = run(tmp_path / "a", rows=rows)

    def dies(step, fraction, left=0):
        if step == 14:
            raise OSError("disk gone")
        return batch(step, fraction)

    often = replace(RECIPE, checkpoint_minutes=1e-9)
    with pytest.raises(OSError, match="disk gone"):
        run(tmp_path / "b", recipe=often, batch=dies, rows=before)
    assert 5 < (reached := read_state(tmp_path / "b" / "checkpoint.safetensors").step) <= 14
    state, resumed = run(tmp_path / "b", recipe=often, rows=after)
    assert state.step == 24
    written = [row for row in before if row.step <= reached] + after
    assert [replace(row, seconds=0) for row in written] == [replace(row, seconds=0) for row in rows]
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.thorough
def test_same_seed_same_weights(tmp_path):
    first, second = run(tmp_path / "a", steps=6)[1], run(tmp_path / "b", steps=6)[1]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.thorough
def test_float32_on_a_cpu_trains_channels_last_and_hands_back_plain_weights(tmp_path):
    network = build_network(SPEC).train()
    _, weights = run(tmp_path, steps=2, network=network)
    assert not all(p.is_contiguous() for p in network.parameters())
    assert all(t.is_contiguous() for t in weights.values())
    network = build_network(SPEC).train()
    run(tmp_path / "bf16", steps=2, network=network, recipe=replace(RECIPE, bf16=True))
    assert all(p.is_contiguous() for p in network.parameters())


def test_a_finished_training_is_not_repeated(tmp_path):
    run(tmp_path, steps=4)

    def never(step, fraction, left=0):
        raise AssertionError("asked for a batch")

    assert run(tmp_path, steps=4, batch=never)[0].finished


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    run(tmp_path, steps=2)
    with pytest.raises(TrainingError, match="other settings, data or plan"):
        run(tmp_path, steps=2, identity="other")


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path, steps=2)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="--fresh"):
        run(tmp_path, steps=2)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    def broken(step, fraction, left=0):
        plain = batch(step, fraction)
        return replace(plain, images=plain.images * (float("nan") if step == 3 else 1))

    with pytest.raises(TrainingError, match="step 3: the loss is nan"):
        run(tmp_path, batch=broken)


def test_a_settled_validation_loss_ends_the_training_early(tmp_path):
    def same(step, fraction, left):
        ends.append(round(step + left, 6))
        return batch(0, 1.0)

    recipe = replace(RECIPE, validations=40, patience=2, learning_rate=1e-7, muon_learning_rate=1e-7)
    rows, ends = [], []
    state, _ = run(tmp_path, recipe=recipe, steps=80, batch=same, rows=rows)
    assert state.cooldown is not None
    assert state.step == pytest.approx(80 * state.cooldown / recipe.constant_until, abs=2)
    assert state.step < 40
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx(80)  # batches are told how many steps are left
    assert ends[-1] == pytest.approx(80 * state.cooldown / recipe.constant_until)


@pytest.mark.thorough
def test_the_averaged_weights_are_returned(tmp_path):
    _, averaged = run(tmp_path / "a", steps=8)
    _, last = run(tmp_path / "b", steps=8, recipe=replace(RECIPE, ema=False))
    assert any(not torch.equal(averaged[name], last[name]) for name in last)


def restoring(detached):
    torch.manual_seed(0)
    return build_network(replace(SPEC, restoration=True), restoration_detached=detached).train()


def with_clean(step, fraction, left=0):
    images, codes = batch(step, fraction).tensors
    clean = codes[:, None] * 0.5 + 0.1  # the noise of ``batch`` has this mean
    return Batch(images, codes, Lesson(images, clean, torch.ones(len(codes), 3)))


@pytest.mark.slow
def test_a_detached_restoration_leaves_the_segmentation_as_it_is(tmp_path):
    recipe = replace(RECIPE, restoration_weight=1.0)
    _, plain = run(tmp_path / "a", steps=10)
    _, detached = run(tmp_path / "b", steps=10, recipe=recipe, batch=with_clean, network=restoring(True))
    _, attached = run(tmp_path / "c", steps=10, recipe=recipe, batch=with_clean, network=restoring(False))
    assert all(torch.equal(tensor, detached[name]) for name, tensor in plain.items())
    assert any(not torch.equal(tensor, attached[name]) for name, tensor in plain.items())
    assert detached["restoration.correct.weight"].abs().max() > 0


@pytest.mark.slow
def test_resuming_a_restoration_equals_not_having_been_interrupted(tmp_path):
    recipe = replace(RECIPE, restoration_weight=0.3, checkpoint_minutes=1e-9)

    def every_third(step, fraction, left=0):
        return batch(step, fraction) if step % 3 else with_clean(step, fraction)

    def dies(step, fraction, left=0):
        if step == 8:
            raise OSError("disk gone")
        return every_third(step, fraction)

    _, straight = run(tmp_path / "a", steps=12, recipe=recipe, batch=every_third, network=restoring(False))
    with pytest.raises(OSError, match="disk gone"):
        run(tmp_path / "b", steps=12, recipe=recipe, batch=dies, network=restoring(False))
    assert 3 < read_state(tmp_path / "b" / "checkpoint.safetensors").step <= 8
    _, resumed = run(tmp_path / "b", steps=12, recipe=recipe, batch=every_third, network=restoring(False))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.items())
    assert straight["restoration.correct.weight"].abs().max() > 0


@pytest.mark.thorough
def test_restoration_is_learned(tmp_path):
    def darker(step, fraction, left=0):
        images, codes = batch(step, fraction).tensors
        return Batch(images, codes, Lesson(images, (images - 0.1).clamp(0, 1), torch.ones(len(codes), 3)))

    recipe = replace(RECIPE, restoration_weight=1.0)
    network = restoring(False)
    _, weights = run(tmp_path, steps=40, recipe=recipe, batch=darker, network=network)
    network.load_state_dict(weights)
    images, _, _, clean, _ = darker(1000, 1.0).tensors
    _, restored = network.eval()(images, restore=True)
    assert (restored - clean).abs().mean() < 0.7 * (images - clean).abs().mean()


@pytest.mark.thorough
def test_a_checkpoint_in_bfloat16_goes_on_in_float32_where_the_machine_needs_that(tmp_path):
    def dies(step, fraction, left=0):
        if step == 13:
            raise OSError("disk gone")
        return batch(step, fraction)

    with pytest.raises(OSError, match="disk gone"):
        run(tmp_path, recipe=replace(RECIPE, bf16=True, checkpoint_minutes=1e-9), batch=dies)
    assert read_state(tmp_path / "checkpoint.safetensors").bf16
    state, _ = run(tmp_path)
    assert state.step == 24
    assert not state.bf16


@pytest.mark.thorough
def test_weight_decay_leaves_slots_scales_and_gates_alone(tmp_path):
    spec = replace(SPEC, name="self_attention_unet", attention=(AttentionStage(1, "slot", 1, 6),))
    torch.manual_seed(0)
    network = build_network(spec).train()
    before = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    recipe = replace(RECIPE, weight_decay=0.5, ema=False, muon_learning_rate=0.0)  # Muon has no decay
    _, after = run(tmp_path, network=network, recipe=recipe, loss=lambda logits, codes: 0 * logits.sum())
    spared = [name for name in before if name.endswith((".slots", ".scale", ".gate"))]
    assert len(spared) == 3
    for name in spared:
        assert torch.equal(after[name], before[name]), name
    matrices = [name for name in before if name.endswith("weight") and before[name].ndim > 1 and "heads" not in name]
    assert len(matrices) > 8
    for name in matrices:
        assert after[name].norm() < 0.9 * before[name].norm(), name


@pytest.mark.thorough
@pytest.mark.parametrize("broken", ["weight", "average"])
def test_weights_that_are_not_numbers_are_never_kept(tmp_path, broken, monkeypatch):
    """The loss of a step is measured before its weights are changed: it may be good where they are not."""
    network, descend, average = build_network(SPEC).train(), loop.descend, loop._average
    often = replace(RECIPE, checkpoint_minutes=1e-9)

    def spoil(tensors):
        if len(steps) == 6:
            next(iter(tensors)).view(-1)[0] = float("inf" if broken == "average" else "nan")

    def spoiled_descend(*arguments):
        descend(*arguments)
        steps.append(1)
        if broken == "weight":
            spoil(parameter.data for parameter in network.parameters())

    def spoiled_average(averaged, *arguments):
        average(averaged, *arguments)
        if broken == "average":
            spoil(averaged.values())

    steps = []
    monkeypatch.setattr(loop, "descend", spoiled_descend)
    monkeypatch.setattr(loop, "_average", spoiled_average)
    with pytest.raises(NotFinite, match=r"step 5: the weights of .* are not finite. The last checkpoint is whole") as told:
        run(tmp_path, recipe=often, network=network)
    assert told.value.step == 5
    assert read_state(tmp_path / "checkpoint.safetensors").step == 5  # steps 0 to 4
    monkeypatch.undo()
    assert run(tmp_path, recipe=often)[0].finished


def test_a_validation_loss_that_is_not_a_number_stops_the_run(tmp_path):
    def broken_in_validation(logits, codes):
        return dice_cross_entropy(logits, codes) + (0 if torch.is_grad_enabled() else torch.nan)

    with pytest.raises(NotFinite, match="the validation loss is nan"):
        run(tmp_path, loss=broken_in_validation)
