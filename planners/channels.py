"""How the intensities of each channel are normalised.

CT numbers mean the same in every scan, so all scans are scaled by the range of the data set. In other modalities the
units are arbitrary, and each scan is scaled by its own percentiles. Both give [0, 1]; the network's first operation
brings them to zero mean and unit variance. Parity mode uses nnU-Net's schemes by channel name instead.
"""

import re

from planners.fingerprint import ChannelStats, Fingerprint
from planners.plan import ChannelNormalization, Decision

__all__ = ["choose_normalization", "words"]

# nnU-Net's channel names in dataset.json that select a scheme
BY_NAME = {"nonorm": "none", "zscore": "zscore", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}
CT = {"ct", "cta", "cect", "ncct", "cbct"}
MR = {"mr", "mri", "mra", "t1", "t2", "flair", "pd", "dwi", "adc", "dce", "swi", "tof", "bold", "cine", "lge", "dixon"}
NOT_CT = MR | {"pet", "fdg", "psma", "suv", "spect", "us", "ultrasound", "echo", "oct", "xray", "red", "green", "blue"}
AIR = -500.0  # values below this mean CT (HU): air is -1000, fat -100
MASK_BELOW = 0.75  # fraction of the original volume left by cropping; nnU-Net


def words(name: str) -> list[str]:
    """The lower-case words of a name: both 'RightParotid' and 'right_parotid' give ['right', 'parotid']."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+", name)]


def choose_normalization(
    fingerprint: Fingerprint, *, parity: bool
) -> tuple[tuple[ChannelNormalization, ...], tuple[Decision, ...]]:
    """One ``ChannelNormalization`` per channel, and the decisions behind them.

    Returns:
        (schemes, decisions)
    """
    chosen = [_choose(channel, fingerprint.relative_crop, parity) for channel in fingerprint.channels]
    return tuple(scheme for scheme, _ in chosen), tuple(decision for _, decision in chosen)


def _choose(channel: ChannelStats, relative_crop: float, parity: bool) -> tuple[ChannelNormalization, Decision]:
    scheme, rule, warning = _nnunet_scheme(channel) if parity else _own_scheme(channel)
    lower, upper = channel.percentile_00_5, channel.percentile_99_5
    if upper <= lower:  # a constant channel
        upper = lower + 1
    input_mean, input_std = 0.0, 1.0
    if scheme == "ct":
        input_mean, input_std = (channel.mean - lower) / (upper - lower), channel.std / (upper - lower)
    elif scheme == "robust":
        input_mean, input_std = channel.unit_mean, channel.unit_std
    normalization = ChannelNormalization(
        channel=channel.name,
        scheme=scheme,
        lower=lower,
        upper=upper,
        mean=channel.mean,
        std=channel.std if channel.std > 0 else 1.0,
        use_mask=scheme == "zscore" and relative_crop < MASK_BELOW,
        input_mean=input_mean,
        input_std=input_std if input_std > 0 else 1.0,
    )
    numbers = f"foreground {lower:.5g} to {upper:.5g} (percentiles 0.5 and 99.5), mean {channel.mean:.5g}"
    return normalization, Decision(f"normalisation of {channel.name!r}", scheme, rule, numbers, warning)


def _nnunet_scheme(channel: ChannelStats) -> tuple[str, str, bool]:
    name = channel.name.lower()
    return {"ct": "ct_zscore", **BY_NAME}.get(name, "zscore"), "nnU-Net's scheme for a channel of this name", False


def _own_scheme(channel: ChannelStats) -> tuple[str, str, bool]:
    """(scheme, rule, warning)."""
    name, said = channel.name.lower(), set(words(channel.name))
    if name in BY_NAME:
        return BY_NAME[name], "dataset.json names this scheme", False
    if said & CT and not said & NOT_CT:
        return "ct", "CT by its name: the data set's foreground range to [0, 1]", False
    if not said & NOT_CT and channel.minimum < AIR:
        rule = f"taken for CT: the name says nothing and values reach {channel.minimum:g}; name it in dataset.json"
        return "ct", rule, True
    return "robust", "each scan's own percentiles 0.5 and 99.5 to [0, 1]", False
