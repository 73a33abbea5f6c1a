"""Along which axes a patch may be mirrored, in training and in prediction.

Mirroring turns a left kidney into a right one. Where structures come in such pairs, the left-right axis is left out, or
the network would be taught that the two names are interchangeable.
"""

from planners.channels import words
from planners.plan import Decision
from planners.spacing import AXES

__all__ = ["choose_mirror_axes", "find_pairs"]

LEFT_RIGHT = AXES.index("x")  # canonical orientation
SIDES = {"l": "r", "lt": "rt", "lh": "rh"}
SIDES |= {right: left for left, right in SIDES.items()}


def find_pairs(structures):
    """Pairs of names that differ only in their side.

    Sides are 'left' and 'right' anywhere in a word, and l/r, lt/rt, lh/rh as words of their own.

    Returns:
        tuple of (name, name), in the order of ``structures``.
    """
    spelled = {"_".join(words(name)): name for name in structures}
    pairs = []
    for key, name in spelled.items():
        other = spelled.get("_".join(_other_side(word) for word in key.split("_")), name)
        if other != name and (other, name) not in pairs:
            pairs.append((name, other))
    return tuple(pairs)


def choose_mirror_axes(pairs, axis_order, patch):
    """Network axes that may be mirrored, and why.

    An axis of one voxel has nothing to mirror.

    Args:
        pairs: of left and right structures, from ``find_pairs``.
        axis_order: of the plan.
        patch: (3,) voxels in network order.

    Returns:
        (axes, Decision)
    """
    axes = tuple(axis for axis in range(3) if patch[axis] > 1 and not (pairs and axis_order[axis] == LEFT_RIGHT))
    named = ", ".join(AXES[axis_order[axis]] for axis in axes) or "none"
    if not pairs:
        return axes, Decision("mirroring", named, "all axes: no structures are taken to come in left-right pairs")
    shown = "; ".join(f"{a} / {b}" for a, b in pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
    rule = "not along x, the left-right axis, since structures come in pairs that mirroring would confuse"
    return axes, Decision("mirroring", named, rule, shown)


def _other_side(word):
    if word in SIDES:
        return SIDES[word]
    return "left".join(part.replace("left", "right") for part in word.split("right"))
