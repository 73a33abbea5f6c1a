"""Pictures are read to the number or refused; what is written lies pixel by pixel on its picture."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image, TiffImagePlugin

from autoseg.errors import FileError
from autoseg.imaging.files import (
    PICTURES,
    read_file,
    read_geometry,
    read_label_volume,
    read_volume,
    write_label_volume,
    write_volume,
)
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.pictures import label_ending
from autoseg.imaging.volume import LabelVolume, Volume

DATA = Path(__file__).parents[3] / "shared" / "data" / "nuclei_2d_rgb"
LOSSLESS = [ending for ending in PICTURES if label_ending(ending) == ending]


def numbers(*shape, highest=255, kind=np.uint8):
    return np.random.default_rng(0).integers(0, highest, shape, endpoint=True).astype(kind)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def palette_picture(path, indices, colours):
    picture = Image.fromarray(indices)
    picture.putpalette(np.array(colours, np.uint8).ravel().tolist())
    picture.save(path)
    return path


def png(path, width, bits, colours, row):
    """A picture of one row of bytes, of a depth and a kind of colours that Pillow does not write."""

    def part(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = part(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colours, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(b"\0" + row)) + part(b"IEND", b""))


@pytest.mark.parametrize("ending", LOSSLESS)
@pytest.mark.parametrize(("highest", "kind"), [(255, np.uint8), (65535, np.uint16)])
def test_greys_of_8_and_16_bits_are_one_channel(tmp_path, ending, highest, kind):
    pixels = numbers(5, 7, highest=highest, kind=kind)
    content = read_file(save(tmp_path / f"a{ending}", pixels))
    assert content.data.dtype == kind
    assert np.array_equal(content.data, pixels[None, None])
    assert content.notes == ()


@pytest.mark.parametrize("ending", LOSSLESS)
@pytest.mark.parametrize(("highest", "kind"), [(255, np.uint8), (65535, np.uint16)])
def test_colours_of_8_and_16_bits_are_three_channels(tmp_path, ending, highest, kind):
    pixels = numbers(5, 7, 3, highest=highest, kind=kind)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(tmp_path / f"a{ending}"))
    content = read_file(tmp_path / f"a{ending}")
    assert content.data.dtype == kind
    assert np.array_equal(content.data, np.moveaxis(pixels, -1, 0)[:, None])


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (numbers(40, 60), {"tile": (16, 16)}),
        (numbers(5, 7, 3), {"photometric": "rgb", "compression": "zlib"}),
        (numbers(3, 5, 7), {"photometric": "rgb", "planarconfig": "separate"}),
        (numbers(5, 7, highest=65535, kind=np.uint16), {"byteorder": ">"}),
        (numbers(5, 7).astype(np.float32) / 7, {}),
        (numbers(5, 7).astype(np.int32) - 9, {}),
        (numbers(5, 7), {"resolution": (300, 300)}),
    ],
    ids=["tiles", "packed", "planes", "big-endian", "float32", "int32", "resolution"],
)
def test_many_kinds_of_tiff_are_read(tmp_path, pixels, options):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    content = read_file(tmp_path / "a.tif")
    expected = np.moveaxis(pixels, -1, 0) if pixels.shape[-1] == 3 else pixels.reshape(-1, *pixels.shape[-2:])
    assert np.array_equal(content.data, expected[:, None])
    assert content.geometry.spacing_mm == (1, 1, 1)


def test_the_grid_is_that_of_simpleitk(tmp_path):
    path = save(tmp_path / "a.png", numbers(5, 7))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / "a.mha"))
    assert read_geometry(path) == read_file(path).geometry == read_geometry(tmp_path / "a.mha")


@pytest.mark.parametrize("ending", [".jpg", ".jpeg"])
def test_jpeg_is_an_image_but_no_label(tmp_path, ending):
    path = save(tmp_path / f"a{ending}", np.full((16, 16, 3), 90, np.uint8))
    assert np.abs(read_volume(path).data - 90).max() <= 2
    with pytest.raises(FileError, match=rf"a\{ending}.*Draw them again and save them as PNG"):
        read_label_volume(path)
    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(FileError, match=r"a\.tif: expected exact labels, found JPEG.*Draw them again"):
        read_label_volume(tmp_path / "a.tif")
    assert label_ending(ending) == ".png"
    with pytest.raises(FileError, match="JPEG cannot hold"):
        write_label_volume(LabelVolume(np.zeros((1, 3, 3), np.uint8), read_geometry(path).cropped((0, 0, 0), (1, 3, 3))), path)


def test_a_mask_of_0_and_255_or_of_one_bit_keeps_its_numbers(tmp_path):
    mask = numbers(5, 7, highest=1)
    assert np.array_equal(read_label_volume(save(tmp_path / "a.png", mask * np.uint8(255))).data, mask[None] * 255)
    found = read_label_volume(save(tmp_path / "b.png", mask.astype(bool))).data
    assert found.dtype == np.uint8
    assert np.array_equal(found, mask[None])


def test_a_palette_is_colours_in_an_image_and_numbers_in_a_label(tmp_path):
    indices = numbers(5, 7, highest=2)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 0]], np.uint8)
    path = palette_picture(tmp_path / "a.png", indices, colours)
    assert np.array_equal(read_file(path).data, np.moveaxis(colours[indices], -1, 0)[:, None])
    content = read_file(path, as_label=True)
    assert np.array_equal(content.data, indices[None, None])
    assert "its numbers count, not its colours" in content.notes[0]
    greys = palette_picture(tmp_path / "b.png", indices, [[0] * 3, [90] * 3, [200] * 3])
    assert np.array_equal(read_file(greys).data[0, 0], np.array([0, 90, 200])[indices])


def test_a_palette_whose_greys_contradict_its_numbers_is_no_label(tmp_path):
    path = palette_picture(tmp_path / "a.png", numbers(5, 7, highest=1), [[255] * 3, [0] * 3])
    with pytest.raises(FileError, match=r"a\.png: expected numbers in the order of the greys.*0 is 255, 1 is 0\. Save it as a"):
        read_label_volume(path)
    assert set(np.unique(read_volume(path).data)) == {0, 255}


def test_colours_are_a_label_only_where_they_are_greys(tmp_path):
    mask = numbers(5, 7, highest=2)
    path = save(tmp_path / "a.png", np.stack([mask] * 3, axis=-1))
    assert np.array_equal(read_label_volume(path).data, mask[None])
    assert "greys" in read_file(path, as_label=True).notes[0]
    path = save(tmp_path / "b.png", np.stack([mask, 0 * mask, mask], axis=-1))
    with pytest.raises(FileError, match=r"b\.png: expected one number per pixel, found colours such as \(\d, 0, \d\)\. Save"):
        read_label_volume(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_left_out_where_it_says_nothing_and_refused_elsewhere(tmp_path, channels):
    pixels = np.concatenate([numbers(5, 7, channels), np.full((5, 7, 1), 255, np.uint8)], axis=-1)  # LA or RGBA
    content = read_file(save(tmp_path / "a.png", pixels))
    assert np.array_equal(content.data, np.moveaxis(pixels[..., :-1], -1, 0)[:, None])
    assert "alpha channel is left out" in content.notes[0]
    pixels[2, 3, -1] = 0
    for read in (read_file, read_label_volume):
        with pytest.raises(FileError, match=r"a\.png: expected an opaque picture.*Save it without"):
            read(save(tmp_path / "a.png", pixels))


@pytest.mark.parametrize(
    ("pixels", "unused"), [(numbers(5, 7, highest=40000, kind=np.uint16), 50000), (np.ones((5, 7), bool), 0)]
)
def test_greys_of_any_depth_are_the_same_with_a_transparent_grey_that_no_pixel_has(tmp_path, pixels, unused):
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=unused)
    for read in (read_file, read_label_volume):
        assert np.array_equal(read(tmp_path / "a.png").data.squeeze(), pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=int(pixels[2, 3]))
    with pytest.raises(FileError, match=r"a\.png: expected an opaque picture.*Save it without"):
        read_file(tmp_path / "a.png")


def test_16_bits_of_grey_with_transparency_are_refused_in_these_words(tmp_path):
    png(tmp_path / "a.png", 2, 16, 4, numbers(2, 2, highest=65535, kind=np.uint16).astype(">u2").tobytes())
    with pytest.raises(
        FileError, match=r"a\.png: expected 16 bits of grey or RGB, found grey with transparency\. Save it without"
    ):
        read_file(tmp_path / "a.png")


def test_what_is_no_single_upright_picture_is_refused(tmp_path):
    frames = [Image.fromarray(numbers(5, 7)), Image.fromarray(numbers(5, 7))]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[274] = 6
    frames[0].save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(numbers(5, 7, 3)).convert("CMYK").save(tmp_path / "print.jpg")
    for name, reason in {"stack.tif": "found 2. Save each", "turned.jpg": "orientation 6", "print.jpg": "found CMYK"}.items():
        with pytest.raises(FileError, match=f"{name}.*{reason}"):
            read_file(tmp_path / name)


@pytest.mark.parametrize("ending", PICTURES)
def test_pictures_that_are_cut_short_or_something_else_are_refused(tmp_path, ending):
    path = save(tmp_path / f"a{ending}", numbers(50, 70, 3))
    raw = path.read_bytes()
    for kept in (len(raw) // 2, len(raw) - 20, 10):
        path.write_bytes(raw[:kept])
        with pytest.raises(FileError, match=rf"a\{ending}: expected .*Copy or export"):
            read_file(path)
    other = tmp_path / ("b.png" if ending != ".png" else "b.tif")
    other.write_bytes(raw)
    with pytest.raises(FileError, match="expected a (PNG|TIFF) picture"):
        read_geometry(other)


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path):
    path = save(tmp_path / "a.png", numbers(50, 70, 3))
    raw = path.read_bytes()
    for place in (len(raw) // 2, len(raw) - 100, len(raw) - 6, 20):
        damaged = bytearray(raw)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"a\.png"):
            read_file(path)


@pytest.mark.parametrize("ending", LOSSLESS)
@pytest.mark.parametrize(("highest", "kind"), [(3, np.uint8), (255, np.uint8), (999, np.uint16)])
def test_labels_lie_pixel_by_pixel_on_their_picture(tmp_path, ending, highest, kind):
    scan = save(tmp_path / f"scan{ending}", numbers(5, 7, 3))
    data = numbers(1, 5, 7, highest=highest, kind=np.int32)
    data[0, 0, 0] = highest
    write_label_volume(LabelVolume(data, read_geometry(scan)), tmp_path / f"out{ending}", like=scan)
    found = read_file(tmp_path / f"out{ending}", as_label=True)
    assert found.data.dtype == kind
    assert np.array_equal(found.data[0], data)
    assert found.geometry == read_geometry(scan)
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"out{ending}")), data[0])


def test_what_a_picture_cannot_hold_is_refused_with_a_way_out(tmp_path):
    grid = Geometry.from_spacing((1, 3, 4), (1, 1, 1))
    with pytest.raises(FileError, match=r"a\.png: PNG cannot hold int16 unchanged\. Write \.tif"):
        write_label_volume(LabelVolume(np.full((1, 3, 4), -1), grid), tmp_path / "a.png")
    write_label_volume(LabelVolume(np.full((1, 3, 4), -1), grid), tmp_path / "a.tif")
    assert (read_label_volume(tmp_path / "a.tif").data == -1).all()
    write_volume(Volume(np.full((1, 1, 3, 4), 0.5, np.float32), grid), tmp_path / "b.tif")
    assert (read_volume(tmp_path / "b.tif").data == 0.5).all()
    deep = LabelVolume(np.zeros((2, 3, 4), np.uint8), Geometry.from_spacing((2, 3, 4), (1, 1, 1)))
    with pytest.raises(FileError, match="one slice of one channel"):
        write_label_volume(deep, tmp_path / "c.png")


@pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}")
def test_real_pictures_are_as_pillow_has_them():
    path = min(DATA.glob("imagesTr/*.png"))
    assert np.array_equal(read_file(path).data[:, 0], np.moveaxis(np.asarray(Image.open(path)), -1, 0))
    assert set(np.unique(read_label_volume(DATA / "labelsTr" / path.name).data)) == {0, 1}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # which Pillow says of it
def test_a_rare_kind_of_tiff_is_called_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers(5, 6), bigtiff=True, byteorder="<")
    assert np.array_equal(read_file(tmp_path / "a.tif").data[0, 0], numbers(5, 6))
    tifffile.imwrite(tmp_path / "a.tif", numbers(5, 6), bigtiff=True, byteorder=">")
    with pytest.raises(FileError, match=r"a\.tif: expected a TIFF picture, found a damaged one or a rare kind"):
        read_file(tmp_path / "a.tif")


def test_a_list_of_pictures_that_begins_again_is_refused_before_it_is_followed(tmp_path, monkeypatch):
    class Again(TiffImagePlugin.ImageFileDirectory_v2):  # a sound file, whose list is said to go back to its beginning
        def load(self, fp):
            super().load(fp)
            self.next = 8

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6), np.int32), metadata=None, software=False)
    monkeypatch.setattr(TiffImagePlugin, "ImageFileDirectory_v2", Again)
    for reader in (read_file, read_label_volume, read_geometry):
        with pytest.raises(FileError, match=r"a\.tif: expected one picture, found a list of pictures that begins again"):
            reader(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_numbers_of_tiff_are_those_that_were_written_or_it_is_refused(tmp_path, kind, order, compression):
    numbers = np.array([[0, 1, 2], [100, 120, 7]], kind)
    if kind[0] != "f":
        about = np.iinfo(numbers.dtype)
        numbers[1] = [about.max, about.min, about.max // 2 + 1]  # 2**31 of uint32
    tifffile.imwrite(tmp_path / "a.tif", numbers, byteorder=order, compression=compression, photometric="minisblack")
    if (kind, order) == ("u4", ">"):
        with pytest.raises(FileError, match="found a damaged one or a rare kind"):
            read_file(tmp_path / "a.tif")
        return
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif").data[0, 0], numbers)
    np.testing.assert_array_equal(read_label_volume(tmp_path / "a.tif").data[0], numbers)


def test_a_tiff_of_three_slices_that_says_they_are_colours_is_said_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 5, 6), np.uint8))
    found = read_file(tmp_path / "a.tif")
    assert found.data.shape == (3, 1, 5, 6)
    assert found.notes == ("The file says that its planes are colours, not slices; they are read as channels.",)


def test_where_white_is_zero_an_image_is_turned_round_and_a_label_is_not(tmp_path):
    numbers = np.array([[0, 1, 2]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", numbers, photometric="miniswhite")
    assert read_file(tmp_path / "a.tif").data[0, 0].tolist() == [[255, 254, 253]]
    assert "inverted" in read_file(tmp_path / "a.tif").notes[0]
    assert read_label_volume(tmp_path / "a.tif").data[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(("bits", "packed", "expected"), [(1, 0b01, [0, 1]), (2, 0b01, [0, 85]), (4, 0x01, [0, 17])])
def test_greys_of_less_than_8_bits_are_said_to_be_so(tmp_path, bits, packed, expected):
    png(tmp_path / "a.png", 2, bits, 0, bytes([packed << (8 - 2 * bits)]))
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}  # the pixels stand behind the head
    parts = b"".join(struct.pack("<HHIHH", tag, 3, 1, number, 0) for tag, number in tags.items())
    body = struct.pack("<HIBx", 42, 10, packed << (8 - 2 * bits)) + struct.pack("<H", len(tags)) + parts + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II" + body)
    for name in ("a.png", "a.tif"):
        for as_label in (False, True):
            found = read_file(tmp_path / name, as_label=as_label)
            assert found.data.ravel().tolist() == expected
            assert f"{'one bit' if bits == 1 else f'{bits} bits'} a pixel" in found.notes[0]


def test_the_pixel_size_of_a_microscope_is_said_to_be_passed_over(tmp_path):
    pixels, path = np.zeros((4, 5), np.uint16), tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    assert read_file(path).notes == ("The file gives the size of its pixels (unit=um); pictures are read with pixels of 1 mm.",)
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"})
    assert 'PhysicalSizeX="0.5"' in read_file(path).notes[0]
    tifffile.imwrite(path, pixels, resolution=(72, 72), resolutionunit="INCH")  # of a screen
    assert read_file(path).notes == ()


def test_nothing_is_printed_by_the_readers_of_others(tmp_path, capfd):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 4, 5), np.uint16), photometric="rgb", planarconfig="separate")
    with pytest.raises(FileError):
        read_file(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")
