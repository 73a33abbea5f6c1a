"""Text headers of NRRD and MetaImage: what SimpleITK ignores or does not check.

SimpleITK decodes the voxels, but trusts the header's number of voxels and ignores units, axis ranges and intensity scaling.
These are read here, and the required number of bytes is computed, before anything is decoded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import FileError
from autoseg.imaging.raw import REMEDY, read_bytes, read_image_bytes
from autoseg.names import fault_of_path

__all__ = ["Header", "Segment", "header_of"]

_META_END = re.compile(rb"^ElementDataFile[^\n]*(?:\n|\Z)", re.MULTILINE)
_NRRD_END = re.compile(rb"\n\r?\n|\Z")
_META_TYPES = {"CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4"}
_META_TYPES |= {"ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8"}
_NRRD_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
_SEGMENT = re.compile(r"Segment(0|[1-9]\d{0,5})_(?:ID|Name)")
_SPATIAL = ("domain", "space", "none", "???")  # axis kinds that may be spatial
_ANATOMICAL = {"right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps"}
_ANATOMICAL |= {"rast", "last", "lpst"}  # with time
_KIND_OF = {name: kind for kind, names in _NRRD_TYPES.items() for name in names.split(",")}
_LONGEST = 1 << 20  # header, in bytes
# numbers in a MetaImage field for n axes, as a power of n
_META_NUMBERS = dict.fromkeys(("ndims", "elementnumberofchannels", "compresseddatasize", "headersize"), 0)
_META_NUMBERS |= dict.fromkeys(("elementtointensityfunctionslope", "elementtointensityfunctionoffset"), 0)
_META_NUMBERS |= dict.fromkeys(("elementmin", "elementmax", "id", "parentid"), 0)
_META_NUMBERS |= dict.fromkeys(("dimsize", "elementspacing", "elementsize", "offset", "position", "origin"), 1)
_META_NUMBERS |= dict.fromkeys(("centerofrotation", "sequenceid"), 1)
_META_NUMBERS |= dict.fromkeys(("transformmatrix", "rotation", "orientation"), 2)
_META_LINE = re.compile(r"\s*([^=:]*?)\s*[=:]\s*(.*?)\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?|[+-]?(nan|inf)", re.IGNORECASE)
_AXES, _KEY, _VALUE = range(2, 5), 200, 4000  # number of axes we read; longest key and value, in characters
_UNITS = {
    "m": ("metres", 1e3),
    "cm": ("centimetres", 10.0),
    "mm": ("millimetres", 1.0),
    "um": ("micrometres", 1e-3),
    "nm": ("nanometres", 1e-6),
}
_SPELLED = {
    "m": r"m|met(er|re)s?",
    "cm": r"cm|centimet(er|re)s?",
    "mm": r"mm|millimet(er|re)s?",
    "um": r"um|\u00b5m|\u03bcm|microns?|micromet(er|re)s?",
    "nm": r"nm|nanomet(er|re)s?",
}


@dataclass(frozen=True)
class Segment:
    """A segment of 3D Slicer: its name, its layer, and the value of its voxels there."""

    name: str
    value: int
    layer: int


@dataclass(frozen=True)
class Header:
    """The content of a header.

    Attributes:
        path: path of the file, for messages.
        is_meta: MetaImage, else NRRD.
        fields: keys in lower case with their texts.
        own: custom keys and texts of the writer (NRRD ``key:=value``).
        payload: the bytes after the header, or of the file that it names.
        apart: whether that is another file.
        text: the header as stored.
    """

    path: Path
    is_meta: bool
    fields: dict[str, str]
    own: dict[str, str]
    payload: memoryview
    apart: bool
    text: str = ""

    def refuse_malformed(self) -> None:
        """``FileError`` for a malformed header; called before ITK reads the file."""
        if "\0" in self.text:
            raise FileError(f"{self.path}: expected a header of text, found a zero byte in it. {REMEDY}")
        for line in self.text.splitlines():
            if len(line) > _KEY + _VALUE:
                raise FileError(f"{self.path}: expected lines of a header, found one of {len(line)} letters. {REMEDY}")
        if self.is_meta:
            self._refuse_malformed_meta()
        else:
            n_axes = self.fields.get("dimension", "").strip()
            if not re.fullmatch(r"\d{1,2}", n_axes) or int(n_axes) != len(self.sizes):
                raise FileError(f"{self.path}: expected as many sizes as axes, found dimension {n_axes[:40]!r}. {REMEDY}")

    def _refuse_malformed_meta(self) -> None:
        n_axes, seen = len(self.sizes), set[str]()
        if n_axes not in _AXES or self.fields.get("ndims", "").strip() != str(n_axes):
            said = self.fields.get("ndims", "")[:40]
            raise FileError(
                f"{self.path}: expected two to four axes with a size each, found {n_axes} and NDims {said!r}. {REMEDY}"
            )
        if (kind := self.fields.get("objecttype", "Image").strip().lower()) != "image":
            raise FileError(f"{self.path}: expected an image, found ObjectType {kind[:40]!r}. {REMEDY}")
        for key, value in (match.groups() for line in self.text.splitlines() if (match := _META_LINE.fullmatch(line))):
            if len(key) > _KEY:
                raise FileError(f"{self.path}: expected the name of a field, found {len(key)} letters. {REMEDY}")
            if (power := _META_NUMBERS.get(key.lower())) is None:
                continue
            words = value.split()
            if key.lower() in seen or len(words) != n_axes**power or not all(map(_NUMBER.fullmatch, words)):
                raise FileError(
                    f"{self.path}: expected {key} once, with {n_axes**power} numbers, found {value[:80]!r}. {REMEDY}"
                )
            seen.add(key.lower())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of voxels along the axes, fastest first; the components of a vector image are an axis only in NRRD."""
        text = self.fields.get("dimsize" if self.is_meta else "sizes", "")
        if not re.fullmatch(r"[1-9]\d{0,14}(\s+[1-9]\d{0,14}){0,15}", text.strip()):
            raise FileError(f"{self.path}: expected sizes of its axes from 1 up, found {text[:80]!r}. {REMEDY}")
        return tuple(int(size) for size in text.split())

    @property
    def kind(self) -> str:
        """Type of a number in numpy's notation, without byte order."""
        text = " ".join(self.fields.get("elementtype" if self.is_meta else "type", "").split())
        known = (
            _META_TYPES.get(text.removesuffix("_ARRAY").removeprefix("MET_")) if self.is_meta else _KIND_OF.get(text.lower())
        )
        if known is None:
            raise FileError(f"{self.path}: expected integers or real numbers, found {text[:40]!r}. Convert the file.")
        return known

    @property
    def order(self) -> str:
        """Byte order: ``<`` or ``>``."""
        if self.is_meta:
            said = self.fields.get("binarydatabyteordermsb", self.fields.get("elementbyteordermsb", "false"))
            return ">" if _is_true(said) else "<"
        return ">" if self.fields.get("endian", "little").lower() == "big" else "<"

    @property
    def channels(self) -> int:
        """Components of a MetaImage."""
        text = self.fields.get("elementnumberofchannels", "1") if self.is_meta else "1"
        if not re.fullmatch(r"[1-9]\d{0,5}", text):
            raise FileError(f"{self.path}: expected a number of channels from 1 up, found {text[:40]!r}. {REMEDY}")
        return int(text)

    @property
    def n_bytes(self) -> int:
        """Bytes of the voxels, uncompressed."""
        return math.prod(self.sizes) * self.channels * int(self.kind[1])

    @property
    def is_packed(self) -> bool:
        """Whether the voxels are compressed by zlib or gzip."""
        if self.is_meta:
            return _is_true(self.fields.get("compresseddata", "false"))
        return self.fields.get("encoding", "").lower() in ("gz", "gzip")

    @property
    def is_text(self) -> bool:
        """Whether voxels are written as text."""
        if self.is_meta:
            return not _is_true(self.fields.get("binarydata", "true"))
        return self.fields.get("encoding", "").lower() in ("text", "txt", "ascii", "hex")

    @property
    def lacks_packed_size(self) -> bool:
        """Whether a MetaImage lacks the size of its compressed bytes, which SimpleITK needs to find them."""
        return self.is_meta and self.is_packed and not self.fields.get("compresseddatasize", "").strip().isdigit()

    def skipped(self, key: str) -> int:
        """``line skip``, ``byte skip`` or ``headersize``: the amount to skip before the voxels."""
        text = self.fields.get(key, self.fields.get(key.replace(" ", ""), "0")).strip()
        return int(text) if re.fullmatch(r"-?\d{1,15}", text) else 0

    def unit(self) -> tuple[str, float] | None:
        """(name, millimetres) of the unit of lengths; None for millimetres or no statement.

        Raises:
            FileError: an unknown unit, or several.
        """
        texts = [self.fields.get("distanceunits", "")] if self.is_meta else self._quoted("space units") or self._quoted("units")
        units = {_unit_of(text) for text in texts if text.strip()} - {None}
        if len(units) > 1 or "" in units:
            raise FileError(f"{self.path}: expected one unit of length, found {', '.join(texts)[:80]}. Convert it to mm.")
        name, factor = _UNITS[str(units.pop())] if units else _UNITS["mm"]
        return None if factor == 1 else (name, factor)

    def intensity(self) -> tuple[float, float]:
        """(slope, offset) of a MetaImage's numbers."""
        return self._number("elementtointensityfunctionslope", 1.0), self._number("elementtointensityfunctionoffset", 0.0)

    def axis_ranges(self) -> list[tuple[float, float] | None]:
        """(first position, spacing) of each NRRD axis, from ``axis mins`` and ``axis maxs``; [] if spacings are given.

        The range of a ``cell`` axis (the default) includes whole samples; else it goes from centre to centre.
        """
        lows, highs = (self._numbers(key) for key in ("axis mins", "axis maxs"))
        if self.fields.get("spacings") or self.fields.get("space directions") or not lows or len(lows) != len(highs):
            return []
        centred = self.fields.get("centers", self.fields.get("centerings", "")).lower().split()
        found: list[tuple[float, float] | None] = []
        for axis, (size, low, high) in enumerate(zip(self.sizes, lows, highs, strict=False)):
            nodes = axis < len(centred) and centred[axis] == "node"
            step = (high - low) / (size - 1 if nodes and size > 1 else size)
            ok = math.isfinite(step) and step > 0
            found.append((low if nodes else low + step / 2, step) if ok else None)
        return found

    def unsized_axes(self) -> list[str]:
        """Spatial axes (x, y, z) without a voxel size, or with one that is not a number."""
        if self.is_meta:
            return [] if {"elementspacing", "elementsize"} & set(self.fields) else list("xyz"[: len(self.sizes)])
        if self.fields.get("space directions") or self.axis_ranges():
            return []
        kinds = self.fields.get("kinds", "").lower().split()
        of_space = [axis for axis in range(len(self.sizes)) if axis >= len(kinds) or kinds[axis] in _SPATIAL][:3]
        given = self._numbers("spacings")
        return ["xyz"[n] for n, axis in enumerate(of_space) if axis >= len(given) or not math.isfinite(given[axis])]

    def names_space(self) -> bool:
        """Whether the patient axes are named; MetaImage has only one convention."""
        return self.is_meta or self.fields.get("space", "").lower().removesuffix("-time") in _ANATOMICAL

    def segments(self) -> tuple[Segment, ...]:
        """The segments described by 3D Slicer, in its order; () for other files."""
        found = []
        for number in sorted({int(match[1]) for match in map(_SEGMENT.fullmatch, self.own) if match}):  # there may be gaps
            prefix = f"Segment{number}_"
            value, layer = (
                self.own.get(prefix + key, other) for key, other in (("LabelValue", str(number + 1)), ("Layer", "0"))
            )
            if not (value.strip().isdigit() and layer.strip().isdigit()):
                raise FileError(f"{self.path}: expected label value and layer of segment {number} as numbers. Save it again.")
            if not int(value):
                raise FileError(
                    f"{self.path}: expected label values from 1 of its segments, found 0, the background. Save it again."
                )
            name = self.own.get(prefix + "Name") or self.own[prefix + "ID"]
            found.append(Segment(name.strip() or f"segment {number + 1}", int(value), int(layer)))
        return tuple(found)

    def _quoted(self, key: str) -> list[str]:
        text = self.fields.get(key, "")
        return re.findall(r'"([^"]*)"', text) if '"' in text else text.split()

    def _number(self, key: str, other: float) -> float:
        text = self.fields.get(key, "").strip()
        try:
            value = float(text) if text else other
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise FileError(f"{self.path}: expected a number as {key}, found {text[:40]!r}. {REMEDY}")
        return value

    def _numbers(self, key: str) -> list[float]:
        try:
            return [float(word) for word in self.fields.get(key, self.fields.get(key.replace(" ", ""), "")).split()]
        except ValueError:
            return []


