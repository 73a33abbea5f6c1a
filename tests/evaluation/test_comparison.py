"""Comparisons: what counts per case, which sentences the numbers allow, and that the files hold them."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from autoseg.errors import FileError
from autoseg.evaluation import Difference
from autoseg.evaluation.comparison import Cost, Method, average_trainings, compare_scores, verdict
from autoseg.evaluation.comparison_report import About, as_markdown, as_record, refuse_foreign_comparison, write_comparison
from autoseg.evaluation.restored import RestoredRow
from planners.records import to_json

ABOUT = About("Networks compared", ("Ten minutes each.",))


def method(name, dice, **more):
    """One structure, cases in the order of the values."""
    scores = {(f"case{i:02d}", "liver"): {"dice": value, "hd95_mm": 4.0} for i, value in enumerate(dice)}
    return Method(name, scores, **more)


@pytest.fixture
def three():
    """Against ``first``: ``low`` is lower in every case, ``same`` differs by noise far below the margin."""
    rng = np.random.default_rng(0)
    base = rng.beta(20, 3, 30)
    cost = Cost(operations=3e9, seconds_per_step=0.5, steps=100, precision="float32", mirrored="yes")
    return [
        method("first", base, cost=cost),
        method("low", base - rng.uniform(0.01, 0.03, 30), cost=replace(cost, operations=1e9)),
        method("same", base + rng.normal(0, 1e-4, 30), cost=cost),
    ]


def test_a_case_counts_as_the_mean_of_its_defined_structures():
    scores = {("a", "liver"): {"dice": 0.8}, ("a", "spleen"): {"dice": None}, ("b", "liver"): {"dice": None}}
    assert Method("x", scores).by_case("dice") == {"a": 0.8, "b": None}
    scores["a", "spleen"] = {"dice": 0.0}  # invented where there is none
    assert Method("x", scores).by_case("dice") == {"a": 0.4, "b": None}


@pytest.mark.parametrize(
    ("mean", "low", "high", "p_value", "metric", "expected"),
    [
        (0.02, 0.01, 0.03, 0.01, "dice", "better"),
        (-0.02, -0.03, -0.01, 0.01, "dice", "worse"),
        (-0.02, -0.03, -0.01, 0.01, "hd95_mm", "better"),  # less is better
        (0.02, 0.01, 0.03, 0.06, "dice", "no_worse"),
        (0.002, -0.004, 0.02, 0.6, "dice", "no_worse"),
        (0.002, -0.006, 0.02, 0.6, "dice", "open"),
        (0.02, 0.01, 0.03, 0.06, "hd95_mm", "open"),  # a margin is of Dice
        (0.02, -0.01, 0.05, 0.01, "dice", "open"),
        (0.001, -0.004, 0.004, 0.6, "dice", "equivalent"),
        (0.5, None, None, 1.0, "dice", "unknown"),
    ],
)
def test_what_a_difference_allows_to_say(mean, low, high, p_value, metric, expected):
    assert verdict(Difference(20, 0, mean, low, high, p_value), metric, 0.005) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.03, "better"),
        (-0.01, 0.03, "open"),  # other trainings might say the opposite
        (-0.001, 0.03, "no_worse"),
        (-0.03, -0.001, "open"),
        (None, None, "open"),  # a single pair of trainings
    ],
)
def test_a_difference_must_hold_over_trainings_too(low, high, expected):
    over_cases = Difference(20, 0, 0.02, 0.01, 0.03, 0.01)
    assert verdict(over_cases, "dice", 0.005, Difference(3, 0, 0.02, low, high, None)) == expected


def test_equivalence_must_hold_over_trainings_too():
    over_cases = Difference(20, 0, 0.001, -0.004, 0.004, 0.6)
    assert verdict(over_cases, "dice", 0.005, Difference(3, 0, 0.001, -0.002, 0.003, None)) == "equivalent"
    assert verdict(over_cases, "dice", 0.005, Difference(3, 0, 0.001, -0.02, 0.02, None)) == "open"


def test_several_trainings_are_averaged_case_by_case():
    costs = [Cost(steps=steps, parameters=7, device="cpu", features=(2, 4)) for steps in (100, 110)]
    rows = [RestoredRow("case00", "noise", {"mse": mse, "ssim": None}) for mse in (0.01, 0.03)]
    one = method("x", [0.8, 0.6], cost=costs[0], restored=(rows[0],))
    two = method("x", [0.9, None], cost=costs[1], restored=(rows[1],), failures=("case01: no",))
    found = average_trainings({4: one, 5: two})
    assert found.by_case("dice") == pytest.approx({"case00": 0.85, "case01": 0.6})
    assert found.restored == (RestoredRow("case00", "noise", {"mse": pytest.approx(0.02), "ssim": None}),)
    assert found.cost == Cost(steps=105, parameters=7, device="cpu", features=(2, 4))
    assert found.failures == ("seed 5, case01: no",)
    assert found.trainings == {4: one, 5: two}


@pytest.mark.thorough
def test_trainings_that_contradict_each_other_are_shown_and_forbid_a_verdict(tmp_path):
    """Over cases the first is better with p < 0.001, but only because one of its two trainings was far better."""
    rng = np.random.default_rng(0)
    base = rng.beta(20, 3, 30)
    both = []
    for name, shifts in (("first", (0.05, 0.0)), ("other", (0.0, 0.01))):
        noise = rng.normal(0, 1e-3, (2, 30))
        both.append(average_trainings({s: method(name, base + shifts[s] + noise[s]) for s in (0, 1)}))
    comparison = compare_scores(both, margin=0.005)
    over_cases, over_trainings = comparison.differences["dice"]["other"], comparison.over_trainings["dice"]["other"]
    assert over_cases.p_value < 0.001
    assert (over_trainings.n, over_trainings.mean) == (2, pytest.approx(over_cases.mean))
    assert over_trainings.low < 0 < over_trainings.high
    (sentence,) = comparison.sentences()
    assert "was not shown to differ from other" in sentence
    assert "30 cases; over 2 training runs [-" in sentence
    text = as_markdown(comparison, ABOUT)
    assert "| network | seed 0 | seed 1 | standard deviation | first minus it |" in text
    means = [100 * both[0].trainings[seed].mean_of("dice") for seed in (0, 1)]
    assert f"| first | {means[0]:.2f} | {means[1]:.2f} | {np.std(means, ddof=1):.2f} | – |" in text
    rows = list(csv.DictReader(write_comparison(comparison, ABOUT, tmp_path)[2].read_text().splitlines()))
    assert [row["seed"] for row in rows] == (["0"] * 30 + ["1"] * 30) * 2
    assert float(rows[30]["dice"]) == both[0].trainings[1].scores["case00", "liver"]["dice"]
    stored = to_json(as_record(comparison, ABOUT))
    assert stored["networks"][0]["trainings"]["1"]["means"]["dice"] == pytest.approx(means[1] / 100)
    assert stored["over_trainings"]["dice"]["other"]["low"] == over_trainings.low


def test_a_training_that_failed_leaves_the_pairs_that_there_are(three):
    """Clearly better over cases, but with one pair of trainings nobody knows."""
    first = average_trainings({0: three[0], 1: three[0]})
    comparison = compare_scores(
        [first, average_trainings({1: three[1]})], margin=0.005, failed={"low, seed 0": "no space left"}
    )
    assert comparison.over_trainings["dice"]["low"].n == 1
    (sentence,) = comparison.sentences()
    assert "was not shown to differ from low" in sentence
    assert "30 cases; fewer than two pairs of training runs)" in sentence
    text = as_markdown(comparison, ABOUT)
    assert "- low, seed 0: not trained: no space left" in text
    assert re.search(r"\| low \| – \| [\d.]+ \| – \| \+[\d.]+ \|", text)


def test_the_sentence_names_who_is_beaten_by_how_much_and_who_is_not(three):
    found = compare_scores(three, margin=0.005)
    (sentence,) = found.sentences()
    better, equivalent = sentence.split("; it ")
    assert better.startswith("Dice: first is better than low (+")
    assert "p < 0.001, 30 cases" in better
    assert equivalent.startswith("is equivalent, within 0.5 percentage points, to same (")
    difference = found.differences["dice"]["low"]
    assert f"+{100 * difference.mean:.2f} percentage points [{100 * difference.low:.2f}, {100 * difference.high:.2f}]" in better


def test_the_effect_of_closed_gates_is_a_paired_difference(three):
    found = compare_scores(three[:1], margin=0.005, gates_closed={"first": three[1]})
    _, difference = found.gates_closed["first"]
    assert difference.mean == pytest.approx(
        found.means["first"]["dice"].mean - np.mean(list(three[1].by_case("dice").values()))
    )
    assert "relies on its attention" in found.sentences()[-1]
    assert "With attention switched off" in as_markdown(found, ABOUT)


def test_a_comparison_is_written_over_comparisons_alone(three, tmp_path):
    refuse_foreign_comparison(tmp_path)
    (tmp_path / "cases.csv").write_text("mine")
    with pytest.raises(FileError, match=r"cases\.csv: exists and was not made by this program"):
        refuse_foreign_comparison(tmp_path)
    write_comparison(compare_scores(three, margin=0.005), ABOUT, tmp_path / "ours")
    refuse_foreign_comparison(tmp_path / "ours")
    (tmp_path / "ours" / "comparison.json").write_text('{"mine": 1}')
    with pytest.raises(FileError, match=r"comparison\.json: exists"):
        refuse_foreign_comparison(tmp_path / "ours")


@pytest.mark.thorough
def test_the_files_hold_every_number_and_every_failure(three, tmp_path):
    three[1] = method("low", three[1].by_case("dice").values(), failures=("case99: not scored",))
    comparison = compare_scores(three, margin=0.005, failed={"huge": "out of memory"})
    paths = write_comparison(comparison, ABOUT, tmp_path / "out")
    assert [path.name for path in paths] == ["comparison.md", "comparison.csv", "cases.csv", "comparison.json", "cost.png"]
    text = paths[0].read_text()
    assert "- huge: not trained: out of memory" in text
    assert "- low: case99: not scored" in text
    assert "| first | – | – | – | – | – |" in text  # nothing was reconstructed
    assert re.findall(r"^\| (\w+) .* \| (\w+|–) \| (\w+|–) \|$", text.split("## Cost")[1], re.MULTILINE)[:4] == [
        ("network", "format", "mirrored"),
        ("first", "float32", "yes"),
        ("low", "–", "–"),
        ("same", "float32", "yes"),
    ]
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [row["network"] for row in rows] == ["first", "low", "same", "huge"]
    assert float(rows[1]["dice_difference"]) == comparison.differences["dice"]["low"].mean
    assert rows[3]["error"] == "out of memory"
    cases = list(csv.DictReader(paths[2].read_text().splitlines()))
    assert len(cases) == 90
    assert float(cases[0]["dice"]) == three[0].scores["case00", "liver"]["dice"]
    stored = json.loads(paths[3].read_text())
    assert stored["networks"][0]["means"]["dice"]["mean"] == comparison.means["first"]["dice"].mean
    assert stored["support"] == comparison.sentences()
    assert paths[4].read_bytes().startswith(b"\x89PNG")


def test_reconstruction_has_its_own_table_and_sentence(three):
    for number, one in enumerate(three):
        found = {"mse": 0.01 * (1 + number), "ssim": 0.9, "bar_ssim": 0.8}
        rows = [RestoredRow(f"case{i:02d}", "noise", found) for i in range(30)]
        three[number] = one = replace(one, restored=tuple(rows))
        for values in one.scores.values():
            values |= {"mse_mask": 0.05 * (1 - values["dice"]), "foreground_share": 0.025}
    comparison = compare_scores(three, margin=0.005)
    assert comparison.means["low"]["mse"].mean == pytest.approx(0.02)
    assert comparison.sentences()[1].startswith("MSE of masks: first is better than low (-0.00")
    text = as_markdown(comparison, ABOUT)
    assert "| first | 30 | 0.02500 [0.02500, 0.02500] | 0.0" in text
    assert "| low | noise | 30 | 0.02000 | – | 0.900 | 0.800 | +0.100 [+0.100, +0.100] | – | – | – |" in text


def test_nothing_trained_says_so():
    comparison = compare_scores([], margin=0.005, failed={"unet": "no space left"})
    assert "No network was trained" in as_markdown(comparison, ABOUT)
