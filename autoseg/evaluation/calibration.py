"""How well probabilities are calibrated, and the temperatures that calibrate them.

A calibrated model is right in 80 % of the voxels to which it gives 80 %. The *expected calibration error* of a structure (Guo
et al. 2017, class by class as in Nixon et al. 2019) is the mean difference between mean probability and fraction of voxels in
the structure, over bins of probability weighted by their voxels. Dividing logits by a *temperature* removes most of it.
Mutually exclusive structures share one temperature, since several could change which structure is the most probable. Regions
have one each, which leaves 0.5 unchanged. So no mask changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

__all__ = [
    "BINS",
    "CALIBRATION",
    "Calibration",
    "Samples",
    "calibrate",
    "calibration_error",
    "errors_of",
    "fit_temperatures",
    "loss_of",
    "probabilities_of",
    "together",
]

BINS = 15
CALIBRATION = "calibration.json"
LOWEST, HIGHEST = 0.05, 20.0  # range of temperatures searched


@dataclass(frozen=True, eq=False)
class Samples:
    """Voxels with known logits and reference.

    Attributes:
        logits: (N, K), one column per head; background first unless heads are regions.
        truth: (N, K) bool, which heads a voxel belongs to.
        has_regions: heads are regions with a sigmoid each; else one softmax.
    """

    logits: np.ndarray
    truth: np.ndarray
    has_regions: bool

    def of_structures(self, values: np.ndarray) -> np.ndarray:
        """The columns of (N, K) ``values`` that are structures."""
        return values if self.has_regions else values[:, 1:]


def together(several: Sequence[Samples]) -> Samples:
    """Concatenate samples of one model."""
    return Samples(
        np.concatenate([one.logits for one in several]),
        np.concatenate([one.truth for one in several]),
        several[0].has_regions,
    )


def probabilities_of(samples: Samples, temperatures: Sequence[float] = ()) -> np.ndarray:
    """(N, K) float64 probabilities; ``temperatures`` as ``fit_temperatures`` returns them, () for none."""
    scores = samples.logits / np.array(temperatures or [1.0])
    if samples.has_regions:
        return np.asarray(0.5 * np.tanh(0.5 * scores) + 0.5)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def loss_of(samples: Samples, temperatures: Sequence[float] = ()) -> float:
    """Mean negative log likelihood per voxel, in nats; summed over regions."""
    scores = samples.logits / np.array(temperatures or [1.0])
    if samples.has_regions:
        return float((np.logaddexp(0, scores) - np.where(samples.truth, scores, 0)).sum(axis=1).mean())
    largest = scores.max(axis=1, keepdims=True)
    total = np.log(np.exp(scores - largest).sum(axis=1)) + largest[:, 0]
    return float((total - scores[samples.truth]).mean())


def fit_temperatures(samples: Samples) -> tuple[float, ...]:
    """The temperatures with the lowest negative log likelihood: one, or one for each region."""
    logits = samples.logits.astype(np.float64)
    parts = [Samples(logits, samples.truth, False)]
    if samples.has_regions:
        parts = [Samples(logits[:, k : k + 1], samples.truth[:, k : k + 1], True) for k in range(logits.shape[1])]
    return tuple(_best_temperature(part) for part in parts)


def _best_temperature(samples: Samples) -> float:
    found = minimize_scalar(
        lambda log: loss_of(samples, (float(np.exp(log)),)),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error of one structure.

    Args:
        probabilities: (N,) in [0, 1].
        truth: (N,) bool.

    Returns:
        in [0, 1]; 0 without voxels.
    """
    if not len(truth):
        return 0.0
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, probabilities - truth, minlength=BINS)
    return float(np.abs(gaps).sum() / len(truth))


def errors_of(samples: Samples) -> tuple[float, ...]:
    """``calibration_error`` of each structure, without temperatures."""
    chances, truth = samples.of_structures(probabilities_of(samples)), samples.of_structures(samples.truth)
    return tuple(calibration_error(one, there) for one, there in zip(chances.T, truth.T, strict=True))


@dataclass(frozen=True)
class Calibration:
    """The effect of temperatures on cases to which they were not fitted.

    Attributes:
        temperatures: fitted to all voxels; () for none, unless both likelihood and calibration error of held-out
            voxels improve.
        before, after: structure -> expected calibration error, each fold with the temperatures of the others.
        loss_before, loss_after: negative log likelihood per voxel, likewise.
        voxels: number of voxels used.
    """

    temperatures: tuple[float, ...]
    before: dict[str, float]
    after: dict[str, float]
    loss_before: float
    loss_after: float
    voxels: int

    @property
    def mean_errors(self) -> tuple[float, float]:
        """(before, after), mean over structures."""
        return _mean(self.before), _mean(self.after)

    def table(self) -> str:
        """The result as Markdown, with a sentence on the temperatures."""
        from autoseg.evaluation.markdown import markdown_table

        rows = [["structure", "calibration error", "with temperature"]]
        rows += [[name, f"{value:.4f}", f"{self.after[name]:.4f}"] for name, value in self.before.items()]
        found = ", ".join(f"{value:.3f}" for value in self.temperatures)
        used = f"Temperature {found}" if found else "No temperature is used: on held-out voxels it is no better"
        return (
            f"{markdown_table(rows)}\n\n{used}. Expected calibration error in {BINS} bins, of {self.voxels} voxels in and "
            "around structures; each fold with the temperature that the other folds gave. Masks stay as they are."
        )


def calibrate(folds: Mapping[str, Samples], structures: Sequence[str]) -> Calibration:
    """Fit temperatures to all folds, and measure on each fold the effect of temperatures fitted to the others.

    Args:
        folds: two or more folds, each with voxels of its validation cases.
        structures: their names.
    """
    whole, chances, losses = together(list(folds.values())), [], []
    for name, held_out in folds.items():
        others = together([one for other, one in folds.items() if other != name])
        temperatures = fit_temperatures(others)
        chances.append(probabilities_of(held_out, temperatures))
        losses.append((loss_of(held_out, temperatures), len(held_out.logits)))
    after = whole.of_structures(np.concatenate(chances)).T
    truth = whole.of_structures(whole.truth).T
    loss_before = loss_of(whole)
    loss_after = sum(loss * count for loss, count in losses) / len(whole.logits)
    errors = dict(zip(structures, errors_of(whole), strict=True))
    errors_after = {name: calibration_error(p, t) for name, p, t in zip(structures, after, truth, strict=True)}
    helps = loss_after < loss_before and _mean(errors_after) < _mean(errors)
    return Calibration(
        temperatures=fit_temperatures(whole) if helps else (),
        before=errors,
        after=errors_after,
        loss_before=loss_before,
        loss_after=loss_after,
        voxels=len(whole.logits),
    )


def _mean(errors: Mapping[str, float]) -> float:
    return sum(errors.values()) / len(errors) if errors else 0.0
