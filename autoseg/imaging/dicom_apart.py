"""Telling apart the volumes among the images of one DICOM series, by their headers.

Images of another size or orientation form groups of their own. Within such a group, several echoes, times or kinds of image
are volumes of their own if they are at the same positions or between each other's; so are stacks (StackID) with a gap between.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np

from autoseg.imaging.dicom_series import Plane, depths_mm, repeats

__all__ = ["TRAITS", "alike", "are_ambiguous", "are_placed", "told_apart"]

# elements that may distinguish images at one position, most likely first
TRAITS = (
    "ImageType",
    "FrameType",
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "StackID",
    "InversionTime",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "DiffusionBValue",
    "AcquisitionNumber",
)
# of these, the ones that are never different within a volume
CONTRASTS = (
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "InversionTime",
    "DiffusionBValue",
)
NEAR = 0.02  # of a direction (a degree) or a pixel size: smaller differences are rounding or a fault, not a new volume
EVEN = 0.05  # of the distance of slices: by how much those of one stack may differ


def alike(planes: Iterable[Plane]) -> list[list[Plane]]:
    """Groups with the same size and nearly the same spacing and direction, in order of appearance; ``stack_of`` decides whether
    they fill a grid despite small differences. Planes without a position form separate groups."""
    groups: list[list[Plane]] = []
    for plane in planes:
        group = next((group for group in groups if _is_near(plane, group[0])), None)
        if group is None:
            groups.append([plane])
        else:
            group.append(plane)
    return groups


def _is_near(plane: Plane, other: Plane) -> bool:
    if (plane.shape, plane.samples) != (other.shape, other.samples):
        return False
    for own, its, largest in (
        (plane.spacing_mm, other.spacing_mm, NEAR * min(other.spacing_mm or (1,))),
        (plane.orientation, other.orientation, NEAR),
    ):
        if own is None or its is None:  # with a position, this is a fault; without one, another kind of image
            if own is not its and not (plane.position and other.position):
                return False
        elif np.abs(np.subtract(own, its)).max() > largest:
            return False
    return True


def told_apart(planes: list[Plane]) -> list[tuple[list[Plane], str]]:
    """[(planes, what they have in common)] of volumes at the same positions, between each other, or of even stacks with a gap
    between them; one entry if nothing distinguishes them."""
    if not are_placed(planes):
        return [(planes, "")]
    depths = {id(plane): depth for plane, depth in zip(planes, depths_mm(planes), strict=True)}

    def depths_of(group: list[Plane]) -> np.ndarray:
        return np.array(sorted(depths[id(plane)] for plane in group))

    def are_stacks(groups: list[list[Plane]]) -> bool:
        return all(len(group) > 1 and not repeats(depths_of(group), group[0]).any() for group in groups)

    def are_between_each_other(groups: list[list[Plane]]) -> bool:
        inside = [depths_of(group) for group in groups if len(group) > 2]
        if len(inside) < len(groups) or max(one[0] for one in inside) >= min(one[-1] for one in inside):
            return False
        return all(_is_even(np.diff(depths)) for depths in inside)

    def are_slabs_with_gaps(groups: list[list[Plane]]) -> bool:
        inside = [np.diff(depths_of(group)) for group in groups]
        return all(map(_is_even, inside)) and not _is_even(np.diff(depths_of(planes)))

    tries: list[tuple[tuple[str, ...], Callable[[list[list[Plane]]], bool]]]
    if _repeats(planes):
        tries = [(names, are_stacks) for n in (1, 2) for names in itertools.combinations(TRAITS, n)]
    else:
        tries = [*(((name,), are_between_each_other) for name in CONTRASTS), (("StackID",), are_slabs_with_gaps)]
    for names, is_apart in tries:
        groups = _by_traits(planes, names)
        if len(groups) > 1 and is_apart(list(groups.values())):
            return [
                (group, f" ({', '.join(f'{name} {value}' for name, value in zip(names, values, strict=True))})")
                for values, group in sorted(groups.items(), key=lambda item: [_rank(value) for value in item[0]])
            ]
    return [(planes, "")]


def _is_even(gaps: np.ndarray) -> bool:
    """Whether there are distances of slices, and all are the same."""
    return bool(gaps.size and np.ptp(gaps) <= EVEN * gaps.mean())


def _by_traits(planes: list[Plane], names: tuple[str, ...]) -> dict[tuple[str, ...], list[Plane]]:
    """{texts of these traits: planes}."""
    groups: dict[tuple[str, ...], list[Plane]] = defaultdict(list)
    for plane in planes:
        traits = dict(plane.traits)
        groups[tuple(traits.get(name, "") for name in names)].append(plane)
    return groups


def are_placed(planes: list[Plane]) -> bool:
    return all(plane.position and plane.orientation and plane.spacing_mm for plane in planes)


def _rank(text: str) -> tuple[int, float, str]:
    """Sort key: numbers by value, before other texts."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def _repeats(planes: list[Plane]) -> bool:
    return bool(repeats(np.sort(depths_mm(planes)), planes[0]).any())


def are_ambiguous(planes: list[Plane]) -> bool:
    """Whether several images lie at one position and nothing in the headers distinguishes them."""
    return any(
        len(told_apart(group)) == 1 and are_placed(group) and _repeats(group) for group in alike(planes) if len(group) > 1
    )
