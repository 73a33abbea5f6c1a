"""The methods section: every number is one of the records, every decision and setting is told, every citation exists."""

import ast
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg.evaluation.comparison import Method, compare_scores
from autoseg.evaluation.comparison_report import About, as_record
from autoseg.evaluation.metrics import METRICS as MEASURED
from autoseg.inference.about import about_model
from autoseg.inference.bundle import load_bundle
from autoseg.methods import BIBLIOGRAPHY, METHODS, methods_of, try_methods
from autoseg.methods.decisions import DECISIONS, NETWORK_CITES, SCHEMES, statement_of
from autoseg.methods.references import bibliography, entries
from autoseg.methods.results import METRICS
from autoseg.methods.statement import Statement
from autoseg.methods.training import AUGMENTATIONS, LOSSES, SETTINGS, trained
from autoseg.records import TrainedAbout
from autoseg.training.length import Length
from autoseg.training.recipe import PARITY, PatchStage, Recipe
from autoseg.training.settle import settle
from autoseg.workspace import write_json
from planners import ChannelStats, CoarseLabels, plan_all, to_json
from tests.helpers.fingerprints import make_fingerprint
from tests.helpers.told_numbers import numbers_in, unknown_numbers

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FOLD = GOLDEN / "v0.1" / "workspace" / "runs" / "Golden" / "small" / "fold_0"
MODEL = GOLDEN / "v0.1" / "workspace" / "models" / "Golden_small"
PREDICTIONS = GOLDEN / "v0.1" / "predictions"


def golden_plans():
    for path in sorted(GOLDEN.glob("*.json")):
        entry = json.loads(path.read_text())["input"]
        groups = [(group["spacing_mm"], group["shape"], group["cases"]) for group in entry["groups"]]
        channels = [ChannelStats(*channel) for channel in entry["channels"]]
        yield from plan_all(make_fingerprint(groups, channels, entry["structures"]))


def model_text():
    return methods_of(MODEL, about_model(load_bundle(MODEL))).text()


@pytest.mark.parametrize("folder", [FOLD, PREDICTIONS, FOLD / "validation"], ids=["fold", "predictions", "evaluation"])
def test_every_number_is_one_of_the_records_that_are_named(folder):
    text = methods_of(folder).text()
    assert len(numbers_in(text)) >= 4
    assert unknown_numbers(text, folder) == []


def test_every_number_about_a_model_is_in_the_model():
    text = model_text()
    assert len(numbers_in(text)) > 10
    assert unknown_numbers(text, MODEL) == []
    assert "300 steps" in text


def test_a_number_that_is_in_no_record_would_be_found(tmp_path):
    (tmp_path / "run.json").write_text('{"cases": [1, 2, 3], "options": {"step": 0.5314}, "version": "2.13.0"}')
    end = "\nWritten by autoseg 9. Every number comes from `run.json`."
    assert unknown_numbers(f"3 cases, 0.531, 2.13.0 [@isensee2021nnunet], 0.53 and 0.532.{end}", tmp_path) == ["0.532"]


