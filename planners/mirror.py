"""The axes along which a patch may be mirrored, in training and in prediction.

Mirroring turns a left kidney into a right one, and the front half of an organ into its back. If the names of two structures
differ only in such words, that axis is not mirrored; else the network would learn that the two are interchangeable.
"""

import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from planners.axes import Triple
from planners.plan import Decision
from planners.spacing import AXES

__all__ = ["choose_mirror_axes", "find_pairs"]

# canonical orientation: x to the right, y to the front, z to the head. Each entry: words for one side, words for the other
OPPOSITES: dict[str, tuple[tuple[str, str], ...]] = {
    "x": (
        ("left", "right"),
        ("l", "r"),
        ("lt", "rt"),
        ("lh", "rh"),
        ("lft le", "rgt ri"),
        ("links linke linker linkes linken li", "rechts rechte rechter rechtes rechten re"),
        ("gauche g", "droit droite d"),
        ("izquierdo izquierda izq izdo izda izqdo izqda", "derecho derecha der dcho dcha drcho drcha"),
        ("sinistro sinistra sinister sinistrum sin sx", "destro destra dexter dextra dextrum dex dext dx"),
        ("esquerdo esquerda esq", "direito direita dir"),
        ("stâng stângă stânga", "drept dreaptă dreapta"),
        ("vänster vänstra venstre", "höger högra højre høyre"),
        ("lewy lewa lewe levý levá levé vlevo", "prawy prawa prawe pravý pravá pravé vpravo"),
        ("vasen", "oikea"),
        ("bal", "jobb"),
        ("sol", "sağ"),
        ("trái", "phải"),
        ("kiri", "kanan"),
        ("αριστερός αριστερή αριστερό αριστερά", "δεξιός δεξιά δεξιό"),
        (
            "левый левая левое лев лівий ліва ліве ляв лява ляво",
            "правый правая правое прав правий права праве десен дясна дясно",
        ),
        ("أيسر الأيسر يسرى اليسرى يسار", "أيمن الأيمن يمنى اليمنى يمين"),
        ("שמאל שמאלי שמאלית", "ימין ימני ימנית"),
    ),
    "y": (
        ("anterior", "posterior"),
        ("ant", "post"),
        ("ventral", "dorsal"),
        ("front", "back"),
        ("vorne vordere vorderer vorderes", "hinten hintere hinterer hinteres"),
        ("anteriore", "posteriore"),
        ("antérieur antérieure", "postérieur postérieure"),
        ("передний передняя переднее", "задний задняя заднее"),
        ("voorste", "achterste"),
        ("przedni przednia przednie přední", "tylny tylna tylne zadní"),
    ),
    "z": (
        ("superior", "inferior"),
        ("sup", "inf"),
        ("upper", "lower"),
        ("cranial", "caudal"),
        ("oben obere oberer oberes", "unten untere unterer unteres"),
        ("kranial", "kaudal"),
        ("superiore", "inferiore"),
        ("supérieur supérieure", "inférieur inférieure"),
        ("верхний верхняя верхнее", "нижний нижняя нижнее"),
        ("haut haute", "bas basse"),
        ("bovenste", "onderste"),
        ("övre øvre", "nedre"),
        ("górny górna górne horní", "dolny dolna dolne dolní"),
        ("rostral", "caudal"),
        ("proximal", "distal"),
        ("lul", "lll"),  # lobes of the lung
        ("rul", "rll"),
    ),
}
INSIDE_WORDS = {
    "x": (("left", "right"), ("links", "rechts"), ("左", "右"), ("좌", "우"), ("왼쪽", "오른쪽")),
    "y": (("前", "后"), ("前", "後"), ("antero", "postero")),
    "z": (("上", "下"), ("supero", "infero")),
}
MOST_SPELLINGS = 1000  # spellings of a name to look for, at most
TOOTH = {"tooth", "teeth", "zahn", "dent", "dente", "diente", "tand", "fdi", "incisor", "canine", "premolar", "molar", "зуб"}
QUADRANTS = {"x": {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 8, 8: 7}, "z": {1: 4, 4: 1, 2: 3, 3: 2, 5: 8, 8: 5, 6: 7, 7: 6}}


def find_pairs(structures: Sequence[str], axis: str = "x") -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ only in their side along an axis.

    Sides are the words in ``OPPOSITES``, in several languages; those in ``INSIDE_WORDS`` also count inside a word. For x, the
    letters l and r at the start or end of otherwise equal words count as well (LUL and RUL). Teeth are identified by their
    numbers: FDI notation (11 and 21) or 1 to 32.

    Returns:
        tuple of (name, name), in the order of ``structures``.
    """
    spelled = {tuple(_words(name)): name for name in structures}
    opposite = _opposite_teeth(_teeth(structures), axis)
    pairs: dict[tuple[str, str], None] = {}
    for key, name in spelled.items():
        others = [spelled[other] for other in _other_sides(key, axis) if other in spelled and other != key]
        others += opposite.get(name, ())
        if others and (others[0], name) not in pairs:
            pairs[name, others[0]] = None
    return tuple(pairs)


def choose_mirror_axes(structures: Sequence[str], axis_order: Triple, patch: Sequence[int]) -> tuple[tuple[int, ...], Decision]:
    """Network axes that may be mirrored, and why.

    Axes of one voxel are left out.

    Args:
        structures: names; empty to mirror all axes regardless of names.
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


