"""Fingerprints of invented data sets."""

from planners import ChannelStats, Fingerprint


def make_fingerprint(groups, channels=("MRI",), structures=("organ",), **rest):
    """A fingerprint of identical cases in groups of (spacing_mm, shape, number of cases)."""
    spacings = [tuple(map(float, spacing)) for spacing, _, cases in groups for _ in range(cases)]
    shapes = [tuple(shape) for _, shape, cases in groups for _ in range(cases)]
    named = [ChannelStats(c, 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0) if isinstance(c, str) else c for c in channels]
    return Fingerprint(
        dataset="phantom",
        cases=tuple(f"case_{i:04d}" for i in range(len(shapes))),
        shapes=tuple(shapes),
        spacings_mm=tuple(spacings),
        channels=tuple(named),
        structures=tuple(structures),
        n_labels=rest.pop("n_labels", len(structures) + 1),
        **rest,
    )
