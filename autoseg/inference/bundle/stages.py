"""Which models can be combined in one: the two stages of a cascade, the two plans of an ensemble."""

from __future__ import annotations

from pathlib import Path

from autoseg.errors import ModelError
from autoseg.inference.bundle.record import ModelRecord
from autoseg.inference.bundle.value import Bundle

__all__ = ["coarse_stage", "refuse_unlike"]


def refuse_unlike(one: Bundle, beside: Bundle, where: Path) -> None:
    """Raise ModelError if two models cannot be averaged: different scans or labels, or several plans in one of them."""
    if one.coarse or beside.coarse or beside.beside:
        raise ModelError(f"{where}: an ensemble is of two models of one plan each; a cascade cannot be part of it")
    for name, expected, found in (
        ("channels", one.channels, beside.channels),
        ("labels", one.labels, beside.labels),
        ("folds", sorted(one.folds), sorted(beside.folds)),
    ):
        if expected != found:
            raise ModelError(f"{where}: its second model has other {name}\n  expected {expected}\n  found    {found}")


def coarse_stage(record: ModelRecord, coarse: Bundle, where: Path) -> Bundle:
    """The coarse stage of a model, after checking it: the same scans and labels, and no coarse stage of its own."""
    assert record.plan.coarse is not None
    if coarse.coarse:
        raise ModelError(f"{where}: a coarse stage with a coarse stage of its own; cascades have two")
    for name, expected, found in (
        ("channels", record.channels, coarse.channels),
        ("labels", record.labels, coarse.labels),
        ("plan", record.plan.coarse.plan, coarse.plan.name),
    ):
        if expected != found:
            raise ModelError(f"{where}: its coarse stage has other {name}\n  expected {expected}\n  found    {found}")
    return coarse
