"""Cases in which only some structures were annotated: an unlabelled structure adds no loss, no gradient and no score."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg.data.check import check_dataset
from autoseg.data.labels import LabelSchema
from autoseg.data.measure import measure_fingerprint
from autoseg.data.scan import scan_dataset
from autoseg.engines import LocalEngine
from autoseg.errors import DatasetError, TrainingError
from autoseg.evaluation import evaluate_folder
from autoseg.evaluation.folder import Annotation
from autoseg.evaluation.report import NOT_ANNOTATED, ScoredFiles
from autoseg.imaging.files import write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.networks import Scores, build_network
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.store import open_case, preparation_digest, store_case
from autoseg.studies.cleaning import TryRules, decide_rules
from autoseg.training.batches import make_batch
from autoseg.training.fold import patch_dice
from autoseg.training.losses import LOSSES, refuse_deaf_loss
from autoseg.training.recipe import Recipe
from planners import NetworkSpec
from tests.helpers.datasets import Folder

SHAPE = (4, 5, 6)
LACKING = torch.tensor([[False, True, False], [True, False, True]])  # of three structures in two samples
NAMES = [name for name in LOSSES if LOSSES[name].__module__.startswith("autoseg.")]
REGIONS = ((1, 2, 3), (2, 3), (3,))


def some_logits(heads):
    torch.manual_seed(0)
    return torch.randn(2, heads, *SHAPE, dtype=torch.float64).float().requires_grad_()


def annotated_codes():
    """Codes of the structures that are annotated in each sample, and a few voxels to ignore."""
    codes = torch.stack([torch.tensor(choice)[torch.randint(0, len(choice), SHAPE)] for choice in ([0, 1, 3], [0, 2])])
    codes[:, 0, 0, :2] = -1
    return codes


def by_hand(name, logits, codes, lacking):
    """The loss of merged classes, written down voxel by voxel."""
    chances = logits.double().softmax(dim=1)
    entropies, scores = [], []
    for sample, there, own in zip(chances, codes, lacking, strict=True):
        merged = sample[0] + sum(sample[k + 1] for k in range(3) if own[k])
        valid = there >= 0
        of = torch.stack([merged, *sample[1:]])
        entropies += [-of[code][valid & (there == code)].log() for code in range(4)]
        for k in (k for k in range(3) if not own[k]):
            truth, guess = (there == k + 1)[valid].double(), sample[k + 1][valid]
            scores.append(1 - (2 * (truth * guess).sum() + 1e-5) / (truth.sum() + guess.sum() + 1e-5))
    found = {"cross_entropy": torch.cat(entropies).mean(), "dice": torch.stack(scores).mean()}
    return found.get(name, sum(found.values()))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_background_and_unlabelled_structures_as_one_class(name):
    logits, codes = some_logits(4), annotated_codes()
    found = LOSSES[name](logits, codes, unlabelled=LACKING)
    assert found.item() == pytest.approx(by_hand(name, logits, codes, LACKING).item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_no_gradient_moves_probability_between_background_and_an_unlabelled_structure(name, batch_dice):
    logits, codes = some_logits(4), annotated_codes()
    LOSSES[name](logits, codes, batch_dice=batch_dice, unlabelled=LACKING).backward()
    chances, gradient = logits.detach().softmax(dim=1), logits.grad
    for sample, head in ((0, 2), (1, 1), (1, 3)):
        # a logit's gradient is its probability times what its class has in excess of the mean: equal where classes are one
        torch.testing.assert_close(
            gradient[sample, head] * chances[sample, 0], gradient[sample, 0] * chances[sample, head], rtol=1e-4, atol=1e-9
        )
    plain = some_logits(4)
    LOSSES[name](plain, codes, batch_dice=batch_dice).backward()
    apart = plain.grad[0, 2] * chances[0, 0] - plain.grad[0, 0] * chances[0, 2]
    assert apart.abs().max() > 1e-6 or name == "dice", "told nothing of it, the loss takes the structure for background"


def test_nothing_pushes_an_unlabelled_structure_down_where_the_label_says_background():
    logits, codes = some_logits(4), torch.zeros(2, *SHAPE, dtype=torch.int16)
    LOSSES["cross_entropy"](logits, codes, unlabelled=LACKING).backward()
    assert logits.grad[0, 2].max() <= 0
    assert logits.grad[1, [1, 3]].max() <= 0
    assert logits.grad[0, 1].min() > 0, "one that is annotated and not there is pushed down"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_sample_without_any_annotated_structure_has_no_loss_and_no_gradient(name, batch_dice):
    logits, codes = some_logits(4), torch.zeros(2, *SHAPE, dtype=torch.int16)
    found = LOSSES[name](logits, codes, batch_dice=batch_dice, unlabelled=torch.ones(2, 3, dtype=torch.bool))
    found.backward()
    assert abs(found.item()) < 1e-6
    assert logits.grad.abs().max() < 1e-7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_channel_of_an_unlabelled_region_has_no_gradient_and_no_part_in_the_loss(name, batch_dice):
    logits, codes = some_logits(3), torch.randint(-1, 4, (2, *SHAPE))
    loss = partial(LOSSES[name], batch_dice=batch_dice, regions=REGIONS, unlabelled=LACKING)
    found = loss(logits, codes)
    found.backward()
    assert logits.grad[LACKING].abs().max() == 0
    assert logits.grad[~LACKING].flatten(1).abs().amax(dim=1).min() > 0
    other = logits.detach().clone()
    other[LACKING] = 40.0
    assert loss(other, codes).item() == found.item()


def test_a_loss_in_which_all_is_annotated_is_the_plain_one():
    logits, codes = some_logits(4), torch.randint(-1, 4, (2, *SHAPE))
    none = torch.zeros(2, 3, dtype=torch.bool)
    for name in NAMES:
        torch.testing.assert_close(LOSSES[name](logits, codes, unlabelled=none), LOSSES[name](logits, codes))


@pytest.mark.thorough
@pytest.mark.parametrize("regions", [(), REGIONS])
def test_scores_that_are_computed_slab_by_slab_have_the_same_marginal_loss(regions, monkeypatch):
    monkeypatch.setattr("autoseg.training.losses.SLAB", 200)
    torch.manual_seed(1)
    heads = 3 if regions else 4
    scores = Scores(torch.randn(2, 2, *SHAPE), torch.randn(heads, 2, 1, 1, 1), torch.zeros(heads))
    loss = partial(LOSSES["dice_cross_entropy"], regions=regions, unlabelled=LACKING)
    codes = annotated_codes()
    torch.testing.assert_close(loss(scores, codes), loss(scores.logits(), codes))


def test_a_loss_that_cannot_be_told_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(LOSSES, "deaf", lambda logits, codes, *, batch_dice=False, regions=(): logits.sum())
    for name in NAMES:
        refuse_deaf_loss(name)
    with pytest.raises(TrainingError, match="'deaf'.*--set loss"):
        refuse_deaf_loss("deaf")


@pytest.fixture
def cases(tmp_path):
    """Two prepared cases: of the first only structure 0 is annotated, of the second only structure 1."""
    found = []
    for number, lacking in enumerate([(1,), (0,)]):
        codes = np.zeros((20, 24, 22), np.int16)
        codes[8:12, 8:12, 8:12] = number + 1
        image = np.full((1, *codes.shape), number, np.float32)
        grid = Geometry.from_spacing(codes.shape, (1, 1, 1))
        store_case(
            tmp_path / f"c{number}", PreparedCase(f"c{number}", image, codes, grid, find_locations(codes, 0), lacking), ""
        )
        found.append(open_case(tmp_path / f"c{number}"))
    return found


def two_structures(plan):
    return replace(plan, network=replace(plan.network, out_channels=3))


def test_a_batch_says_of_each_sample_what_is_unlabelled(cases, plan):
    labels = LabelSchema(("a", "b"), ((1,), (2,)), False, (1, 2))
    recipe = Recipe(batch_size=4, patch_curriculum=(), augmentation="none", foreground=1.0)
    seen = set()
    for step in range(3):
        batch = make_batch(cases, two_structures(plan), recipe, labels, 0, step, 1.0)
        for image, codes, lacking in zip(batch.images, batch.codes, batch.unlabelled.tolist(), strict=True):
            number = int(image.max())  # each case has an intensity of its own
            assert lacking == [number == 1, number == 0]
            assert set(codes.unique().tolist()) == {0, number + 1}, "the patch shows a structure that is annotated"
            seen.add(number)
    assert seen == {0, 1}
    assert [tensor.shape for tensor in batch.each(torch.clone).tensors] == [tensor.shape for tensor in batch.tensors]
    whole = [
        SimpleNamespace(**{name: getattr(case, name) for name in ("shape", "image", "codes", "locations")}) for case in cases
    ]
    for case in whole:
        case.unlabelled = ()
    assert make_batch(whole, two_structures(plan), recipe, labels, 0, 0, 1.0).unlabelled is None


def test_validation_leaves_a_structure_out_where_it_is_not_annotated():
    labels = LabelSchema(("a", "b"), ((1,), (2,)), False, (1, 2))
    codes = torch.zeros(2, *SHAPE, dtype=torch.int16)
    codes[0, 1], codes[1, 2] = 1, 2
    both = torch.zeros(2, *SHAPE, dtype=torch.int64)
    both[:, 1], both[:, 2] = 1, 2  # which finds both structures in both samples
    logits = torch.nn.functional.one_hot(both, 3).movedim(-1, 1).float()
    assert patch_dice([(logits, codes, torch.tensor([[False, True], [True, False]]))], labels) == {"a": 1.0, "b": 1.0}
    assert patch_dice([(logits, codes, None)], labels) == {"a": 2 / 3, "b": 2 / 3}


@pytest.fixture
def folder(tmp_path):
    """Of the first case only ``first`` is annotated, of the second both are."""
    made = Folder(tmp_path / "Dataset001_Partly")
    label = np.zeros((6, 8, 10), np.uint8)
    label[1:3, 2:5, 2:6] = 1
    made.add("p1", label=label).add("p2")
    made.json["annotated"] = {"p1": ["first"]}
    return made


def test_what_dataset_json_says_reaches_scan_fingerprint_and_findings(folder):
    spec = folder.read()
    assert [case.unlabelled for case in spec.training] == [(1,), ()]
    scans = scan_dataset(spec)
    assert [scan.unlabelled for scan in scans] == [(1,), ()]
    assert measure_fingerprint(spec, scans).annotated_in == (2, 1)
    (note,) = [finding for finding in check_dataset(spec, scans) if finding.code == "partial-labels"]
    assert "first in 2, second in 1" in note.message
    del folder.json["annotated"]
    plain = folder.read()
    assert scan_dataset(plain, known=scans)[0].unlabelled == (), "a scan of another declaration is not taken again"
    assert measure_fingerprint(plain).annotated_in == ()
    assert preparation_digest(["x"], plain.labels, folder_plan()) != preparation_digest(
        ["x"], plain.labels, folder_plan(), (1,)
    )


def folder_plan():
    from tests.helpers.models import make_plan

    return make_plan()


def test_listed_cases_may_say_it_in_their_entry(folder):
    spec = folder.read()
    folder.json.pop("annotated")
    folder.json["dataset"] = {
        case.id: {"images": [str(path) for path in case.images], "label": str(case.label)} for case in spec.training
    }
    folder.json["dataset"]["p2"]["annotated"] = ["second"]
    assert [case.unlabelled for case in folder.read().training] == [(), (0,)]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["first"], "must be an object of case -> list of structures"),
        ({"p9": ["first"]}, "names p9; there is no such case"),
        ({"p1": []}, "case 'p1' needs a list of structures, of first, second"),
        ({"p1": ["third"]}, "case 'p1' needs a list of structures, of first, second"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(folder, said, message):
    folder.json["annotated"] = said
    with pytest.raises(DatasetError, match=message):
        folder.read()


def test_a_label_with_voxels_of_a_structure_that_is_called_unlabelled_is_an_error(folder):
    folder.json["annotated"] = {"p2": ["first"]}
    found = [finding for finding in check_dataset(folder.read()) if finding.severity == "error"]
    assert [(finding.case, finding.code) for finding in found] == [("p2", "label-not-annotated")]
    assert "2 (second)" in found[0].message


def test_a_structure_that_is_not_annotated_is_no_zero_dice(folder, tmp_path):
    spec = folder.read()
    target = tmp_path / "predicted"
    target.mkdir()
    both = np.zeros((6, 8, 10), np.uint8)
    both[1:3, 2:5, 2:6], both[3:5, 2:5, 2:6] = 1, 2  # what is annotated in p2, and true of p1 too
    for case in ("p1", "p2"):
        write_label_volume(LabelVolume(both, Geometry.from_spacing(both.shape, (2, 1, 1))), target / f"{case}.nii.gz")
    references = {case.id: case.label for case in spec.training}
    lacking = {case.id: case.unlabelled for case in spec.training}
    report = evaluate_folder(references, target, spec.labels, engine=LocalEngine(1), annotation=Annotation(unlabelled=lacking))
    second = report.summary("second", "dice")
    assert (second.n, second.n_cases, second.mean, dict(second.reasons)) == (1, 2, 1.0, {NOT_ANNOTATED: 1})
    assert report.summary("first", "dice").n == 2
    assert report.summary("first", "mse_mask_fg").mean == 0, "voxels of what is not annotated are no wrong foreground"
    assert report.unlabelled == {"p1": (1,)}
    assert report.notes == ("not annotated, so not scored: second in 1 case",)
    assert "not annotated" in report.table()
    assert evaluate_folder(references, target, spec.labels, engine=LocalEngine(1)).summary("second", "dice").mean == 0.5


def test_evaluation_reads_the_declaration_beside_the_references(folder, tmp_path):
    from autoseg.data.partial import unlabelled_beside

    spec = folder.read()
    assert unlabelled_beside([tmp_path, folder.path / "labelsTr"], spec.labels) == {"p1": (1,)}
    (folder.path / "dataset.json").write_text(json.dumps({"labels": {}}))
    assert unlabelled_beside([folder.path / "labelsTr"], spec.labels) == {}


def test_rules_are_not_judged_by_structures_that_nobody_annotated(tmp_path):
    labels = LabelSchema(("a", "b"), ((1,), (2,)), False, (1, 2))
    truth, guess = np.zeros((6, 20, 20), np.uint8), np.zeros((6, 20, 20), np.uint8)
    truth[1:5, 2:10, 2:10] = 1
    guess[1:5, 2:10, 2:10], guess[2:4, 14:18, 14:18], guess[0, 0, 0] = 1, 2, 2
    files = {}
    for number in range(7):
        pair = [tmp_path / f"{kind}{number}.nii.gz" for kind in ("truth", "guess")]
        for path, data in zip(pair, (truth, guess), strict=True):
            write_label_volume(LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1))), path)
        files[f"c{number}"] = ScoredFiles(*map(str, pair))
    lacking = dict.fromkeys(files, (1,))
    assert TryRules(labels, (), lacking).run(("c0", files["c0"])).before == (1.0, None)
    assert decide_rules(files, labels, LocalEngine(1), lacking).rules == ()


@pytest.mark.slow
def test_a_network_learns_two_structures_from_cases_that_each_lack_one():
    told, untold = learned(told=True), learned(told=False)
    assert min(told) > 0.85
    assert min(untold) < min(told), "taken for background where it is not annotated, a structure is learned less well"


def learned(*, told):
    """Dice of both structures in new images, of a small network that saw each structure annotated in every other sample."""
    spec = NetworkSpec("unet", 1, 3, (8, 16), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,), deep_supervision=False)
    torch.manual_seed(0)
    rng, network = np.random.default_rng(0), build_network(spec)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    lacking = torch.tensor([[False, True], [True, False]] * 2)
    for _ in range(150):
        images, codes = two_cubes(rng, 4)
        for sample, own in zip(codes, lacking, strict=True):
            sample[sample == 1 + own.int().argmax()] = 0  # nobody marked it
        loss = LOSSES["dice_cross_entropy"](network(images), codes, unlabelled=lacking if told else None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, codes = two_cubes(rng, 8)
    with torch.no_grad():
        found = network(images).argmax(dim=1)
    both = [((found == code) & (codes == code)).sum() / ((found == code).sum() + (codes == code).sum()) for code in (1, 2)]
    return [2 * value.item() for value in both]


def two_cubes(rng, n):
    """(images (n, 1, 16, 16, 16), codes): a darker and a brighter cube in noise."""
    images, codes = rng.normal(0, 0.2, (n, 1, 16, 16, 16)), np.zeros((n, 16, 16, 16), np.int64)
    for image, label in zip(images, codes, strict=True):
        for code, first in ((1, 0), (2, 8)):
            z, (y, x) = first + rng.integers(1, 3), rng.integers(1, 10, 2)
            label[z : z + 5, y : y + 5, x : x + 5] = code
        image[0] += label
    return torch.from_numpy(images).float(), torch.from_numpy(codes)
