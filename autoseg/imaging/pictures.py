"""2D pictures (.png, .tif, .tiff, .jpg, .jpeg) through Pillow: one slice, pixels of 1 mm.

Grey pictures have one channel, colour pictures three. Axes are those of ITK: x to the left, y to the back, origin 0.
Pillow reduces 16-bit colours to 8 bits and misreads some TIFF files; SimpleITK reads these. Labels are the numbers of a
palette, not its colours; JPEG labels are refused, because JPEG changes numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from autoseg.atomic import replacing
from autoseg.errors import FileError, blamed_on
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.itk import simpleitk
from autoseg.imaging.raw import REMEDY, AnyPath, Content, digest_of, read_bytes, read_image_bytes, refuse_beyond_memory

__all__ = ["label_ending", "read", "read_geometry", "read_labels", "write"]

Colours = tuple[tuple[int, tuple[int, ...]], ...]
_KINDS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
_GREYS = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_WRITTEN = {"PNG": (np.uint8, np.uint16), "TIFF": (np.uint8, np.uint16, np.int32, np.float32), "JPEG": ()}
_BITS, _MEANING, _TURN, _PLANES, _SIGN = 258, 262, 274, 284, 339  # TIFF tags; the third is also an Exif tag
_DESCRIPTION = 270  # another TIFF tag
_IMAGEJ, _OME = re.compile(r"\bunit=(\S+)"), re.compile(r'\bPhysicalSizeX="([^"]+)"')
_BYTES = {"I;16": 2, "I;16B": 2, "I": 4, "F": 4}  # per number; 1 in other modes
_COPIES = 4  # copies of the pixels in memory while they are decoded and checked
# most pixel bytes per file byte, by compression; numbers may be wider in memory, and JPEG and fax runs have no such
# limit
_DENSEST = {"PNG": 1100, "tiff_adobe_deflate": 1100, "tiff_deflate": 1100, "packbits": 512, "raw": 8}
_LOSSY = ("jpeg", "tiff_jpeg", "webp")  # compressions of TIFF
_GREY_AND_ALPHA = 4  # colour type of PNG
_WHITE_IS_ZERO, _APART, _SIGNED = 0, 2, 2  # values of three of these tags


def read(path: AnyPath) -> Content:
    """See ``files.read_file``; returns (data, geometry, notes, digest)."""
    raw, picture = _open(path)
    pixels, notes = _opaque_pixels(path, raw, picture)
    return _channels(pixels), _geometry(picture), notes, digest_of(raw)


def read_labels(path: AnyPath) -> tuple[np.ndarray, Geometry, tuple[str, ...], str, bool, Colours]:
    """As ``read``, but one channel of label values, and False and the colours of ``files.FileContent``; ``FileError`` if the
    picture does not define values."""
    raw, picture = _open(path)
    if picture.format == "JPEG" or picture.info.get("compression") in _LOSSY:
        raise FileError(f"{path}: expected exact labels, found JPEG, which alters them. Draw them again and save them as PNG.")
    colours: Colours = ()
    if picture.mode == "P":
        pixels = _decoded(path, picture)
        notes: tuple[str, ...] = ("The label has a palette: its numbers count, not its colours.",)
        colours = _colours(pixels, picture)
        greys = [colour[0] for _, colour in colours if len(set(colour)) == 1]
        if len(greys) == len(colours) and greys != sorted(greys):
            said = ", ".join(f"{value} is {grey}" for (value, _), grey in zip(colours[:8], greys, strict=False))
            raise FileError(
                f"{path}: expected numbers in the order of the greys of its palette, found: {said}. Save it as a grey picture "
                "of the label values."
            )
    else:
        pixels, notes = _opaque_pixels(path, raw, picture)
    if picture.mode == "L" and getattr(picture, "tag_v2", {}).get(_MEANING) == _WHITE_IS_ZERO:
        pixels, notes = 255 - pixels, ("The file says that white is zero; the numbers of a label are read as they are stored.",)
    if pixels.ndim == 3:
        odd = (pixels != pixels[..., :1]).any(axis=-1)
        if odd.any():
            colour = tuple(pixels[odd][0].tolist())
            raise FileError(
                f"{path}: expected one number per pixel, found colours such as {colour}. Save it as a grey picture."
            )
        pixels, notes = pixels[..., 0], (*notes, "The label is a colour picture of greys, which are taken as its values.")
    return _channels(pixels), _geometry(picture), notes, digest_of(raw), False, colours


def read_geometry(path: AnyPath) -> Geometry:
    """The grid alone; the pixels are not decoded."""
    return _geometry(_open(path)[1])


def label_ending(ending: str) -> str:
    """The ending for labels of a picture with this ending; it differs only for formats that change numbers."""
    return ".png" if _KINDS.get(ending) == "JPEG" else ending


def write(path: Path, array: np.ndarray, geometry: Geometry, like: Path | None = None) -> None:
    """Write (Y, X) pixels with leading axes of 1: PNG supports 8 and 16 bits, TIFF also int32 and float32; or (3, 1, Y, X)
    colours of 8 bits.

    ``geometry`` and ``like`` are not used, since all pixels are 1 mm.
    """
    kind = _KINDS[Path(path).suffix.lower()]
    is_colour = array.shape[:-2] == (3, 1) and array.dtype == np.uint8
    if max(array.shape[:-2]) > 1 and not is_colour:
        raise FileError(f"{path}: expected one slice of one channel, found shape {array.shape}. Write .nii.gz or .mha.")
    wanted = np.promote_types(array.dtype, np.int32) if array.dtype == np.int16 else array.dtype
    if wanted not in _WRITTEN[kind]:
        raise FileError(f"{path}: {kind} cannot hold {array.dtype} unchanged. Write .tif, .nii.gz or .mha.")
    pixels = np.moveaxis(array[:, 0], 0, -1) if is_colour else array.reshape(array.shape[-2:])
    picture = Image.fromarray(np.ascontiguousarray(pixels, wanted))
    with replacing(path) as target:
        picture.save(target, format=kind, **({"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}))


def _open(path: AnyPath) -> tuple[bytes, Any]:
    """(bytes, picture with known size and mode), after the checks that need no pixels."""
    raw, kind = read_image_bytes(path), _KINDS[Path(path).suffix.lower()]
    with _blamed_on(path, f"a {kind} picture"):
        if kind == "PNG":
            Image.open(io.BytesIO(raw), formats=[kind]).verify()  # compares the checksums of all parts
        picture = Image.open(io.BytesIO(raw), formats=[kind])
        _refuse_more_than_it_holds(path, len(raw), picture)
        pages, turn = getattr(picture, "n_frames", 1), picture.getexif().get(_TURN, 1)
    if pages > 1:
        raise FileError(f"{path}: expected one picture, found {pages}. Save each as a file, or a stack of slices as .nii.gz.")
    if getattr(getattr(picture, "tag_v2", None), "next", 0):
        raise FileError(f"{path}: expected one picture, found a list of pictures that begins again after the first. {REMEDY}")
    if turn != 1:
        raise FileError(f"{path}: expected an upright picture, found Exif orientation {turn}. Save it turned upright.")
    return raw, picture


def _refuse_more_than_it_holds(path: AnyPath, n_bytes: int, picture: Any) -> None:
    """``FileError`` if a header claims more pixels than the file's bytes or the free memory can hold."""
    width, height = picture.size
    pixels = width * height * (1 if picture.mode == "1" else 8 * len(picture.getbands()) * _BYTES.get(picture.mode, 1)) // 8
    how = str(picture.info.get("compression", "")) if picture.format == "TIFF" else picture.format
    if pixels > _DENSEST.get(how, pixels) * n_bytes:
        least = pixels // _DENSEST[how]
        raise FileError(f"{path}: expected at least {least} bytes for {width} x {height} pixels, found {n_bytes}. {REMEDY}")
    refuse_beyond_memory(_COPIES * pixels, path)


