"""How many examples a property is tried on: as many as it says, and a tenth of them with ``--quick``."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

__all__ = ["examples"]


def examples(count: int, **more: Any) -> settings:
    """Settings of a property that is tried on ``count`` examples, however long each takes; ``more`` are other settings."""
    is_quick = settings.default.max_examples < 100  # the profile that conftest.py loads
    return settings(max_examples=max(5, count // 10) if is_quick else count, deadline=None, **more)
