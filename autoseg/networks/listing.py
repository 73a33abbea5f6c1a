"""Lists all networks, including those of installed packages, with a description and their size in a reference plan."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from autoseg.errors import AutosegError
from autoseg.networks import NETWORKS, build_network
from autoseg.networks.shapes import shapes_alone
from planners import Budget, ChannelStats, Fingerprint, Plan, get_planner, with_network

__all__ = ["ListedNetwork", "Networks", "networks", "reference_plan"]

CASES, EDGE_MM = 20, 128  # of the reference data set for sizes: one channel, one structure, voxels of 1 mm


@dataclass(frozen=True)
class ListedNetwork:
    """A network by its name in the registry.

    Attributes:
        name: for ``--network``.
        meaning: one line.
        parameters: number of trainable parameters with the features of ``reference_plan``; None if it cannot be built.
        package: the installed package that provides it; '' for those of autoseg.
        fault: why it cannot be built; '' if it can.
    """

    name: str
    meaning: str
    parameters: int | None
    package: str = ""
    fault: str = ""


def reference_plan() -> Plan:
    """The reference plan for sizes, of a simple data set: one channel and one structure, voxels of 1 mm."""
    stats = ChannelStats("MRI", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0)
    shapes, spacings = ((EDGE_MM,) * 3,) * CASES, ((1.0, 1.0, 1.0),) * CASES
    names = tuple(f"case_{number:02d}" for number in range(CASES))
    fingerprint = Fingerprint("reference", names, shapes, spacings, (stats,), ("structure",), 2)
    return get_planner("fullres_3d").plan(fingerprint, Budget())


@dataclass(frozen=True)
class Networks:
    """All networks, including those of installed packages."""

    networks: tuple[ListedNetwork, ...]

    def summary(self) -> str:
        width = max(len(one.name) for one in self.networks)
        lines = [f"{'network':{width}}  parameters  what it is"]
        for one in self.networks:
            size = f"{one.parameters / 1e6:.1f} M" if one.parameters is not None else "-"
            brought = f" (of the installed package {one.package})" if one.package else ""
            meaning = f"cannot be built: {one.fault}" if one.fault else one.meaning or "no description"
            lines.append(f"{one.name:{width}}  {size:>10}  {meaning}{brought}")
        about = "Parameters are those of a plan for one channel and one structure in voxels of 1 mm, at its default width."
        return "\n".join([*lines, "", about])


def networks() -> Networks:
    """Every network for ``--network``, in the order of the registry; ``fault`` says why one cannot be built."""
    plan = reference_plan()
    return Networks(tuple(_listed(name, plan) for name in NETWORKS))


def _listed(name: str, plan: Plan) -> ListedNetwork:
    package = NETWORKS.brought_by(name)
    try:
        meaning = _first_line(inspect.getdoc(NETWORKS[name]) or "")
        with shapes_alone():
            network = build_network(with_network(plan, name).network)
        return ListedNetwork(name, meaning, sum(weights.numel() for weights in network.parameters()), package)
    except AutosegError as fault:
        return ListedNetwork(name, "", None, package, str(fault))
    except Exception as fault:  # noqa: BLE001 - code of other packages
        return ListedNetwork(name, "", None, package, f"{type(fault).__name__}: {fault}")


def _first_line(docstring: str) -> str:
    """The first paragraph as one line."""
    return " ".join(docstring.partition("\n\n")[0].replace("``", "").split())
