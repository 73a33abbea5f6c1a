"""How many examples a property is tested on: as many as it says, or a tenth of them with ``--quick``."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

__all__ = ["examples"]


def examples(count: int, **more: Any) -> settings:
    """Settings for a property tested on ``count`` examples, without a deadline; ``more`` are other settings."""
    is_quick = settings.default.max_examples < 100  # the profile that conftest.py loads
    return settings(max_examples=max(5, count // 10) if is_quick else count, deadline=None, **more)
