import json
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from autoseg.data.sources import find_inputs
from autoseg.engines import LocalEngine
from autoseg.errors import AutosegError
from autoseg.imaging.files import read_file, read_label_volume, write_label_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.inference.cohort import Predict, PredictRunner, predict_cohort
from autoseg.inference.output import Written
from autoseg.inference.predictor import Predictor
from autoseg.options import InferenceOptions
from autoseg.outputs.labels import Labels
from autoseg.outputs.probabilities import Probabilities
from tests.helpers.models import write_model, write_scans

PLAIN = InferenceOptions(precision="fp32", mirror=False)


@dataclass(frozen=True)
class Loaded(Predict):
    """The step with a predictor that the test holds in its hands."""

    predictor: Any = None

    def setup(self):
        return PredictRunner(self, self.predictor)


@dataclass(frozen=True)
class Extra:
    """An output made of a function (case, found) -> (files, record)."""

    make: Any
    name: str = "extra"
    suffixes: tuple = ()
    options: Any = None

    @property
    def identity(self):
        return {"export": {self.name: self.options}}

    def check(self, model):
        pass

    def write(self, case, found, folder):
        return Written(*self.make(case, found))


@pytest.fixture
def predictor(tmp_path, threshold_plan):
    return Predictor(write_model(tmp_path / "model", threshold_plan), PLAIN, device="cpu")


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "in").mkdir()
    return write_scans(tmp_path / "in", 3)


def run(predictor, scans, *, cases=None, outputs=(), workers=2, on_done=None, **options):
    step = Loaded(
        model=predictor.bundle.name,
        folder=scans.parent / "out",
        outputs=(Labels(".nii.gz"), *outputs),
        inference=predictor.options,
        predictor=predictor,
        **options,
    )
    cases = find_inputs(scans, channels=("CT",)).cases if cases is None else cases
    return predict_cohort(step, cases, engine=LocalEngine(workers), on_done=on_done)


def record_of(scans, name):
    return json.loads((scans.parent / "out" / f"{name}.json").read_text())


def test_every_scan_gets_labels_a_marker_and_the_run_a_record(predictor, scans):
    seen = []
    result = run(predictor, scans, on_done=lambda outcome: seen.append((outcome.name, threading.current_thread())))
    assert result.cases("done") == ("a", "b", "c")
    assert result.failures == ()
    assert seen == [(case, threading.main_thread()) for case in "abc"]
    out = scans.parent / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{case}{ending}" for case in "abc" for ending in (".json", ".nii.gz")] + ["run.json"]
    )
    for case in "abc":
        scan, labels = read_file(scans / f"{case}_0000.nii.gz"), read_file(out / f"{case}.nii.gz")
        assert labels.geometry == scan.geometry
        assert labels.data.dtype == np.uint8
        np.testing.assert_array_equal(labels.data == 7, scan.data > 0.5)
        marker = record_of(scans, case)
        assert marker["state"] == "done"
        assert marker["outputs"] == {f"{case}.nii.gz": labels.digest}
        assert marker["identity"]["inputs"] == [{"file": f"{case}_0000.nii.gz", "digest": scan.digest}]
        assert marker["identity"]["model"] == predictor.bundle.digest
    record = record_of(scans, "run")
    assert record["failures"] == {}
    assert record["seconds"] > 0
    assert record["precision"] == "fp32"
    assert set(record["versions"]) == {"python", "torch", "autoseg"}


def test_a_bad_scan_in_the_middle_costs_nothing_but_itself(predictor, scans):
    path = scans / "b_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    result = run(predictor, scans)
    assert result.cases("done") == ("a", "c")
    ((case, message),) = result.failures
    assert case == "b"
    assert "b_0000.nii.gz" in message
    assert not (scans.parent / "out/b.nii.gz").exists()
    assert record_of(scans, "run")["failures"] == {"b": message.replace(f"{scans}/", "")}