def header_of(path: Path, *, voxels: bool = True) -> tuple[Header, bytes]:
    """The Header of a file, and all bytes of that file; without ``voxels`` only the first million bytes of it.

    Raises:
        FileError: unreadable; voxels in several files, or in a missing one.
    """
    raw = read_image_bytes(path, None if voxels else _LONGEST)
    is_meta = path.name.lower().endswith((".mha", ".mhd"))
    end = (_META_END if is_meta else _NRRD_END).search(raw)
    stop = end.end() if end else len(raw)
    text = raw[:stop].decode("utf-8", "replace")
    fields: dict[str, str] = {}
    own: dict[str, str] = {}
    for line in text.splitlines():
        key, equal, value = line.partition("=" if is_meta else ":")
        if not equal or line.startswith("#"):
            continue
        if not is_meta and value.startswith("="):
            own[key.strip()] = re.sub(r"\\(.)", lambda sign: "\n" if sign[1] == "n" else sign[1], value[1:].strip())
        else:
            fields.setdefault(" ".join(key.split()).lower(), value.strip())
    named = fields.get("elementdatafile") if is_meta else fields.get("data file", fields.get("datafile"))
    if not voxels or named is None or (is_meta and named.upper() == "LOCAL"):
        return Header(path, is_meta, fields, own, memoryview(raw)[stop:], False, text), raw
    beside = path.parent / named
    if fault_of_path(beside) or not beside.is_file():
        raise FileError(
            f"{path}: expected its voxels in one file beside it, {beside.name[:80]!r}, found none. Copy both, or write .mha."
        )
    return Header(path, is_meta, fields, own, memoryview(read_bytes(beside)), True, text), raw


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "t", "yes")


def _unit_of(text: str) -> str | None:
    """Key of ``_UNITS``; None if the text states no unit, "" if the unit is unknown."""
    text = text.strip().lower()
    if text in ("", "none", "?", "???", "pixel", "pixels", "voxel", "voxels", "nan"):
        return None
    return next((unit for unit, spelled in _SPELLED.items() if re.fullmatch(spelled, text)), "")
