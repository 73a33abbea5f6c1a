"""What convolutions cannot reach, self-attention can: two far landmarks whose order alone differs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "far_landmark.py"


@pytest.mark.thorough
def test_the_order_of_far_landmarks_is_hidden_from_convolutions_and_seen_by_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("far_landmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    networks = script.specs(match=False)
    plain, full, slots, deep = (networks[name] for name in (script.PLAIN, script.FULL, script.SLOTS, script.DEEP))
    assert script.radius_seen(plain) == script.radius_seen(full) < script.DISTANCE < script.radius_seen(deep)
    assert 2 * script.radius_seen(plain) < script.DISTANCE - 2 * script.RADIUS
    assert script.blind(plain) < 1e-9
    assert script.blind(slots) < 1e-6  # a sum over the volume, which has no order
    assert script.blind(full) > 1e-3
    assert script.blind(deep) > 1e-3
