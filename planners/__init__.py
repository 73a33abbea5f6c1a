"""Turns the statistics of a data set into a plan: voxel size, patch, network, and the reasons.

>>> plan = get_planner("fullres_3d").plan(fingerprint, Budget(gpu_memory_gb=8))
>>> print(plan.explain())

Needs only numpy and the standard library. A planner is a function of a ``Fingerprint``, a ``Budget`` and a
``Preset`` that returns a ``Plan``; README.md states every rule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from planners.cascade import plan_cascade
from planners.change import with_network
from planners.cost import count_elements, count_operations, count_parameters
from planners.fingerprint import ChannelStats, Fingerprint
from planners.fullres import plan_fullres
from planners.lowres import pays_off, plan_lowres
from planners.plan import (
    AttentionStage,
    Budget,
    ChannelNormalization,
    CoarseLabels,
    Decision,
    NetworkSpec,
    Plan,
    Resampling,
)
from planners.presets import PRESETS, Preset, get_preset, unknown_name
from planners.records import RecordError, digest, from_json, to_json
from planners.slices import plan_slices
from planners.spacing import is_flat

__all__ = [
    "PLANNERS",
    "PRESETS",
    "AttentionStage",
    "Budget",
    "ChannelNormalization",
    "ChannelStats",
    "CoarseLabels",
    "Decision",
    "Fingerprint",
    "NetworkSpec",
    "Plan",
    "Planner",
    "Preset",
    "RecordError",
    "Resampling",
    "count_elements",
    "count_operations",
    "count_parameters",
    "digest",
    "from_json",
    "get_planner",
    "plan_all",
    "planner_names",
    "to_json",
    "with_network",
]

PLANNERS = {"cascade_3d": plan_cascade, "fullres_3d": plan_fullres, "lowres_3d": plan_lowres, "slices_2d": plan_slices}


@dataclass(frozen=True)
class Planner:
    """A planning function with its preset. ``plan`` calls it."""

    name: str
    preset: Preset
    function: Callable[[Fingerprint, Budget, Preset], Plan]

    def plan(self, fingerprint: Fingerprint, budget: Budget = Budget()) -> Plan:  # noqa: B008 - a frozen value
        """The ``Plan`` for a data set within a budget; the same input gives the same plan."""
        return self.function(fingerprint, budget, self.preset)


def get_planner(name: str, preset: str = "classic") -> Planner:
    """The planner of that name with the constants of a preset.

    Names that are not in ``PLANNERS`` are looked up among the entry points of the group ``autoseg.planner.v1``.

    Raises:
        ValueError: no such planner or preset (the message lists the known names), or the package of the planner cannot be
            imported.
    """
    if name not in PLANNERS and name not in _brought():
        raise ValueError(unknown_name("planner", name, planner_names()))
    function = PLANNERS[name] if name in PLANNERS else _load(_brought()[name])
    return Planner(name, get_preset(preset), function)


def planner_names() -> tuple[str, ...]:
    """The names of all planners: those in ``PLANNERS``, and those of installed packages."""
    return tuple(dict.fromkeys((*PLANNERS, *_brought())))


@cache
def _brought() -> dict[str, EntryPoint]:
    """Planners of installed packages. Finding them takes a few hundredths of a second."""
    return {entry.name: entry for entry in entry_points(group="autoseg.planner.v1")}


def _load(entry: EntryPoint) -> Callable[..., Plan]:
    try:
        function: Callable[..., Plan] = entry.load()
    except Exception as fault:
        whose = entry.dist.name if entry.dist else entry.value
        raise ValueError(
            f"the planner {entry.name!r} of the installed package {whose} cannot be loaded: {type(fault).__name__}: {fault}. "
            "Repair, update or uninstall that package"
        ) from fault
    return function


def plan_all(fingerprint: Fingerprint, budget: Budget = Budget(), preset: str = "classic") -> tuple[Plan, ...]:  # noqa: B008 - a frozen value
    """Every plan that pays off for a data set.

    Returns:
        tuple of Plan: fullres_3d unless the data are 2D, lowres_3d where its rule keeps it, slices_2d always.
    """
    slices = get_planner("slices_2d", preset).plan(fingerprint, budget)
    if is_flat(fingerprint):
        return (slices,)
    full = get_planner("fullres_3d", preset).plan(fingerprint, budget)
    low = get_planner("lowres_3d", preset).plan(fingerprint, budget)
    return (full, low, slices) if pays_off(full, low) else (full, slices)