def test_any_exception_is_an_outcome(predictor, scans, monkeypatch):
    infer, calls = predictor.infer, []

    def fragile(prepared):
        calls.append(prepared)
        if len(calls) == 2:
            raise RuntimeError("out of luck")
        return infer(prepared)

    monkeypatch.setattr(predictor, "infer", fragile)
    result = run(predictor, scans)
    assert result.failures == (("b", "RuntimeError: out of luck"),)
    assert result.cases("done") == ("a", "c")


def test_what_is_verifiably_done_is_skipped(predictor, scans, monkeypatch):
    first = run(predictor, scans)
    before = (scans.parent / "out/a.nii.gz").stat().st_mtime_ns
    monkeypatch.setattr(predictor, "infer", None)  # must not be needed
    again = run(predictor, scans)
    assert again.cases("skipped") == ("a", "b", "c")
    assert (scans.parent / "out/a.nii.gz").stat().st_mtime_ns == before
    assert [outcome.outputs for outcome in again.outcomes] == [outcome.outputs for outcome in first.outcomes]
    assert [outcome.windows for outcome in again.outcomes] == [outcome.windows for outcome in first.outcomes]
    assert all(outcome.windows[0] > 0 for outcome in again.outcomes)


def test_changed_inputs_model_or_options_are_done_again(predictor, scans, tmp_path, threshold_plan):
    run(predictor, scans)
    (scans / "a_0000.nii.gz").write_bytes((scans / "b_0000.nii.gz").read_bytes())
    assert run(predictor, scans).cases("done") == ("a",)
    other_step = Predictor(predictor.bundle, replace(PLAIN, step=1.0), device="cpu")
    assert run(other_step, scans).cases("done") == ("a", "b", "c")
    model = write_model(tmp_path / "other", replace(threshold_plan, name="other"))
    other_model = Predictor(model, replace(PLAIN, step=1.0), device="cpu")
    assert run(other_model, scans).cases("done") == ("a", "b", "c")


def test_a_fold_that_the_model_gets_later_leaves_predictions_by_the_others_done(predictor, scans, tmp_path, threshold_plan):
    run(predictor, scans)
    model = write_model(tmp_path / "model", threshold_plan, seeds=(1,))
    assert sorted(model.folds) == ["0", "1"]
    assert run(Predictor(model, replace(PLAIN, folds=("0",)), device="cpu"), scans).cases("skipped") == ("a", "b", "c")
    assert run(Predictor(model, PLAIN, device="cpu"), scans).cases("done") == ("a", "b", "c")


def test_missing_damaged_and_interrupted_results_are_redone(predictor, scans):
    run(predictor, scans)
    out = scans.parent / "out"
    expected = {case: (out / f"{case}.nii.gz").read_bytes() for case in "abc"}
    (out / "a.nii.gz").unlink()
    (out / "b.nii.gz").write_bytes(expected["b"][:-30])
    (out / "c.json").write_text(json.dumps({**record_of(scans, "c"), "state": "writing"}))
    assert run(predictor, scans).cases("done") == ("a", "b", "c")
    assert {case: (out / f"{case}.nii.gz").read_bytes() for case in "abc"} == expected