@pytest.mark.parametrize(
    ("file", "keys", "value", "told"),
    [
        ("run.json", ("task", "recipe", "learning_rate"), 0.01234, "learning rate 0.01234"),
        ("run.json", ("task", "recipe", "foreground"), 0.4321, "The fraction 0.4321"),
        ("run.json", ("task", "plan", "spacing_mm"), [7.5, 6.25, 5.125], "7.5 × 6.25 × 5.125 mm"),
        ("run.json", ("task", "training"), [f"case_{n}" for n in range(41)], "trained on 41 cases"),
        ("run.json", ("versions", "torch"), "7.8.9", "torch 7.8.9"),
        ("run.json", ("device",), "cuda:3", "on cuda:3"),
        ("validation/run.json", ("options", "step"), 0.37, "the fraction 0.37"),
        ("validation/metrics.json", ("foreground_mean", "dice", "mean"), 0.12345, "structures was 0.123"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_text_follows_the_records(tmp_path, file, keys, value, told):
    folder = shutil.copytree(FOLD, tmp_path / "fold_0")
    assert told not in methods_of(folder).text()
    record = json.loads((folder / file).read_text())
    record.pop("seal", None)
    *path, last = keys
    inner = record
    for key in path:
        inner = inner[key]
    inner[last] = value
    (folder / file).write_text(json.dumps({key: part for key, part in record.items() if key != "digest_of_this_file"}))
    text = methods_of(folder).text()
    assert told in text
    assert unknown_numbers(text, folder) == []


def test_intervals_and_tests_are_told_with_their_sources(tmp_path):
    report = json.loads((FOLD / "validation" / "metrics.json").read_text())
    for summary in report["structures"]:
        summary |= {"low": 0.51234, "high": 0.98765, "n": 9, "n_cases": 9}
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    found = methods_of(tmp_path)
    assert "[0.512, 0.988]" in found.text()
    assert "95 % intervals" in found.text()
    assert unknown_numbers(found.text(), tmp_path) == []
    for key in ("taha2015metrics", "efron1987bca", "dice1945", "maierhein2024reloaded"):
        assert f"{{{key}," in found.references()
        assert f"@{key}" in found.text()


def test_a_comparison_is_told_with_its_tests_and_differences(tmp_path):
    rng = np.random.default_rng(3)
    scores = [
        {(f"case_{n}", "liver"): {"dice": float(value)} for n, value in enumerate(rng.uniform(0.6, 0.9, 12))} for _ in range(3)
    ]
    methods = [Method(name, one) for name, one in zip(("unet", "fcn", "segnet"), scores, strict=True)]
    record = as_record(compare_scores(methods, margin=0.0123), About("A comparison", ("Each alike.",)))
    write_json(tmp_path / "comparison.json", record)
    found = methods_of(tmp_path)
    text = found.text()
    assert "unet, fcn and segnet" in text
    assert "within 0.0123 counts as equivalent" in text
    assert "| fcn | dice | 12 |" in text
    assert unknown_numbers(text, tmp_path) == []
    assert {"wilcoxon1945", "holm1979", "efron1987bca"} <= set(
        re.findall(r"^@\w+\{(\w+),", found.references(), flags=re.MULTILINE)
    )


@pytest.mark.parametrize(("n", "said"), [(5, "of those over 5, about one in 16"), (6, "")])
def test_intervals_over_few_cases_are_told_as_in_the_report(tmp_path, n, said):
    report = json.loads((FOLD / "validation" / "metrics.json").read_text())
    for summary in report["structures"]:
        summary |= {"low": 0.5, "high": 0.9, "n": n, "n_cases": n}
    evaluated, compared = tmp_path / "evaluated", tmp_path / "compared"
    write_json(evaluated / "metrics.json", report)
    scores = {(f"case_{case}", "liver"): {"dice": 0.7 + case / 100} for case in range(n)}
    others = {key: {"dice": values["dice"] ** 2} for key, values in scores.items()}
    found = compare_scores([Method("unet", scores), Method("fcn", others)], margin=0.01)
    write_json(compared / "comparison.json", as_record(found, About("A comparison", ("Each alike.",))))
    for folder in (evaluated, compared):
        text = methods_of(folder).text()
        assert said in text
        assert ("say little about other cases" in text) == bool(said)
        assert unknown_numbers(text, folder) == []


def test_an_ensemble_a_coarse_stage_and_a_start_are_told():
    about = about_model(load_bundle(MODEL))
    other = dataclasses.replace(about.plan.network, name="fcn", attention=())
    coarse = dataclasses.replace(
        about.plan.network, in_channels=about.plan.network.in_channels + 4, input_mean=(), input_std=()
    )
    plan = dataclasses.replace(about.plan, network=coarse, coarse=CoarseLabels("lowres_3d", 4))
    fold = TrainedAbout(steps=5, recipe={"loss": "dice"}, training=3, start="0123456789abcdef")
    about = dataclasses.replace(about, plan=plan, networks=(other,), info=dataclasses.replace(about.info, folds={"0": fold}))
    text = methods_of(MODEL, about).text()
    assert "fully convolutional network" in text
    assert "coarse stage, the plan 'lowres_3d', in 4 input channels" in text
    assert "started from the weights of a trained model" in text


def test_folds_that_were_trained_alike_share_a_section():
    about = about_model(load_bundle(MODEL))
    runs = [TrainedAbout(100 + n, 10.5 + n, 3, {"loss": "dice"}, training=40 + n, validation=10 - n) for n in range(3)]
    other = dataclasses.replace(runs[0], recipe={"loss": "cross_entropy"})
    for folds, headings in ((runs, ["Training"]), ([*runs, other], ["Training of folds 0, 1 and 2", "Training of fold 3"])):
        info = dataclasses.replace(about.info, folds={str(n): run for n, run in enumerate(folds)})
        text = methods_of(MODEL, dataclasses.replace(about, info=info)).text()
        assert re.findall("^## (Training.*)$", text, flags=re.MULTILINE) == headings
        assert "on 40, 41 and 42 cases; 10, 9 and 8 were held out" in text
        assert "100, 101 and 102 steps and took 10.5, 11.5 and 12.5 s, with the random seed 3." in text


def test_devices_that_train_together_are_told(tmp_path):
    folder = shutil.copytree(FOLD, tmp_path / "fold_0")
    record = json.loads((folder / "run.json").read_text())
    training = settle(next(golden_plans()), Recipe(), Length(steps=9), "cuda", 1, devices=3)
    (why,) = (one for one in training.decisions if one.what == "devices")
    record["decisions"] = [to_json(why)]
    (folder / "run.json").write_text(json.dumps(record))
    text = methods_of(folder).text()
    assert f"Several devices trained together: {why.chosen}." in text
    assert unknown_numbers(text, folder) == []


def decisions_in_code():
    """What each ``Decision(...)`` of the source is about, where the source says it; the beginning of a formatted text."""
    for path in (*ROOT.glob("planners/*.py"), *ROOT.glob("autoseg/**/*.py")):
        tree = ast.parse(path.read_text())
        constants = {}
        for node in tree.body:
            if isinstance(node, ast.Assign):
                target, value = node.targets[0], node.value
                several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
                pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]
                both = ((name, one) for name, one in pairs if isinstance(name, ast.Name) and isinstance(one, ast.Constant))
                constants |= {name.id: one.value for name, one in both}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Decision" and node.args:
                first = node.args[0]
                if isinstance(first, ast.JoinedStr):
                    first = first.values[0]  # how it begins
                what = first.value if isinstance(first, ast.Constant) else constants.get(getattr(first, "id", ""))
                assert what, f"{path}:{node.lineno}"
                yield what


def test_every_decision_of_the_source_has_a_statement():
    found = set(decisions_in_code())
    assert len(found) > 20
    assert {what for what in found if what not in DECISIONS and not what.startswith("two kinds of scans ")} == set()


def test_every_decision_of_archived_plans_is_told_with_known_citations():
    told = 0
    for plan in golden_plans():
        trainings = [
            settle(plan, recipe, Length(steps=100), device, 10**7)
            for recipe in (Recipe(), PARITY)
            for device in ("cpu", "cuda")
        ]
        for one in (plan, *trainings):
            for why in one.decisions:
                assert any(why.what == what or what[-1] == " " and why.what.startswith(what) for what in DECISIONS), why.what
                statement = statement_of(plan, why)
                bibliography(statement.cites)
                told += bool(statement.text)
                assert not statement.text or statement.text.endswith(".")
                assert "--" not in statement.text, "advice for the command line is not for a paper"
    assert told > 100


CHANGES = {
    "loss": "dice",
    "deep_supervision": False,
    "cpu_width": 0.25,
    "patch_curriculum": (PatchStage(0.5, 0.6, 2),),
    "augmentation": "light",
    "momentum": 0.77,
    "validations": 7,
    "patience": 3,
    "restoration_detach": False,
    "ema": False,
    "freeze": ("decoder", "taken"),
}
# the run tells what came of them
BY_THE_RUN = {"name", "batch_size", "cpu_batch_size", "divide_batch", "devices_exponent", "mirror", "bf16"} | {
    "checkpoint_minutes"
}


def test_every_setting_of_a_recipe_is_told():
    names = [one.name for one in dataclasses.fields(Recipe)]
    assert set(SETTINGS) == set(names)
    plan = next(plan for plan in golden_plans() if plan.network.attention)
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, restoration=True))
    base = Recipe(restoration_weight=0.1, attention_rate=0.001, freeze=("encoder",))
    run = TrainedAbout(steps=7, recipe={"name": ""}, batch_size=2, device="cpu", precision="fp32", training=3, validation=1)
    before = trained(base, [run], plan)
    for name in set(names) - BY_THE_RUN - {"checkpoint_minutes"}:  # on which nothing depends
        old = getattr(base, name)
        new = CHANGES.get(name, old * 0.5 if isinstance(old, float) else old + 1 if type(old) is int else None)
        assert new is not None, name
        assert trained(dataclasses.replace(base, **{name: new}), [run], plan) != before, name


