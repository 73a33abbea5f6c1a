"""Which windows a prediction computes: those requested, else those proposed by the model."""

from __future__ import annotations

from autoseg.errors import ModelError
from autoseg.inference.bundle import Bundle
from autoseg.inference.windows import Doubt, strictest
from autoseg.options import InferenceOptions

__all__ = ["doubt_of"]


def doubt_of(bundle: Bundle, options: InferenceOptions) -> Doubt | None:
    """The Doubt for choosing adaptive windows; None if all windows are computed.

    Half-precision sums use all windows. A model proposes adaptive windows if every predicting fold is calibrated for the
    requested tile step, and none of them changed a structure by ``LARGEST_DIFFERENCE`` of Dice or more.

    Raises:
        ModelError: adaptive windows were requested, but a fold is not calibrated.
    """
    folds = list(bundle.folds) if options.folds is None else [str(fold) for fold in options.folds]
    known = [bundle.windows[fold] for fold in folds if fold in bundle.windows]
    if options.half_sums or options.windows == "all" or not folds or (options.windows is None and len(known) < len(folds)):
        return None
    if len(known) < len(folds):
        fold = next(fold for fold in folds if fold not in bundle.windows)
        raise ModelError(
            f"{bundle.name}: which windows fold {fold} can skip is not known. "
            "`autoseg model calibrate MODEL --cases DIR` finds out, with scans that are larger than its windows"
        )
    found = strictest(known)
    is_default = found.is_trusted(bundle.labels.structures) and all(one.step == options.step for one in known)
    return found.doubt if options.windows == "adaptive" or is_default else None
