"""Which transforms a training run uses, how often, and how strongly.

``nnunet`` is the list of nnU-Net's default trainer (Isensee et al. 2021, supplement; nnU-Net 2.8). ``light`` has the spatial
transforms and the cheap changes of intensity, for short training runs without a GPU. ``none`` leaves patches unchanged.
Mirroring follows the plan's ``mirror_axes``.
"""

from dataclasses import dataclass

from autoseg.registry import Registry

__all__ = ["DEGRADATIONS", "PRESETS", "Augmentation", "Step", "mirrored_only", "step", "with_degradations"]

DEGRADATIONS = ("noise", "blur", "low_resolution", "thick_slices")  # what restoration should remove


@dataclass(frozen=True)
class Step:
    """One transform of a preset: a key of ``AUGMENTATIONS``, probability per sample, options for its sampling."""

    transform: str
    probability: float
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Augmentation:
    """Steps in the order they are applied, then at most one of others, whose probabilities add up to one or less.

    A step that needs more than the patch (affine) comes first.
    """

    steps: tuple[Step, ...] = ()
    one_of: tuple[Step, ...] = ()


def step(transform: str, probability: float, **options: object) -> Step:
    """A ``Step`` with its options as keywords."""
    return Step(transform, probability, tuple(options.items()))


PRESETS = Registry(
    "augmentation preset",
    {
        "nnunet": Augmentation(
            (
                step("affine", 1.0, rotation_probability=0.2, scaling_probability=0.2, scale=(0.7, 1.4)),
                step("noise", 0.1, sigma=(0.0, 0.1)),
                step("blur", 0.2, sigma=(0.5, 1.0), channel_probability=0.5),
                step("brightness", 0.15, factor=(0.75, 1.25)),
                step("contrast", 0.15, factor=(0.75, 1.25)),
                step("low_resolution", 0.25, zoom=(0.5, 1.0), channel_probability=0.5),
                step("gamma", 0.1, gamma=(0.7, 1.5), invert=True),
                step("gamma", 0.3, gamma=(0.7, 1.5)),
                step("mirror", 1.0),
            )
        ),
        "light": Augmentation(
            (
                step("affine", 1.0, rotation_probability=0.2, scaling_probability=0.2, scale=(0.7, 1.4)),
                step("noise", 0.1, sigma=(0.0, 0.1)),
                step("brightness", 0.15, factor=(0.75, 1.25)),
                step("contrast", 0.15, factor=(0.75, 1.25)),
                step("gamma", 0.3, gamma=(0.7, 1.5)),
                step("mirror", 1.0),
            )
        ),
        "none": Augmentation(),
    },
)

# strong enough for restoration to matter; noise in z-score units. Thick slices are the hardest to learn
# (docs/experiments/restoration-noise-too.md)
STRONG = (
    step("thick_slices", 0.6, factors=(2, 3, 3, 4), sigma=(0.0, 0.15)),
    step("noise", 0.25, sigma=(0.1, 0.35)),
    step("blur", 0.1, sigma=(0.5, 1.2), channel_probability=1.0),
)


def mirrored_only(augmentation: Augmentation) -> Augmentation:
    """The mirroring steps of an augmentation."""
    return Augmentation(tuple(entry for entry in augmentation.steps if entry.transform == "mirror"))


def with_degradations(augmentation: Augmentation) -> Augmentation:
    """The steps that keep the image sharp, and at the end at most one strong degradation, for training restoration.

    Rotation and scaling are left out: they interpolate, and a network trained on smoothed targets smooths.
    """
    left_out = ("affine", *DEGRADATIONS)
    return Augmentation(tuple(entry for entry in augmentation.steps if entry.transform not in left_out), STRONG)