def test_what_is_registered_has_words_and_sources():
    from autoseg.networks import NETWORKS
    from autoseg.preprocess.normalize import NORMALIZATIONS
    from autoseg.training.augment import PRESETS
    from autoseg.training.losses import LOSSES as REGISTERED

    assert set(NETWORK_CITES) == set(NETWORKS)
    assert set(SCHEMES) == set(NORMALIZATIONS)
    assert set(LOSSES) == set(REGISTERED)
    for name, preset in PRESETS.items():
        assert AUGMENTATIONS[name] == ", ".join(dict.fromkeys(step.transform for step in preset.steps))
    assert {name for name in METRICS if name in MEASURED} >= {"dice", "iou", "nsd", "hd95_mm", "assd_mm"}
    for _, cites in (*NETWORK_CITES.values(), *LOSSES.values()):
        bibliography(cites)


def test_every_publication_is_whole_and_cited_somewhere():
    source = "\n".join(path.read_text() for path in (ROOT / "autoseg" / "methods").glob("*.py"))
    for key, entry in entries().items():
        assert re.fullmatch(r"@(article|inproceedings|misc)\{[a-z0-9]+,\n(  \w+ = \{.+\},?\n)+\}", entry), key
        assert {"author", "title", "year"} <= set(re.findall(r"^  (\w+) = ", entry, flags=re.MULTILINE)), key
        assert entry.count("{") == entry.count("}"), key
        assert f'"{key}"' in source, f"{key} is cited by nothing"


