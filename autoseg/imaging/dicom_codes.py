"""Structures in DICOM terms: SNOMED CT codes for their names, from the standard's tables in pydicom.

A name is looked up in the context groups for segmentation: anatomical structures (CID 7192), tissues (7191), lesions (7194),
substances (7197). Left and right become a modifier unless the group has the sided structure. A name that contains a word
for a lesion is that lesion; any other name is coded as an anatomical structure only. Parts of words are not matched.
"""

import re
from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

__all__ = ["StructureCode", "code_structure"]

GROUPS = (
    (codes.cid7192, codes.SCT.AnatomicalStructure),
    (codes.cid7191, codes.SCT.Tissue),
    (codes.cid7194, codes.SCT.MorphologicallyAbnormalStructure),
    (codes.cid7197, codes.SCT.BodySubstance),
)
SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
SAME = {  # common name -> name in the context groups
    "adrenal": "adrenalgland",
    "caudate": "caudatenucleus",
    "csf": "cerebrospinalfluid",
    "accumbens": "nucleusaccumbens",
    "oesophagus": "esophagus",
    "pallidum": "globuspallidus",
    "parotid": "parotidgland",
    "postcava": "inferiorvenacava",
    "submandibular": "submandibulargland",
    "thyroidgland": "thyroid",
    "urinarybladder": "bladder",
    "ventricleleft": "leftventricle",
    "ventricleright": "rightventricle",
}
LESIONS = {
    "abscess": codes.SCT.Abscess,
    "cancer": codes.SCT.Neoplasm,
    "cyst": codes.SCT.Cyst,
    "edema": codes.SCT.Edema,
    "hemorrhage": codes.SCT.Hemorrhage,
    "lesion": codes.SCT.Lesion,
    "metastasis": codes.SCT.NeoplasmSecondary,
    "necrosis": codes.SCT.Necrosis,
    "neoplasm": codes.SCT.Neoplasm,
    "nodule": codes.SCT.Nodule,
    "oedema": codes.SCT.Edema,
    "tumor": codes.SCT.Neoplasm,
    "tumour": codes.SCT.Neoplasm,
}


@dataclass(frozen=True)
class StructureCode:
    """``category`` and ``kind`` of a structure, and its ``side`` or None."""

    category: Code
    kind: Code
    side: Code | None = None


def code_structure(name: str) -> StructureCode:
    """The codes for the name of a structure, however it is spelled: 'Left Kidney', 'kidney_left', 'LeftKidney'."""
    words = [word.lower() for word in re.findall(r"[A-Z]*[a-z]+|[A-Z]+|\d+", name)]
    if found := _look_up("".join(words)):
        return found
    sides = [SIDES[word] for word in words if word in SIDES]
    side = sides[0] if len(sides) == 1 else None
    plain = [word for word in words if word not in SIDES]
    for spelling in ("".join(plain), "".join(plain).removesuffix("s")):
        if found := _look_up(spelling):
            return StructureCode(found.category, found.kind, side)
    for word in plain:
        if lesion := LESIONS.get(word) or LESIONS.get(word.removesuffix("s")):
            return StructureCode(codes.SCT.MorphologicallyAbnormalStructure, lesion, side)
    return StructureCode(codes.SCT.AnatomicalStructure, codes.SCT.AnatomicalStructure, side)


def _look_up(spelling: str) -> StructureCode | None:
    spelling = SAME.get(spelling, spelling)
    for group, category in GROUPS:
        for keyword, code in group.concepts.items():
            if keyword.lower() == spelling and code.scheme_designator == "SCT":
                return StructureCode(category, code)
    return None