def _opaque_pixels(path: AnyPath, raw: bytes, picture: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """((Y, X) or (Y, X, 3) pixels, notes), with a palette converted to colours."""
    mode, has_alpha = picture.mode, picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info
    if _is_deep_colour(raw, picture):
        pixels = _deep_colours(path, raw)
    elif _is_beyond_pillow(picture):
        with _blamed_on(path, "a complete TIFF picture"):
            pixels = _by_simpleitk(path)
    elif has_alpha and mode in _GREYS:  # Pillow would turn them into colours of 8 bits
        grey = _decoded(path, picture).astype(_GREYS[mode], copy=False)
        clear = picture.info["transparency"]  # of one bit a pixel, Pillow says 255 for 1
        seen = grey != (clear > 0 if mode == "1" else clear)
        pixels = np.stack([grey, seen * np.iinfo(grey.dtype).max], axis=-1, dtype=grey.dtype, casting="unsafe")
    elif has_alpha:
        pixels = _decoded(path, picture, "LA" if mode == "LA" else "RGBA")
    elif mode == "P":
        pixels = _decoded(path, picture, "RGB")
        pixels = pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels
    elif mode == "RGB" or mode in _GREYS:
        pixels = _decoded(path, picture).astype(_GREYS.get(mode, np.uint8), copy=False)
    else:
        raise FileError(f"{path}: expected greys or RGB, found {mode}. Convert the picture to RGB.")
    notes = (*_said(picture, pixels), *_spread(raw, picture), *_sizes(picture))
    if pixels.shape[2:] in ((), (3,)):
        return pixels, notes
    if (pixels[..., -1] < np.iinfo(pixels.dtype).max).any():
        raise FileError(f"{path}: expected an opaque picture, found transparent pixels. Save it without transparency.")
    colours = pixels[..., :-1]
    notes = (*notes, "The picture is opaque; its alpha channel is left out.")
    return (colours[..., 0] if colours.shape[2] == 1 else colours), notes


def _colours(pixels: np.ndarray, picture: Any) -> Colours:
    """What a palette shows for each value that occurs, as (value, (red, green, blue)), ascending."""
    palette = np.zeros((256, 3), int)
    told = np.reshape(picture.getpalette(), (-1, 3))
    palette[: len(told)] = told
    return tuple((value, tuple(palette[value].tolist())) for value in np.unique(pixels).tolist())


def _is_beyond_pillow(picture: Any) -> bool:
    """A grey TIFF that Pillow decodes wrongly: it reads 32 bits as signed, 8 bits as unsigned, and swaps unpacked bytes."""
    tags = getattr(picture, "tag_v2", {})
    is_signed = tags.get(_SIGN, (1,))[0] == _SIGNED
    return bool(tags) and (picture.mode in ("I", "F") or (picture.mode == "L" and is_signed))


def _said(picture: Any, pixels: np.ndarray) -> tuple[str, ...]:
    """Notes about TIFF tags that its writer may not have intended."""
    tags = getattr(picture, "tag_v2", {})
    notes = []
    if pixels.ndim == 3 and tags.get(_PLANES) == _APART:
        notes.append("The file says that its planes are colours, not slices; they are read as channels.")
    if tags.get(_MEANING) == _WHITE_IS_ZERO:
        turned = "inverted, as they are meant to be seen" if pixels.dtype == np.uint8 else "read as they are stored"
        notes.append(f"The file says that white is zero; its numbers are {turned}.")
    return tuple(notes)


def _spread(raw: bytes, picture: Any) -> tuple[str, ...]:
    """A note about greys of less than 8 bits, which readers convert to different numbers."""
    bits = raw[24] if picture.format == "PNG" else max(getattr(picture, "tag_v2", {}).get(_BITS, (8,)))
    if picture.mode == "1":
        return ("The picture has one bit a pixel: its numbers are 0 and 1, where ITK makes 0 and 255 of them.",)
    if picture.mode != "L" or bits >= 8:
        return ()
    step = 255 // ((1 << bits) - 1)
    return (f"The picture has {bits} bits a pixel, which are spread to 8: a stored 1 is {step}.",)


def _sizes(picture: Any) -> tuple[str, ...]:
    """A note about the pixel size in a microscope's TIFF, which is ignored."""
    told = str(getattr(picture, "tag_v2", {}).get(_DESCRIPTION, ""))
    found = _IMAGEJ.search(told) if told.startswith("ImageJ=") else _OME.search(told)
    if found is None or found[1].lower() in ("pixel", "pixels", "inch"):
        return ()
    return (f"The file gives the size of its pixels ({found[0].strip()}); pictures are read with pixels of 1 mm.",)


def _is_deep_colour(raw: bytes, picture: Any) -> bool:
    """Whether Pillow would reduce this picture to 8 bits."""
    if picture.mode in _GREYS or picture.format == "JPEG":
        return False
    return raw[24] > 8 if picture.format == "PNG" else max(picture.tag_v2.get(_BITS, (1,))) > 8


def _by_simpleitk(path: AnyPath) -> np.ndarray:
    reader = simpleitk()
    pixels: np.ndarray = reader.GetArrayFromImage(reader.ReadImage(str(path)))
    return pixels


def _deep_colours(path: AnyPath, raw: bytes) -> np.ndarray:
    """(Y, X, 3 or 4) uint16."""
    if raw[25] == _GREY_AND_ALPHA and raw.startswith(b"\x89PNG"):
        raise FileError(f"{path}: expected 16 bits of grey or RGB, found grey with transparency. Save it without transparency.")
    with _blamed_on(path, "colours of 16 bits"):
        pixels = _by_simpleitk(path)
    if pixels.dtype != np.uint16 or pixels.shape[2:] not in ((3,), (4,)):
        raise FileError(
            f"{path}: expected greys or RGB of up to 16 bits, found {pixels.shape} {pixels.dtype}. Convert the picture."
        )
    return pixels


def _decoded(path: AnyPath, picture: Any, mode: str | None = None) -> np.ndarray:
    """The pixels as an array, (Y, X) or (Y, X, channels), converted to another Pillow mode if given."""
    with _blamed_on(path, f"a complete {picture.format} picture"):
        return np.asarray(picture.convert(mode) if mode else picture)


@contextmanager
def _blamed_on(path: AnyPath, expected: str) -> Iterator[None]:
    """Any error of a decoder is reported as a fault of the file."""
    with blamed_on(path, expected):
        try:
            yield
        except Image.DecompressionBombError as error:
            raise FileError(
                f"{path}: expected a picture of moderate size, found: {str(error).rstrip('.')}. Cut it into tiles."
            ) from error
        except UnidentifiedImageError as error:
            kind = "a damaged one or a rare kind" if _is_tiff(path) else "something else"
            expected = "a TIFF picture" if _is_tiff(path) else expected
            raise FileError(f"{path}: expected {expected}, found {kind}. {REMEDY}") from error


def _is_tiff(path: AnyPath) -> bool:
    return read_bytes(path, 4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _channels(pixels: np.ndarray) -> np.ndarray:
    """(C, 1, Y, X) from (Y, X) or (Y, X, C)."""
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0)[:, None])


def _geometry(picture: Any) -> Geometry:
    width, height = picture.size
    return Geometry.from_affine((1, height, width), [[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0]])
