"""The grid on which a network works: axis order, voxel size, and the size of the cases on it.

The rule is the median voxel size, with one exception for thick slices. If a data set mixes two kinds of scans, or has
scans far from the rest, no single voxel size fits; a ``Decision`` then warns with the numbers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planners.axes import Triple, triple
from planners.fingerprint import Fingerprint
from planners.names import counted
from planners.plan import Decision

__all__ = ["ANISOTROPY", "Grid", "choose_grid", "is_flat", "say"]

ANISOTROPY = 3.0  # an axis this much coarser than the others counts as thick slices; nnU-Net
THICK_PERCENTILE = 10  # of the spacings along it; nnU-Net
GAP = 2.0  # a gap of this factor between sorted spacings separates two kinds of scans; one stage of pooling
GAP_SHARE = 0.2  # least fraction of the cases on the smaller side of the gap; fewer are outliers
AXES = "zyx"


@dataclass(frozen=True)
class Grid:
    """The voxel grid of a plan; tuples are in network order.

    ``median_shape`` is the size of the median case on it (halves are possible), ``n_voxels`` its voxels times the number of
    cases.
    """

    axis_order: Triple
    spacing_mm: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    n_voxels: float


def choose_grid(fingerprint: Fingerprint) -> tuple[Grid, tuple[Decision, ...]]:
    """Target grid of a data set.

    Returns:
        (Grid, decisions)
    """
    spacings, shapes = np.array(fingerprint.spacings_mm, float), np.array(fingerprint.shapes, float)
    spacing, decision = _target_spacing(spacings, np.median(shapes, axis=0))
    order = _axis_order(spacing, np.median(shapes, axis=0))
    resized = np.maximum(np.round(spacings * shapes / spacing), 1)
    median = np.median(resized, axis=0)
    grid = Grid(
        axis_order=order,
        spacing_mm=triple(float(spacing[axis]) for axis in order),
        median_shape=triple(float(median[axis]) for axis in order),
        n_voxels=float(np.prod(median)) * len(shapes),
    )
    axes = Decision(
        "axis order",
        " ".join(AXES[axis] for axis in order),
        "the axis with the thickest slices comes first, so that 2D slices lie in the finer plane",
        f"target spacing {say(spacing)} mm along z y x, median case {say(grid.median_shape)} voxels in this order",
    )
    return grid, (decision, axes, *_warn_of_two_kinds(spacings), *_warn_of_outliers(fingerprint.cases, spacings))


def is_flat(fingerprint: Fingerprint) -> bool:
    """Whether the typical case is a single slice: 2D data."""
    return bool((np.median(np.array(fingerprint.shapes), axis=0) == 1).any())


def say(numbers: Iterable[float]) -> str:
    """Numbers as text for messages: four significant digits, joined by ' x '."""
    return " x ".join(f"{number:.4g}" for number in numbers)


def _target_spacing(spacings: np.ndarray, median_shape: np.ndarray) -> tuple[np.ndarray, Decision]:
    """(3,) mm in canonical order, and why."""
    target = np.median(spacings, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    next_coarse = max(target[others])
    much_coarser = target[coarse] > ANISOTROPY * next_coarse
    numbers = f"{counted(len(spacings), 'case')}, median {say(target)} mm, {say(median_shape)} voxels before resampling"
    if not (much_coarser and median_shape[coarse] * ANISOTROPY < min(median_shape[others])):
        rule = "the median voxel size of the data set"
        return target, Decision("spacing", f"{say(target)} mm (z y x)", rule, numbers)
    low = np.percentile(spacings[:, coarse], THICK_PERCENTILE)
    target[coarse] = low if low >= next_coarse else next_coarse + 1e-5  # stays the coarsest axis
    rule = (
        f"the median, but percentile {THICK_PERCENTILE} along {AXES[coarse]}, which is more than {ANISOTROPY:g} times "
        "coarser than the other axes and has that many times fewer voxels"
    )
    return target, Decision("spacing", f"{say(target)} mm (z y x)", rule, numbers)


def _axis_order(spacing: np.ndarray, median_shape: np.ndarray) -> Triple:
    """A single-slice axis first, else the coarsest; the others stay in order."""
    flat = np.flatnonzero(median_shape == 1)
    first = int(flat[0]) if flat.size else int(np.argmax(spacing))
    return triple((first, *(axis for axis in range(3) if axis != first)))


def _warn_of_two_kinds(spacings: np.ndarray) -> Iterator[Decision]:
    """One warning for each axis whose spacings fall into two well separated groups."""
    for axis in range(3):
        groups = _two_groups(spacings[:, axis])
        if groups:
            fine, coarse = groups
            yield Decision(
                f"two kinds of scans along {AXES[axis]}",
                "one network for both",
                f"spacings a factor {GAP:g} or more apart, with {GAP_SHARE:.0%} of the cases or more on either side; "
                "no target fits both: consider two data sets, and look at the results of each kind",
                f"{counted(len(fine), 'case')} around {np.median(fine):.4g} mm, {len(coarse)} "
                f"around {np.median(coarse):.4g} mm",
                warning=True,
            )


def _two_groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(finer, coarser): the sorted values on either side of the widest gap; None if there are not two kinds."""
    values = np.sort(values)
    ratios = values[1:] / values[:-1]
    if not ratios.size or ratios.max() < GAP:
        return None
    cut = int(np.argmax(ratios)) + 1
    if min(cut, len(values) - cut) < max(2, GAP_SHARE * len(values)):
        return None
    return values[:cut], values[cut:]


def _warn_of_outliers(cases: Sequence[str], spacings: np.ndarray) -> Iterator[Decision]:
    """A warning that names the scans whose voxel size is far from the median, unless they form a second kind."""
    ratio = spacings / np.median(spacings, axis=0)
    ratio = np.maximum(ratio, 1 / ratio)
    ratio[:, [_two_groups(spacings[:, axis]) is not None for axis in range(3)]] = 1
    far = np.flatnonzero(ratio.max(axis=1) > ANISOTROPY)
    if far.size:
        worst = far[np.argsort(-ratio[far].max(axis=1), kind="stable")][:5]
        named = "; ".join(f"{cases[i]} {say(spacings[i])} mm" for i in worst)
        yield Decision(
            "scans with unusual spacing",
            "kept",
            f"more than a factor {ANISOTROPY:g} from the median along some axis; check that the header is right",
            f"{far.size} of {len(cases)}: {named}" + ("; ..." if far.size > len(worst) else ""),
            warning=True,
        )