def test_names_that_anybody_chose_are_no_markup(tmp_path):
    folder = shutil.copytree(FOLD, tmp_path / "fold_0")
    text = (folder / "run.json").read_text().replace('"liver"', '"<script>[x](y)|*@isensee"')
    (folder / "run.json").write_text(text)
    told = methods_of(folder).text()
    assert r"\<script\>\[x\](y)|\*\@isensee" in told
    assert "<script>" not in told.partition("## Evaluation")[0]


def test_what_others_wrote_and_what_was_edited_stays(tmp_path, caplog):
    folder = shutil.copytree(FOLD, tmp_path / "fold_0")
    assert {path.name for path in try_methods(folder)} == {METHODS, BIBLIOGRAPHY}
    times = {name: (folder / name).stat().st_mtime_ns for name in (METHODS, BIBLIOGRAPHY)}
    try_methods(folder)
    assert {name: (folder / name).stat().st_mtime_ns for name in times} == times
    edited = (folder / METHODS).read_text().replace("segments", "draws").replace("## Training", "## How we trained")
    (folder / METHODS).write_text(edited)
    (folder / BIBLIOGRAPHY).write_text("@article{mine,\n}\n")
    assert try_methods(folder) == ()
    assert (folder / METHODS).read_text() == edited
    assert (folder / BIBLIOGRAPHY).read_text() == "@article{mine,\n}\n"
    assert "edited since" in caplog.text
    (folder / METHODS).unlink()
    assert [path.name for path in try_methods(folder)] == [METHODS]


def test_an_older_text_of_ours_is_renewed(tmp_path):
    folder = shutil.copytree(FOLD, tmp_path / "fold_0")
    try_methods(folder)
    record = json.loads((folder / "run.json").read_text())
    record["task"]["recipe"]["learning_rate"] = 0.4567
    (folder / "run.json").write_text(json.dumps(record))
    try_methods(folder)
    assert "0.4567" in (folder / METHODS).read_text()


def test_a_text_that_cannot_be_made_costs_no_result(tmp_path, caplog):
    (tmp_path / "metrics.json").write_text("{")
    assert try_methods(tmp_path) == ()
    assert "no methods.md" in caplog.text
    assert not (tmp_path / METHODS).exists()
    assert try_methods(tmp_path / "nowhere") == ()


def test_thresholds_of_a_prediction_are_told(tmp_path):
    record = json.loads((PREDICTIONS / "run.json").read_text())
    assert "label of the highest probability" in methods_of(PREDICTIONS).text()
    record["labels"]["has_regions"] = True
    record["options"]["windows"] = {"margin": 1.25, "jump": 6.5, "halo": 0.125}
    (tmp_path / "run.json").write_text(json.dumps(record))
    text = methods_of(tmp_path).text()
    assert "exceeds one half" in text
    assert "(margin 1.25, jump 6.5, halo 0.125)" in text
    assert unknown_numbers(text, tmp_path) == []


def test_shards_tell_of_all_their_cases(tmp_path):
    record = json.loads((PREDICTIONS / "run.json").read_text())
    for index in (0, 1):
        case = {**record["cases"][0], "case": f"case_{index}"}
        (tmp_path / f"run_{index}_of_2.json").write_text(json.dumps({**record, "shard": [index, 2], "cases": [case]}))
    text = methods_of(tmp_path).text()
    assert "2 cases were predicted" in text
    assert "`run_0_of_2.json` and `run_1_of_2.json`" in text


def test_a_statement_stands_before_its_citations():
    assert Statement("So it was.", ("b", "a")).markdown() == "So it was [@b; @a]."
    assert Statement("So it was.").markdown() == "So it was."
