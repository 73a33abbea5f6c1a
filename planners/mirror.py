"""Along which axes a patch may be mirrored, in training and in prediction.

Mirroring turns a left kidney into a right one, and the front half of an organ into its back. Where structures are told apart by
such words only, the axis of these words is left out, or the network would be taught that the names are interchangeable.
"""

from collections.abc import Sequence

from planners.axes import Triple
from planners.channels import words
from planners.plan import Decision
from planners.spacing import AXES

__all__ = ["choose_mirror_axes", "find_pairs"]

# canonical orientation: x to the right, y to the front, z to the head
OPPOSITES = {
    "x": (("left", "right"), ("l", "r"), ("lt", "rt"), ("lh", "rh")),
    "y": (("anterior", "posterior"), ("ant", "post"), ("ventral", "dorsal"), ("front", "back")),
    "z": (("superior", "inferior"), ("sup", "inf"), ("upper", "lower"), ("cranial", "caudal")),
}
INSIDE_WORDS = ("left", "right")  # as in 'leftatrium'


def find_pairs(structures: Sequence[str], axis: str = "x") -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ only in their side along an axis.

    Sides are the words of ``OPPOSITES``, and 'left' and 'right' also inside a word.

    Returns:
        tuple of (name, name), in the order of ``structures``.
    """
    spelled = {"_".join(words(name)): name for name in structures}
    pairs = []
    for key, name in spelled.items():
        other = spelled.get("_".join(_other_side(word, axis) for word in key.split("_")), name)
        if other != name and (other, name) not in pairs:
            pairs.append((name, other))
    return tuple(pairs)


def choose_mirror_axes(structures: Sequence[str], axis_order: Triple, patch: Sequence[int]) -> tuple[tuple[int, ...], Decision]:
    """Network axes that may be mirrored, and why.

    An axis of one voxel has nothing to mirror.

    Args:
        structures: names; empty where all axes are to be mirrored whatever they are.
        axis_order: of the plan.
        patch: (3,) voxels in network order.

    Returns:
        (axes, Decision)
    """
    pairs = {axis: found for axis in OPPOSITES if (found := find_pairs(structures, axis))}
    axes = tuple(axis for axis in range(3) if patch[axis] > 1 and AXES[axis_order[axis]] not in pairs)
    named = ", ".join(AXES[axis_order[axis]] for axis in axes) or "none"
    if not pairs:
        return axes, Decision("mirroring", named, "all axes: no structures are told apart by their side only")
    all_pairs = [pair for some in pairs.values() for pair in some]
    shown = "; ".join(f"{a} / {b}" for a, b in all_pairs[:5]) + ("; ..." if len(all_pairs) > 5 else "")
    rule = f"not along {', '.join(pairs)}, since structures are told apart by their side there, which mirroring would confuse"
    return axes, Decision("mirroring", named, rule, shown)


def _other_side(word: str, axis: str) -> str:
    for first, second in OPPOSITES[axis]:
        if word in (first, second):
            return second if word == first else first
    if axis == "x":
        left, right = INSIDE_WORDS
        return left.join(part.replace(left, right) for part in word.split(right))
    return word
