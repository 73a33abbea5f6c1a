"""Why a prediction should be reviewed, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoseg.data.unlike import Unlike

__all__ = ["LOW_AGREEMENT", "disagreed", "doubts"]

LOW_AGREEMENT = 0.7  # inter-fold Dice: more is excellent agreement of two masks (Zijdenbos 1994, IEEE TMI 13, 716)


def disagreed(agreement: Mapping[str, float | None]) -> tuple[str, ...]:
    """The structures with an inter-fold Dice below ``LOW_AGREEMENT``. Structures that no fold finds are left out.

    Args:
        agreement: inter-fold Dice of each structure, as from ``confidence.agreement``.
    """
    return tuple(name for name, dice in agreement.items() if dice is not None and dice < LOW_AGREEMENT)


def doubts(unlike: Iterable[Unlike], agreement: Mapping[str, float | None]) -> tuple[str, ...]:
    """A sentence if the scan is unlike the training scans, and one if the folds disagree on structures."""
    differences = "; ".join(map(str, unlike))
    low = ", ".join(f"{name} (inter-fold Dice {agreement[name]:.2f})" for name in disagreed(agreement))
    found = [f"unlike the training data: {differences}"] if differences else []
    return (*found, f"the folds disagree on {low}") if low else tuple(found)
