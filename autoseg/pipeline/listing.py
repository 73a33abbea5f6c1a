"""What there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.networks.listing import ListedNetwork, list_networks

__all__ = ["Networks", "networks"]


@dataclass(frozen=True)
class Networks:
    """All networks, those of installed packages too."""

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
    """Every network that ``--network`` takes, with one line about it and its size."""
    return Networks(list_networks())