def _fold(text: str) -> str:
    """Lower case without accents: 'Supérieur' becomes 'superieur'."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


def _words(name: str) -> list[str]:
    """As ``channels.words``, for letters of any script."""
    parts = re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+|[^\W\dA-Za-z_]+", unicodedata.normalize("NFC", name))
    return [_fold(part) for part in (parts if name.isascii() else re.findall(r"[^\W_]+", name))]


def _other_sides(key: tuple[str, ...], axis: str) -> Iterator[tuple[str, ...]]:
    """Candidates for the name on the other side: all side words replaced, then quadrant letters, then other letters."""
    choices = [_other_words(word, axis) or [word] for word in key]
    if math.prod(len(choice) for choice in choices) <= MOST_SPELLINGS:
        yield from itertools.product(*choices)
    for place, word in enumerate(key):
        others = [*_other_quadrant(word, axis), *(_other_letters(word, len(key) == 1) if axis == "x" else ())]
        for other in others:
            yield (*key[:place], other, *key[place + 1 :])


def _other_words(word: str, axis: str) -> list[str]:
    """The words for the other side; [] if the word names no side."""
    if others := _opposites(axis).get(word):
        return others
    pairs = [tuple(map(_fold, sides)) for sides in INSIDE_WORDS[axis]]
    return [one.join(part.replace(one, two) for part in word.split(two)) for one, two in pairs if one in word or two in word]


@cache
def _opposites(axis: str) -> dict[str, list[str]]:
    """{word for a side: the words for the other}, of the first of ``OPPOSITES`` that has it."""
    found: dict[str, list[str]] = {}
    for sides in OPPOSITES[axis]:
        one, two = (_fold(side).split() for side in sides)
        for words, others in ((one, two), (two, one)):
            found.update({word: others for word in words if word not in found})
    return found


def _other_quadrant(word: str, axis: str) -> Iterator[str]:
    """UL1 and UR1, UL1 and LL1: teeth by quadrant and position in it (Palmer notation in letters)."""
    place = {"z": 0, "x": 1}.get(axis)
    if place is not None and re.fullmatch("[ul][lr][1-8a-e]", word):
        swap = {"l": "u", "u": "l"} if axis == "z" else {"l": "r", "r": "l"}
        yield word[:place] + swap[word[place]] + word[place + 1 :]


def _other_letters(word: str, is_alone: bool) -> Iterator[str]:
    """LUL and RUL, kidneyL and kidneyR, rib L1 and rib R1: the first or the last letter names the side. The rest are letters,
    or digits if the name has other words: L1 alone is a vertebra."""
    swap = {"l": "r", "r": "l"}
    if word[:1] in swap and (word[1:].isalpha() or (word[1:].isdigit() and not is_alone)):
        yield swap[word[0]] + word[1:]
    if len(word) > 3 and word.isalpha() and word[-1] in swap:
        yield word[:-1] + swap[word[-1]]


def _teeth(structures: Sequence[str]) -> dict[str, int]:
    """{name: number} of teeth: names with a word for tooth, or all names if all are FDI numbers; {} if there are no teeth."""
    numbers = {name: [int(word) for word in _words(name) if word.isdigit() and len(word) < 3] for name in structures}
    teeth = {name: found[0] for name, found in numbers.items() if len(found) == 1 and TOOTH & set(_words(name))}
    if not teeth and len(structures) >= 4 and all(_words(name) == [str(n) for n in numbers[name]] for name in structures):
        teeth = {name: found[0] for name, found in numbers.items() if len(found) == 1}
        return teeth if all(_is_fdi(number) for number in teeth.values()) else {}
    return teeth


def _is_fdi(number: int) -> bool:
    return 1 <= number // 10 <= 8 and 1 <= number % 10 <= 8


def _opposite_teeth(teeth: dict[str, int], axis: str) -> dict[str, list[str]]:
    """{name: names of the teeth on the other side}, from the numbers of all."""
    named: dict[int, list[str]] = {}
    for name, number in teeth.items():
        named.setdefault(number, []).append(name)
    if axis not in QUADRANTS:
        return {}
    if all(map(_is_fdi, named)):
        opposite = {number: 10 * QUADRANTS[axis][number // 10] + number % 10 for number in named}
    elif all(1 <= number <= 32 for number in named):  # upper right to upper left, then lower left to lower right
        opposite = {n: 33 - n if axis == "z" else 17 - n if n <= 16 else 49 - n for n in named}
    else:
        return {}
    return {name: named.get(opposite[number], []) for name, number in teeth.items()}
