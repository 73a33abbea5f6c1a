"""The post-processing chosen by nnU-Net's cross-validation, from ``postprocessing.json`` or ``postprocessing.pkl``.

Both name one function with its arguments, possibly several times: all but the largest component of some labels becomes
background. The pickle is read as plain data; any other function is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from autoseg.errors import ModelError, shown
from autoseg.interop.checkpoint import PLAIN, Known, read_pickle
from autoseg.reconstruct.components import KeepLargest

__all__ = ["postprocessing_rules"]

FUNCTION = "remove_all_but_largest_component_from_segmentation"
MODULE = "nnunetv2.postprocessing.remove_connected_components"


def postprocessing_rules(content: bytes | Mapping[str, Any], values: Collection[int], where: str) -> tuple[KeepLargest, ...]:
    """The rules, in order.

    Args:
        content: content of the JSON, or the bytes of the pickle.
        values: existing label values.
        where: name of the file in messages.

    Raises:
        ModelError: damaged, another function, or labels that do not exist.
    """
    if isinstance(content, bytes):
        pair = read_pickle(content, where, PLAIN | {f"{MODULE}.{FUNCTION}": None})
        functions, arguments = pair if isinstance(pair, tuple) and len(pair) == 2 else (None, None)
        if isinstance(functions, list):
            functions = [one.name.rpartition(".")[2] if isinstance(one, Known) else one for one in functions]
    else:
        functions, arguments = content.get("postprocessing_fns"), content.get("postprocessing_kwargs")
    if not isinstance(functions, list) or not isinstance(arguments, list) or len(functions) != len(arguments):
        raise ModelError(f"{where}: expected functions and as many sets of arguments")
    return tuple(_rule(function, how, values, where) for function, how in zip(functions, arguments, strict=True))


def _rule(function: Any, how: Any, values: Collection[int], where: str) -> KeepLargest:
    if function != FUNCTION or not isinstance(how, dict) or how.get("background_label", 0) != 0:
        raise ModelError(
            f"{where}: only {FUNCTION} is supported, found {shown(function, 80)}. Remove the file to import without it"
        )
    groups = how.get("labels_or_regions")
    flat: list[Any] = []
    for group in groups if isinstance(groups, list | tuple) else [groups]:
        flat.extend(group if isinstance(group, list | tuple) else [group])
    if not flat or any(isinstance(one, bool) or not isinstance(one, int) or one not in values or one == 0 for one in flat):
        raise ModelError(f"{where}: expected labels of structures in labels_or_regions; the model has {sorted(values)}")
    return KeepLargest(tuple(sorted(set(flat))))
