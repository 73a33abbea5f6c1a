"""Comparisons: what counts per case, which sentences the numbers allow, and that the files hold them."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from autoseg.evaluation import Difference
from autoseg.evaluation.comparison import Contender, compare_scores, verdict
from autoseg.evaluation.comparison_report import as_markdown, write_comparison

ABOUT = {"title": "Networks compared", "conditions": ["Ten minutes each."]}


def contender(name, dice, **more):
    """One structure, cases in the order of the values."""
    scores = {(f"case{i:02d}", "liver"): {"dice": value, "hd95_mm": 4.0} for i, value in enumerate(dice)}
    return Contender(name, scores, **more)


@pytest.fixture
def three():
    """Against ``first``: ``low`` is lower in every case, ``same`` differs by noise far below the margin."""
    rng = np.random.default_rng(0)
    base = rng.beta(20, 3, 30)
    cost = {"operations": 3e9, "seconds_per_step": 0.5, "steps": 100, "precision": "float32"}
    return [
        contender("first", base, cost=cost),
        contender("low", base - rng.uniform(0.01, 0.03, 30), cost={**cost, "operations": 1e9}),
        contender("same", base + rng.normal(0, 1e-4, 30), cost=cost),
    ]


def test_a_case_counts_as_the_mean_of_its_defined_structures():
    scores = {("a", "liver"): {"dice": 0.8}, ("a", "spleen"): {"dice": None}, ("b", "liver"): {"dice": None}}
    assert Contender("x", scores).by_case("dice") == {"a": 0.8, "b": None}
    scores["a", "spleen"] = {"dice": 0.0}  # invented where there is none
    assert Contender("x", scores).by_case("dice") == {"a": 0.4, "b": None}


@pytest.mark.parametrize(
    ("mean", "low", "high", "p_value", "metric", "expected"),
    [
        (0.02, 0.01, 0.03, 0.01, "dice", "better"),
        (-0.02, -0.03, -0.01, 0.01, "dice", "worse"),
        (-0.02, -0.03, -0.01, 0.01, "hd95_mm", "better"),  # less is better
        (0.02, 0.01, 0.03, 0.06, "dice", "open"),
        (0.02, -0.01, 0.05, 0.01, "dice", "open"),
        (0.001, -0.004, 0.004, 0.6, "dice", "equivalent"),
        (0.5, None, None, 1.0, "dice", "unknown"),
    ],
)
def test_what_a_difference_allows_to_say(mean, low, high, p_value, metric, expected):
    assert verdict(Difference(20, 0, mean, low, high, p_value), metric, 0.005) == expected


def test_the_sentence_names_who_is_beaten_by_how_much_and_who_is_not(three):
    found = compare_scores(three, margin=0.005)
    (sentence,) = found.sentences()
    better, equivalent = sentence.split("; it ")
    assert better.startswith("Dice: first is better than low (+")
    assert "p < 0.001, 30 cases" in better
    assert equivalent.startswith("is equivalent, within 0.5 points, to same (")
    difference = found.differences["dice"]["low"]
    assert f"+{100 * difference.mean:.2f} [{100 * difference.low:.2f}, {100 * difference.high:.2f}]" in better


def test_the_effect_of_closed_gates_is_a_paired_difference(three):
    found = compare_scores(three[:1], margin=0.005, gates_closed={"first": three[1]})
    _, difference = found.gates_closed["first"]
    assert difference.mean == pytest.approx(
        found.means["first"]["dice"].mean - np.mean(list(three[1].by_case("dice").values()))
    )
    assert "relies on its attention" in found.sentences()[-1]
    assert "With attention switched off" in as_markdown(found, ABOUT)


def test_the_files_hold_every_number_and_every_failure(three, tmp_path):
    three[1] = contender("low", three[1].by_case("dice").values(), failures=("case99: not scored",))
    comparison = compare_scores(three, margin=0.005, failed={"huge": "out of memory"})
    paths = write_comparison(comparison, ABOUT, tmp_path / "out")
    assert [path.name for path in paths] == ["comparison.md", "comparison.csv", "cases.csv", "comparison.json", "cost.png"]
    text = paths[0].read_text()
    assert "- huge: not trained: out of memory" in text
    assert "- low: case99: not scored" in text
    assert "| first | – | – | – | – | – |" in text  # nothing was reconstructed
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
        rows = [{"case": f"case{i:02d}", "degradation": "noise", **found} for i in range(30)]
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
