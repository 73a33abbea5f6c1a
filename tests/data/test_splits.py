import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.dataset import Case
from autoseg.data.splits import make_splits, own_splits, read_splits
from autoseg.errors import DatasetError

PEER = Path(__file__).parents[3] / "shared" / "reference" / "hippocampus_peer_folds.json"


def cases_of(patients):
    """One Case for each entry of {case: patient}."""
    return [Case(case, patient, (), None) for case, patient in patients.items()]


@pytest.mark.thorough
@settings(deadline=None)
@given(n=st.integers(5, 60), n_folds=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_folds_equal_those_of_scikit_learn(n, n_folds, seed):
    model_selection = pytest.importorskip("sklearn.model_selection")
    names = sorted(f"case_{i}" for i in range(n))
    theirs = model_selection.KFold(n_folds, shuffle=True, random_state=seed).split(names)
    ours = make_splits(cases_of({name: name for name in reversed(names)}), n_folds, seed)
    for split, (training, validation) in zip(ours, theirs, strict=True):
        assert split.training == tuple(np.array(names)[training])
        assert split.validation == tuple(np.array(names)[validation])


@pytest.mark.skipif(not PEER.is_file(), reason="the folds of the other tool are not here")
def test_hippocampus_folds_equal_those_of_nnunet():
    peer = json.loads(PEER.read_text())
    splits = make_splits(cases_of({case: case for fold in peer.values() for case in fold}))
    assert [list(split.validation) for split in splits] == [sorted(peer[str(fold)]) for fold in range(5)]


@settings(deadline=None)
@given(
    patients=st.dictionaries(st.text("abc123", min_size=1, max_size=6), st.sampled_from("pqrstuvw"), min_size=2),
    n_folds=st.integers(2, 7),
)
def test_folds_are_complete_and_disjoint_and_never_divide_a_patient(patients, n_folds):
    n_patients = len(set(patients.values()))
    if n_patients < 2:
        return
    splits = make_splits(cases_of(patients), n_folds)
    assert len(splits) == min(n_folds, n_patients)
    assert Counter(case for split in splits for case in split.validation) == dict.fromkeys(patients, 1)
    for split in splits:
        assert sorted((*split.training, *split.validation)) == sorted(patients)
        assert not {patients[case] for case in split.training} & {patients[case] for case in split.validation}
        assert split.training
        assert split.validation
    assert splits == make_splits(cases_of(dict(reversed(patients.items()))), n_folds), "the order of cases is no matter"


def test_patients_with_several_cases_are_shuffled_as_if_they_were_cases():
    frames = {f"p{patient}_{frame}": f"p{patient}" for patient in range(13) for frame in (1, 2)}
    by_patient = make_splits(cases_of({patient: patient for patient in frames.values()}))
    for split, patients in zip(make_splits(cases_of(frames)), by_patient, strict=True):
        assert {frames[case] for case in split.validation} == set(patients.validation)


def test_one_patient_cannot_be_divided_and_the_way_out_is_named():
    with pytest.raises(DatasetError, match="2 cases of 1 patient and 5 folds.*'all'.*patients"):
        make_splits(cases_of({"p1_1": "p1", "p1_2": "p1"}))
    with pytest.raises(DatasetError, match="0 cases"):
        make_splits([])


@pytest.fixture
def write(tmp_path):
    def write(folds):
        (tmp_path / "splits.json").write_text(json.dumps(folds))
        return tmp_path / "splits.json"

    return write


CASES = cases_of({"a1": "a", "a2": "a", "b": "b", "c": "c"})


def test_own_folds_are_taken_as_they_stand(write):
    (split,) = read_splits(write([{"train": ["c", "a2"], "val": ["b"]}]), CASES)
    assert (split.training, split.validation) == (("a2", "c"), ("b",))


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([{"train": ["x", "a1"], "val": ["b"]}], "fold 0: expected cases of this data set under 'train', found x"),
        ([{"train": ["b"], "val": ["b"]}], "share a patient, found 'b'"),
        ([{"train": ["b"], "val": ["c"]}, {"train": ["a1"], "val": ["a2"]}], "fold 1: .*found 'a' in both"),
        ([{"train": [], "val": ["b"]}], "'train'"),
        ([{"train": ["b"]}], "'val'"),
        ([["b"]], "'train'"),
        ({"train": ["b"], "val": ["c"]}, "expected a list"),
        ([], "expected a list"),
    ],
)
def test_own_folds_that_are_wrong_are_refused(write, folds, message):
    with pytest.raises(DatasetError, match=message):
        read_splits(write(folds), CASES)


def test_a_missing_file_of_folds_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"splits\.json: there is no such file"):
        read_splits(tmp_path / "splits.json", CASES)


presence = st.dictionaries(
    st.text("abc123", min_size=1, max_size=6),
    st.tuples(st.sampled_from("pqrstuvwxyz"), st.frozensets(st.sampled_from(["liver", "tumour", "stone"]))),
    min_size=2,
)


@settings(deadline=None)
@given(drawn=presence, n_folds=st.integers(2, 7))
def test_stratified_folds_are_complete_and_disjoint_and_never_divide_a_patient(drawn, n_folds):
    patients = {case: patient for case, (patient, _) in drawn.items()}
    if len(set(patients.values())) < 2:
        return
    present = {case: found for case, (_, found) in drawn.items()}
    splits = make_splits(cases_of(patients), n_folds, present=present)
    assert Counter(case for split in splits for case in split.validation) == dict.fromkeys(patients, 1)
    for split in splits:
        assert sorted((*split.training, *split.validation)) == sorted(patients)
        assert not {patients[case] for case in split.training} & {patients[case] for case in split.validation}
    assert splits == make_splits(cases_of(dict(reversed(patients.items()))), n_folds, present=present)
    sizes = [len({patients[case] for case in split.validation}) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(n=st.integers(10, 40), rare=st.sets(st.integers(0, 9), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_no_fold_lacks_a_rare_structure_that_each_could_have(n, rare, seed):
    cases = cases_of({f"case_{i:02d}": f"case_{i:02d}" for i in range(n)})
    present = {case.id: frozenset({"liver"} | ({"stone"} if i in rare else set())) for i, case in enumerate(cases)}
    splits = make_splits(cases, 5, seed, present)
    held_back = [sum("stone" in present[case] for case in split.validation) for split in splits]
    assert all(any("stone" in present[case] for case in split.training) for split in splits)
    assert sum(count > 0 for count in held_back) == min(5, len(rare)) or splits == make_splits(cases, 5, seed)
    assert min(held_back) > 0 or len(rare) < 5


def test_folds_stay_those_of_nnunet_where_chance_was_fair():
    cases = cases_of({f"case_{i:02d}": f"case_{i:02d}" for i in range(50)})
    everywhere = {case.id: frozenset({"liver"}) for case in cases}
    assert make_splits(cases, present=everywhere) == make_splits(cases)
    often = {case.id: frozenset({"tumour"} if i % 2 else ()) for i, case in enumerate(cases)}
    assert make_splits(cases, present=often) == make_splits(cases)


def test_nnunets_name_for_own_folds_is_found_and_ours_goes_first(tmp_path):
    assert own_splits(tmp_path) is None
    (tmp_path / "splits_final.json").touch()
    assert own_splits(tmp_path).name == "splits_final.json"
    (tmp_path / "splits.json").touch()
    assert own_splits(tmp_path).name == "splits.json"
