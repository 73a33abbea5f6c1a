"""What a planner knows about a data set: sizes, spacings and intensity statistics, no voxels.

Axes are (z, y, x) of the canonical orientation (RAS+: indices grow towards the patient's right, front and head), after
cropping to the non-zero region.
"""

from dataclasses import dataclass, field

from planners.records import OPTIONAL

__all__ = ["ChannelStats", "Fingerprint"]


@dataclass(frozen=True)
class ChannelStats:
    """Intensities of one image channel.

    ``mean`` to ``percentile_99_5`` are over the labelled foreground; every case has the same weight. ``unit_mean`` and
    ``unit_std`` are mean and standard deviation inside the crop after each scan was clipped to its own percentiles
    0.5 and 99.5 (of its non-zero voxels) and scaled to [0, 1], averaged over cases.
    """

    name: str
    mean: float
    median: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float
    unit_mean: float = 0.5
    unit_std: float = 0.25


@dataclass(frozen=True)
class Fingerprint:
    """Statistics of a data set.

    Attributes:
        dataset: its name.
        cases: identifiers of the training cases, sorted.
        shapes: (z, y, x) voxels of each case after cropping.
        spacings_mm: (z, y, x) millimetres of each case.
        channels: one entry per image channel.
        structures: names of the labelled structures or regions, without background and ignore.
        n_labels: number of entries of ``labels`` in dataset.json: background, structures or regions, and ignore.
        relative_crop: median over cases of cropped volume / original volume, in (0, 1].
        has_regions: structures may overlap, one sigmoid output each.
        has_ignore: some voxels carry the ignore label.
        source_digest: digest of the files that were measured.
        label_values: number of label values other than 0, if regions make it differ from the number of structures; else 0.
        annotated_in: number of cases in which each structure was annotated; () if all were annotated in every case.
    """

    dataset: str
    cases: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]
    spacings_mm: tuple[tuple[float, float, float], ...]
    channels: tuple[ChannelStats, ...]
    structures: tuple[str, ...]
    n_labels: int
    relative_crop: float = 1.0
    has_regions: bool = False
    has_ignore: bool = False
    source_digest: str = ""
    label_values: int = field(default=0, metadata={**OPTIONAL, "since": 2, "counts": False})  # keeps digests of plans
    annotated_in: tuple[int, ...] = field(default=(), metadata=OPTIONAL)

    def __post_init__(self) -> None:
        if not len(self.cases) == len(self.shapes) == len(self.spacings_mm) > 0:
            raise ValueError("cases, shapes and spacings_mm must be of one length and not empty")
        for name, rows, least, most in (("shapes", self.shapes, 1, 1e6), ("spacings_mm", self.spacings_mm, 1e-6, 1e4)):
            numbers = [number for row in rows for number in row]
            if not least <= min(numbers) <= max(numbers) <= most:
                raise ValueError(f"{name} must be from {least:g} to {most:g}, found {min(numbers)} to {max(numbers)}")
        if self.n_labels < 1 or not 0 < self.relative_crop <= 1:
            raise ValueError(f"expected labels and a relative_crop in (0, 1], found {self.n_labels} and {self.relative_crop}")
