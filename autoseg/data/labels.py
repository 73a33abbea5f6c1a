"""The meaning of the numbers in a label file.

Three numberings, kept apart by name. A *value* is the number in the file (any integer, gaps allowed). A *code* is its
position among the declared values, 0 for background, -1 for voxels to ignore; the pipeline uses codes. A *head* is an
output channel of the network: without regions, head k is code k (softmax, background first); with regions, head r is
region r (sigmoid), and a region is a set of codes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.errors import DatasetError, shown
from planners.records import RecordError, added, from_json

__all__ = ["IGNORE", "LabelSchema", "groups_of", "read_labels"]

IGNORE = -1
BLOCK = 2**18  # voxels that are looked up at a time
UNDECLARED = -2  # only while encoding
LARGEST_TABLE = 2**20  # range of label values that is encoded with a table
LOWEST, HIGHEST = -(2**31), 2**31 - 1  # range of values in a written label file


@dataclass(frozen=True)
class LabelSchema:
    """The structures of a data set.

    Attributes:
        structures: names of the foreground structures or regions, in head order.
        values: the label values of each structure (one, or several for a region).
        has_regions: structures are regions that may overlap, with sigmoid heads.
        paint_values: the value written for each structure; later structures overwrite earlier ones, see ``paint_codes``.
        ignore: label value of voxels without annotation, or None.
        overwrite: a later region always overwrites earlier ones, even if another value means both together.
    """

    structures: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    has_regions: bool
    paint_values: tuple[int, ...]
    ignore: int | None = None
    overwrite: bool = added(2, False)

    def __post_init__(self) -> None:
        if not all(self.values):
            raise ValueError("expected label values for every structure, found one without any")
        if not len(self.structures) == len(self.values) == len(self.paint_values):
            raise ValueError(
                f"expected as many groups of values and painted values as structures, which are {len(self.structures)}; found "
                f"{len(self.values)} and {len(self.paint_values)}"
            )
        if twice := [name for name, count in Counter(self.structures).items() if count > 1]:
            raise ValueError(f"expected structures of different names, found {twice[0]!r} twice")
        values = [value for group in self.values for value in group] + [*self.paint_values, self.ignore or 0]
        if min(values) < LOWEST or max(values) > HIGHEST:
            raise ValueError(f"expected label values in {LOWEST}...{HIGHEST}, found {shown(max(values, key=abs))}")

    @property
    def declared_values(self) -> tuple[int, ...]:
        """Every value permitted in a file, except ``ignore``: 0 first, then ascending; entry c has code c."""
        found = {value for group in self.values for value in group} | set(self.paint_values)
        return (0, *sorted(found - {0}))

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """{structure: its label values}, in head order."""
        return dict(zip(self.structures, self.values, strict=True))

    @property
    def painted(self) -> dict[int, str]:
        """{value in a written label map: its structure}, in head order."""
        return dict(zip(self.paint_values, self.structures, strict=True))

    @property
    def n_heads(self) -> int:
        """Number of output channels of a network: regions, or background and structures."""
        return len(self.structures) + (0 if self.has_regions else 1)

    @property
    def structure_codes(self) -> tuple[tuple[int, ...], ...]:
        """The codes of each structure."""
        code = {value: i for i, value in enumerate(self.declared_values)}
        return tuple(tuple(sorted(code[value] for value in group)) for group in self.values)

    @property
    def paint_codes(self) -> tuple[tuple[int, ...], ...]:
        """The code that results from painting each structure over each code: (structures, codes), for ``logits_to_codes``.

        If a value means exactly the structures found so far, its code is used: overlap is kept and the order does not matter.
        Otherwise, and always with ``overwrite``, the code of the structure's own value is used.
        """
        code = {value: i for i, value in enumerate(self.declared_values)}
        n_codes, own = len(code), [code[value] for value in self.paint_values]
        if self.overwrite:
            return tuple((c,) * n_codes for c in own)
        owners: list[set[int]] = [set() for _ in range(n_codes)]
        for r, codes in enumerate(self.structure_codes):
            for c in codes:
                owners[c].add(r)
        members = [frozenset(group) for group in owners]
        code_of = {group: code for code, group in reversed(list(enumerate(members)))}  # the lowest of equal ones,
        code_of |= {members[code]: code for code in own}  # but a painted one has priority
        return tuple(tuple(code_of.get(group | {r}, own[r]) for group in members) for r in range(len(own)))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Label values to codes.

        Args:
            values: integer array of any shape.

        Returns:
            int16 array of codes; ``IGNORE`` for the value ``ignore``.

        Raises:
            DatasetError: a value that is not declared.
        """
        known = {value: code for code, value in enumerate(self.declared_values)}
        if self.ignore is not None:
            known[self.ignore] = IGNORE
        lowest, highest = min(known), max(known)
        if np.size(values) and (np.min(values) < lowest or np.max(values) > highest):
            raise DatasetError(self._undeclared(values))
        if highest - lowest >= LARGEST_TABLE:
            return self._searched(values, known)
        table = np.full(highest - lowest + 1, UNDECLARED, np.int16)  # negative values index from the end
        for value, code in known.items():
            table[value] = code
        if (table == np.arange(table.size)).all():  # the usual 0, 1, 2, ...
            return values.astype(np.int16)
        codes = _looked_up(table, values)
        if (codes == UNDECLARED).any():
            raise DatasetError(self._undeclared(values))
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (integer array of any shape, without ``IGNORE``) to int32 label values."""
        return _looked_up(np.array(self.declared_values, np.int32), codes)

    def _searched(self, values: np.ndarray, known: Mapping[int, int]) -> np.ndarray:
        """``encode`` for widely spaced values; memory grows with the number of labels only."""
        ascending = np.array(sorted(known), np.int64)
        codes = np.array([known[value] for value in ascending.tolist()], np.int16)
        places = np.searchsorted(ascending, values)  # none past the end: the largest value is known
        if (ascending[places] != values).any():
            raise DatasetError(self._undeclared(values))
        found: np.ndarray = codes[places]
        return found

    def mask(self, values: np.ndarray, structure: int) -> np.ndarray:
        """Boolean array: True where a label *value* belongs to structure number ``structure``."""
        return np.isin(values, self.values[structure])

    def _undeclared(self, values: np.ndarray) -> str:
        known = list(self.declared_values)
        declared = {*known, self.ignore}
        unknown = [value for value in np.unique(values).tolist() if value not in declared]
        listed = ", ".join(str(value) for value in unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        return f"label values [{listed}] are not declared in dataset.json, which has {known}. Name them there"


def _looked_up(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """``table[at]`` in a fraction of the memory: numpy would convert the whole array to eight-byte indices."""
    flat = np.ravel(at)
    found = np.empty(flat.shape, table.dtype)
    for start in range(0, flat.size, BLOCK):
        found[start : start + BLOCK] = table[flat[start : start + BLOCK]]
    return found.reshape(np.shape(at))


def groups_of(labels: object, where: object) -> dict[str, tuple[int, ...]]:
    """{structure: its label values} from the ``labels`` of a ``CASE.json``, in which a single value need not be a list.

    Raises:
        DatasetError: another content; ``where`` is the file, for the message.
    """
    try:
        found: dict[str, int | tuple[int, ...]] = from_json(dict[str, int | tuple[int, ...]], labels, f"{where}: labels")
        groups = {name: values if isinstance(values, tuple) else (values,) for name, values in found.items()}
        LabelSchema(tuple(groups), tuple(groups.values()), True, tuple(sum(group[:1]) for group in groups.values()))
    except ValueError as fault:
        said = str(fault) if isinstance(fault, RecordError) else f"{where}: labels: {fault}"
        raise DatasetError(f"{said}. Move the file away, or predict the case again") from fault
    return groups


def read_labels(entries: Mapping[str, Any], region_order: object = None) -> LabelSchema:
    """The schema from the ``labels`` of a dataset.json.

    Args:
        entries: name -> value, or name -> list of values (a region). ``background`` may be left out; ``ignore`` is
            the value of voxels without annotation.
        region_order: ``regions_class_order``, the value painted for each region; required with regions.

    Raises:
        DatasetError: a value that is not an integer, a background other than 0, a value used twice, a region order of
            the wrong length or with values outside its regions.
    """
    entries = {str(name): _integers(name, value) for name, value in entries.items()}
    background = entries.pop("background", (0,))
    if background != (0,):
        raise DatasetError(f"labels: background must be 0 in dataset.json, found {list(background)}")
    ignore = entries.pop("ignore", None)
    if not entries:
        raise DatasetError("labels: dataset.json names no structure besides background")
    for name in entries:
        if not name.strip():
            raise DatasetError(f"labels: expected a name for the value {entries[name][0]} in dataset.json, found none")
        if name.lower() == "ignore":
            raise DatasetError(f'labels: expected "ignore" in lower case in dataset.json, found {name!r}')
    used = {value for group in entries.values() for value in group}
    if 0 in used:
        raise DatasetError('labels: in dataset.json the value 0 can only be called "background", in lower case')
    if ignore is not None and (len(ignore) != 1 or ignore[0] in used | {0}):
        raise DatasetError(f"labels: ignore must be one value of its own in dataset.json, found {list(ignore)}")
    has_regions = any(len(group) > 1 for group in entries.values())
    if has_regions:
        order = _region_order(entries, region_order)
    else:
        entries = dict(sorted(entries.items(), key=lambda item: item[1]))
        order = tuple(group[0] for group in entries.values())
        if len(set(order)) < len(order):
            raise DatasetError(f"labels: each structure needs its own value in dataset.json, found {list(order)}")
    return LabelSchema(
        structures=tuple(entries),
        values=tuple(entries.values()),
        has_regions=has_regions,
        paint_values=order,
        ignore=None if ignore is None else ignore[0],
    )


def _region_order(regions: Mapping[str, tuple[int, ...]], order: object) -> tuple[int, ...]:
    """The value painted for each region; it must belong to the region, so that written maps can be read back."""
    if not isinstance(order, list | tuple) or len(order) != len(regions):
        raise DatasetError(
            f"regions_class_order: expected {len(regions)} values in dataset.json, one for each of "
            f"{', '.join(regions)}; found {shown(order)}"
        )
    order = _integers("regions_class_order", list(order))
    count = Counter(order)
    for (name, group), value in zip(regions.items(), order, strict=True):
        if value not in group or count[value] > 1:
            raise DatasetError(
                f"regions_class_order: region {name!r} needs one of its own values {list(group)} that no other region "
                f"takes, found {value} in {list(order)}"
            )
    return order


def _integers(name: object, value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if str(name).lstrip("-").isdigit() and isinstance(value, str):
        raise DatasetError(
            f'labels: dataset.json has the older form {{"{name}": "{value}"}}; swap it: {{"{value}": {name}}}, '
            "or make a new folder of a Decathlon task with `autoseg convert msd`"
        )
    if not values or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise DatasetError(f"labels: {name!r} must be an integer or a list of them in dataset.json, found {shown(value)}")
    if min(values) < LOWEST or max(values) > HIGHEST:
        raise DatasetError(f"labels: {name!r} must lie in {LOWEST}...{HIGHEST} in dataset.json, found {shown(value)}")
    return tuple(values)
