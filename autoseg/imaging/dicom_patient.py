"""Names that do not identify the patient, for outputs named after their folder.

Names are searched for what the headers say about the patient: words of the patient's name and pairs of them, the date of birth
in the usual spellings, and the hospital's numbers of patient and examination. Headers declared de-identified are not used.
A name that no header contains, such as one in the folder name of a pseudonymous scan, is not recognised.
"""

import hashlib
import itertools
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

__all__ = ["PATIENT_TAGS", "pseudonymise"]

_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber")
PATIENT_TAGS = (*_NAMES, *_NUMBERS, "OtherPatientIDsSequence", "PatientBirthDate", "PatientIdentityRemoved", "StudyInstanceUID")
SHORTEST = 3  # least number of letters and digits to search for
MOST_WORDS = 16  # words of a name that are paired; only damaged headers have more
SHORT = 5  # shorter ones must be whole words: Tom is not in 'anatomical'
_LETTER, _BETWEEN = r"[^\W\d_]", r"[\W_]*"
_NEW_WORD = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ALIKE = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i"})  # letters without a separable accent
_SPELT_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


def pseudonymise(members: Sequence[tuple[Path, Mapping[str, Any]]]) -> Callable[[str], str]:
    """A function that returns a name unchanged, or an alias if the name identifies the patient.

    The alias, such as ``patient-27a1303c``, is a digest of the study's identifier, so all series of a study always get the
    same alias. A digest of a name or a patient number could be reversed by trying all of them; the identifier of a study is
    long and known only to those who have its files. Two studies of a patient get two aliases.

    Args:
        members: (path, header) of each file of a series.
    """
    named = [header for _, header in members if header.get("PatientIdentityRemoved") != "YES"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names in another character set than declared
        phrases = {phrase for header in named for phrase in _phrases(header)}
    patterns = [_pattern(phrase) for phrase in phrases if len(re.sub(r"[\W_]", "", phrase)) >= SHORTEST]
    gives_away = re.compile("|".join(patterns) or "(?!)")
    path, header = members[0]
    secret = header.get("StudyInstanceUID") or header.get("SeriesInstanceUID")
    secret = str(secret).encode() if secret else path.read_bytes()
    alias = f"patient-{hashlib.blake2b(secret, digest_size=4).hexdigest()}"

    def pseudonymised(name: str) -> str:
        spellings = _spellings(name) | _spellings(_NEW_WORD.sub("_", name))
        return alias if any(map(gives_away.search, spellings)) else name

    return pseudonymised


def _phrases(header: Mapping[str, Any]) -> Iterator[str]:
    """The texts to search for."""
    for name in _texts(header, _NAMES):
        words = re.findall(r"[^\W_]+", name)
        yield from (*words, *map(" ".join, itertools.permutations(words[:MOST_WORDS], 2)))
    others = header.get("OtherPatientIDsSequence")
    for source in (header, *(others if isinstance(others, DicomSequence) else ())):
        yield from _texts(source, _NUMBERS)
    born = re.sub(r"\D", "", str(header.get("PatientBirthDate") or ""))
    year, month, day = born[:4], born[4:6], born[6:]
    for written in (year, year[2:]) if len(born) == 8 else ():
        yield from (written + month + day, day + month + written, month + day + written)


def _texts(header: Mapping[str, Any], keywords: Iterable[str]) -> Iterator[str]:
    """The spellings of all values of these elements."""
    for value in map(header.get, keywords):
        for text in value if isinstance(value, MultiValue) else [value or ""]:
            yield from _spellings(str(text))


def _spellings(text: str) -> set[str]:
    """The text in lower case without accents; umlauts as one letter and as two."""
    text = unicodedata.normalize("NFKC", text).casefold()
    forms = [unicodedata.normalize("NFKD", text.translate(table)) for table in (_ALIKE, _SPELT_OUT)]
    return {"".join(sign for sign in form if not unicodedata.combining(sign)) for form in forms}


def _pattern(phrase: str) -> str:
    """The search pattern of a phrase: other characters may separate its words or digits; it does not match within a longer
    number, and a short phrase not within a longer word."""
    pieces = re.findall(rf"\d|{_LETTER}+", phrase)
    letter = _LETTER if len("".join(pieces)) < SHORT else "(?!)"
    before, after = (r"\d" if piece.isdigit() else letter for piece in (pieces[0], pieces[-1]))
    return f"(?<!{before}){_BETWEEN.join(pieces)}(?!{after})"