def test_an_interruption_between_output_and_marker_is_redone(predictor, scans, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(predictor, scans, outputs=[Extra(interrupted)])
    assert (scans.parent / "out/a.nii.gz").exists()
    assert record_of(scans, "a")["state"] == "writing"
    assert (scans.parent / "out/run.json").exists()
    assert run(predictor, scans).cases("done") == ("a", "b", "c")


def test_foreign_and_edited_files_are_kept_unless_asked_for_a_fresh_start(predictor, scans):
    out = scans.parent / "out"
    out.mkdir()
    (out / "a.nii.gz").write_bytes(b"precious")
    (out / "b.json").write_text('{"notes": "precious"}')
    result = run(predictor, scans)
    assert result.cases("done") == ("c",)
    assert all("was not made by this program" in message for _, message in result.failures)
    assert (out / "a.nii.gz").read_bytes() == b"precious"

    labels = read_label_volume(out / "c.nii.gz")
    corrected = LabelVolume(np.roll(labels.data, 1, axis=0), labels.geometry)
    write_label_volume(corrected, out / "c.nii.gz")
    ((case, message),) = [failure for failure in run(predictor, scans).failures if failure[0] == "c"]
    assert "edited" in message
    np.testing.assert_array_equal(read_label_volume(out / "c.nii.gz").data, corrected.data)

    assert run(predictor, scans, fresh=True).cases("done") == ("a", "b", "c")
    np.testing.assert_array_equal(read_label_volume(out / "c.nii.gz").data, labels.data)


def test_results_need_a_folder_of_their_own(predictor, scans):
    with pytest.raises(AutosegError, match="holds the scans"):
        predict_cohort(
            Predict(predictor.bundle.name, scans / "../in", (Labels(".nii.gz"),)), find_inputs(scans, channels=("CT",)).cases
        )


def test_shards_share_the_work_without_overlap(predictor, scans):
    results = [run(predictor, scans, shard=(i, 2)) for i in range(2)]
    assert [result.cases("done") for result in results] == [("a", "c"), ("b",)]
    assert {path.name for path in (scans.parent / "out").glob("run*")} == {"run_0_of_2.json", "run_1_of_2.json"}
    assert run(predictor, scans).cases("skipped") == ("a", "b", "c")
    with pytest.raises(AutosegError, match="shard"):
        run(predictor, scans, shard=(2, 2))


def test_probabilities_are_an_npz_without_pickle(predictor, scans):
    run(predictor, scans, outputs=[Probabilities()])
    out = scans.parent / "out"
    with np.load(out / "a_probabilities.npz", allow_pickle=False) as content:
        chances = content["probabilities"]
    labels = read_label_volume(out / "a.nii.gz").data
    assert chances.dtype == np.float16
    assert chances.shape == (2, *labels.shape)
    np.testing.assert_array_equal(7 * chances.argmax(axis=0), labels)
    assert run(predictor, scans, outputs=[Probabilities()]).cases("skipped") == ("a", "b", "c")
    (out / "a_probabilities.npz").unlink()
    assert run(predictor, scans, outputs=[Probabilities()]).cases("done") == ("a",)


def test_outputs_add_to_the_record_and_their_failure_is_the_cases(predictor, scans):
    def measure(case, found):
        if case.id == "b":
            raise AutosegError("no surface")
        np.testing.assert_array_equal(found.answer.logits[1] > 0, found.labels.data == 7)  # one grid here
        assert found.answer.logits.shape[1:] == found.prepared.grid.shape
        return (), {"voxels": int((found.labels.data == 7).sum())}

    result = run(predictor, scans, outputs=[Extra(measure), Extra(lambda *_: ((), {"more": 1}), "more")])
    assert result.failures == (("b", "no surface"),)
    assert record_of(scans, "b")["state"] == "writing"
    assert record_of(scans, "a")["voxels"] == 257  # lattice points within 4 voxels of the middle
    assert record_of(scans, "a")["more"] == 1


def folder_output(out, names, options=None):
    """Writes files CASE_extra/NAME."""

    def write(case, *_):
        folder = out / f"{case.id}_extra"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(case.id)
        return tuple(folder / name for name in names), {}

    return Extra(write, "extra", ("_extra",), options or {})


def test_what_outputs_write_counts_as_labels_do(predictor, scans):
    out = scans.parent / "out"
    extra = [folder_output(out, ["x", "y"])]
    assert run(predictor, scans).cases("done") == ("a", "b", "c")
    assert run(predictor, scans, outputs=extra).cases("done") == ("a", "b", "c")  # asked for more than there was
    assert set(record_of(scans, "a")["outputs"]) == {"a.nii.gz", "a_extra/x", "a_extra/y"}
    assert run(predictor, scans, outputs=extra).cases("skipped") == ("a", "b", "c")
    (out / "b_extra" / "x").write_text("damaged")
    (out / "c_extra" / "y").unlink()
    assert run(predictor, scans, outputs=extra).cases("done") == ("b", "c")
    other = [folder_output(out, ["x"], {"only": "x"})]
    (out / "a_extra" / "y").write_text("edited by a person")
    assert run(predictor, scans, outputs=other).cases("done") == ("a", "b", "c")
    assert [(out / f"{case}_extra" / "y").exists() for case in "abc"] == [True, False, False]  # no leftovers of ours


def test_a_foreign_folder_in_the_place_of_an_export_stays(predictor, scans):
    out = scans.parent / "out"
    (out / "a_extra").mkdir(parents=True)
    ((case, message),) = run(predictor, scans, outputs=[folder_output(out, ["x"])]).failures
    assert case == "a"
    assert "was not made by this program" in message
    assert not list((out / "a_extra").iterdir())


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_any_number_of_workers_gives_the_same_files(predictor, scans, workers):
    run(predictor, scans, workers=workers)
    found = {path.name: path.read_bytes() for path in (scans.parent / "out").glob("*.nii.gz")}
    run(predictor, scans, workers=2, fresh=True)
    assert found == {path.name: path.read_bytes() for path in (scans.parent / "out").glob("*.nii.gz")}


def test_few_cases_wait_in_memory_at_a_time(predictor, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    scans = write_scans(tmp_path / "in", 8)
    alive, most = set(), []
    prepare, decode = predictor.prepare, predictor.decode

    def counted_prepare(paths):
        alive.add(str(paths))
        most.append(len(alive))
        return prepare(paths)

    def counted_decode(*arguments, **options):
        prediction = decode(*arguments, **options)
        alive.pop()
        return prediction

    monkeypatch.setattr(predictor, "prepare", counted_prepare)
    monkeypatch.setattr(predictor, "decode", counted_decode)
    assert len(run(predictor, scans, workers=1).cases("done")) == 8
    assert max(most) <= 4  # prepared, in the networks, and two to be written


@pytest.mark.parametrize("fresh", [False, True])
def test_a_scan_called_as_a_result_of_another_one_does_not_overwrite_it(predictor, scans, fresh):
    (scans / "b_0000.nii.gz").rename(scans / "a_extra_0000.nii.gz")
    made = []

    def make(case, found):
        path = scans.parent / "out" / f"{case.id}_extra.nii.gz"
        made.append(path.write_bytes(b"of a"))
        return (path,), {}

    result = run(predictor, scans, outputs=(Extra(make, suffixes=("_extra.nii.gz",)),), fresh=fresh)
    assert result.failures == (
        ("a_extra", "expected results of names of their own, found a_extra.nii.gz, which is made of a. Rename the scan"),
    )
    assert (scans.parent / "out" / "a_extra.nii.gz").read_bytes() == b"of a"
    assert len(result.cases("done")) == len(made) > 0


@pytest.mark.parametrize("name", ["run", "metrics", "Summary", "run_1_of_3"])
def test_a_scan_called_as_a_record_of_the_folder_does_not_overwrite_it(predictor, scans, name):
    (scans / "a_0000.nii.gz").rename(scans / f"{name}_0000.nii.gz")
    ((case, message),) = run(predictor, scans).failures
    assert case == name
    assert "Rename the scan" in message


def test_no_scans_are_no_error(predictor, tmp_path):
    result = run(predictor, tmp_path / "in", cases=())
    assert result.outcomes == ()
    assert (tmp_path / "out/run.json").is_file()


def test_a_foreign_run_record_is_kept_unless_asked_for_a_fresh_start(predictor, scans):
    record = scans.parent / "out" / "run.json"
    record.parent.mkdir()
    record.write_text('{"notes": "precious"}')
    with pytest.raises(AutosegError, match=r"run\.json: exists and was not made by this program"):
        run(predictor, scans)
    assert [path.name for path in record.parent.iterdir()] == ["run.json"]
    assert run(predictor, scans, fresh=True).cases("done") == ("a", "b", "c")
