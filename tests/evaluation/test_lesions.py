"""Lesions are paired as a slow search over all ways finds it."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.engines import LocalEngine
from autoseg.evaluation import evaluate_folder
from autoseg.evaluation.folder import Annotation
from autoseg.evaluation.lesions import LesionRule, match_lesions
from autoseg.imaging.files import write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.page.scores import scores_section

VOXEL_ML = 0.003


def flood(mask: np.ndarray) -> list[frozenset[tuple[int, ...]]]:
    """The pieces of a mask as sets of voxels, by walking from neighbour to neighbour."""
    left, pieces = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}, []
    while left:
        piece, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            piece.add(voxel)
            near = {n for n in left if max(abs(a - b) for a, b in zip(n, voxel, strict=True)) <= 1}
            left -= near
            edge += near
        pieces.append(frozenset(piece))
    return pieces


def slow(reference: np.ndarray, predicted: np.ndarray, overlap: float, fewest: int) -> tuple[list[float], int, int]:
    """(Dice of pairs, missed, false): the best of all ways to pair."""
    truth, guess = ([piece for piece in flood(mask) if len(piece) >= fewest] for mask in (reference, predicted))
    iou = [[len(a & b) / len(a | b) for b in guess] for a in truth]
    slots = [*range(len(guess)), *[-1] * len(truth)]
    best: tuple[float, list[float]] = (-1.0, [])
    for order in set(permutations(slots, len(truth))):
        pairs = [(i, j) for i, j in enumerate(order) if j >= 0 and iou[i][j] >= overlap and iou[i][j] > 0]
        total = sum(iou[i][j] for i, j in pairs)
        if total > best[0]:
            best = total, [2 * len(truth[i] & guess[j]) / (len(truth[i]) + len(guess[j])) for i, j in pairs]
    return best[1], len(truth) - len(best[1]), len(guess) - len(best[1])


@pytest.mark.parametrize(("overlap", "fewest"), [(0.1, 1), (0.25, 2), (0.5, 1)])
def test_pairs_are_those_of_a_search_over_all_ways(overlap: float, fewest: int) -> None:
    rng = np.random.default_rng(fewest)
    for _ in range(12):
        reference, predicted = np.zeros((2, 5, 9, 12), bool)
        for mask in (reference, predicted):
            for _ in range(4):
                z, y, x = rng.integers(0, (4, 7, 10))
                mask[z : z + 2, y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
            mask.setflags(write=False)
        if max(len(flood(reference)), len(flood(predicted))) > 4:
            continue
        found = match_lesions(reference, predicted, VOXEL_ML, LesionRule(("x",), overlap, fewest * VOXEL_ML))
        dice, missed, false = slow(reference, predicted, overlap, fewest)
        assert sum(found.found) == pytest.approx(sum(dice))
        assert (len(found.found), found.missed, found.false) == (len(dice), missed, false)


def test_scores_of_lesions_on_paper() -> None:
    reference, predicted = np.zeros((2, 3, 12, 12), bool)
    reference[1, 1:3, 1:5] = predicted[1, 1:3, 1:5] = True  # found entirely
    reference[1, 6:8, 1:5] = predicted[1, 6:8, 3:7] = True  # half of it: Dice 0.5, IoU 1/3
    reference[1, 10, 10] = True  # missed
    predicted[1, 1, 10] = predicted[1, 4, 10] = True  # false
    found = match_lesions(reference, predicted, 0.001, LesionRule(("x",), 0.3))
    assert sorted(found.found) == [0.5, 1.0]
    assert (found.missed, found.false) == (1, 2)
    assert found.f1 == pytest.approx(4 / 7)
    assert found.dice == pytest.approx(1.5 / 5)
    strict = match_lesions(reference, predicted, 0.001, LesionRule(("x",), 0.5, 0.002))
    assert (strict.found, strict.missed, strict.false) == ((1.0,), 1, 1)
    none = match_lesions(np.zeros_like(reference), np.zeros_like(reference), 0.001, LesionRule(("x",)))
    assert none.f1 is none.dice is None


@pytest.mark.thorough
def test_marked_structures_are_scored_by_lesions_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = Geometry.from_spacing((4, 12, 12), (1.0, 1.0, 1.0))
    truth = np.zeros(grid.shape, np.uint8)
    truth[1, 1:3, 1:5], truth[1, 6:8, 1:5], truth[3] = 1, 1, 2
    guess = np.where(np.arange(12)[:, None] < 5, truth, 0).astype(np.uint8)
    guess[1, 10, 10] = 1
    for side, data in (("reference", truth), ("predicted", guess)):
        write_label_volume(LabelVolume(data, grid), tmp_path / side / "a.nii.gz")
    labels = LabelSchema(("lesion", "organ"), ((1,), (2,)), False, (1, 2))
    report = evaluate_folder(
        tmp_path / "reference",
        tmp_path / "predicted",
        labels,
        annotation=Annotation(LesionRule(("lesion",))),
        engine=LocalEngine(1),
    )
    row, organ = report.rows
    assert [row[name] for name in ("lesion_f1", "lesions_found", "lesions_missed", "lesions_false")] == [0.5, 1, 1, 1]
    assert organ["lesion_f1"] is None
    assert "| lesion | 1 | 0.500 |" in report.table()
    page = str(scores_section(report, {}, []))
    assert "Lesion by lesion" in page
    assert "from an IoU of 0.1 on" in page
    words = ["evaluate", "--reference", str(tmp_path / "reference"), "--predicted", str(tmp_path / "predicted"), "-o"]
    assert main([*words, str(tmp_path / "out"), "--lesions", "label 1", "--lesion-ml", "0.002", "--quiet"]) == 0
    told = capsys.readouterr()
    assert main([*words, str(tmp_path / "no"), "--lesions", "heart", "--quiet"]) == 2, told
    assert "heart" in capsys.readouterr().err
