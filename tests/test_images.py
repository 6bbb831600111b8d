"""Opening pictures: the same pixels whatever the file, and errors that name it."""

import base64
import io
import zipfile

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import ExifTags, Image
from tiny import encoded

from pumer_hf.images import DataError, num_frames, open_image

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
GREY = PIXELS[:, :, 0]


def in_memory(content):
    return {"path": None, "bytes": content}


def opened(source):
    image = open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("tag", "stored"), [(1, PIXELS), (3, PIXELS[::-1, ::-1]), (6, np.rot90(PIXELS)), (8, np.rot90(PIXELS, -1))]
)
def test_a_picture_that_is_stored_turned_is_turned_back_once(tag, stored, form):
    lossless = {"lossless": True} if form == "WEBP" else {}
    content = encoded(Image.fromarray(stored), form, exif=orientation(tag), **lossless)
    image = open_image(in_memory(content))
    assert_array_equal(np.asarray(image), PIXELS)
    assert_array_equal(opened(image), PIXELS)
    assert_array_equal(opened(in_memory(encoded(image))), PIXELS)
    with Image.open(io.BytesIO(content)) as theirs:
        assert_array_equal(opened(theirs), PIXELS)
        assert form == "TIFF" or theirs.size == stored.shape[1::-1]  # the caller's image stays as it is


def grey_levels(mode):
    """A grey picture in a mode of more than 8 bits, whose 8-bit values are `GREY`."""
    if mode == "F":
        return Image.fromarray((GREY / 255).astype(np.float32))
    if mode == "I":
        return Image.fromarray(GREY.astype(np.int32) * 257)
    return Image.fromarray((GREY.astype(np.uint16) * 257).astype({"I;16": "<u2", "I;16B": ">u2"}[mode]))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_more_than_8_bits_are_scaled(mode):
    image = grey_levels(mode)
    assert image.mode == mode
    expected = np.repeat(GREY[:, :, None], 3, axis=2)
    assert_array_equal(opened(image), expected)
    assert_array_equal(opened(in_memory(encoded(image, "TIFF"))), expected)


def test_16_bits_of_a_png_and_of_an_array_are_scaled():
    values = GREY.astype(np.uint16) * 256 + 77
    for source in (values, in_memory(encoded(Image.fromarray(values)))):
        assert_array_equal(opened(source)[:, :, 1], GREY)


def test_a_16_bit_picture_that_is_stored_turned():
    content = encoded(Image.fromarray(np.rot90(GREY).astype(np.uint16) * 257), exif=orientation(6))
    assert_array_equal(opened(in_memory(content))[:, :, 2], GREY)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[0, 70_000]], np.int32), r"\[0, 70000\]"),
        (np.array([[-1, 700]], np.int32), r"\[-1, 700\]"),
        (np.array([[0, 255]], np.int32), r"\[0, 255\]"),  # 8 or 16 bits?
        (np.array([[0, 255]], np.float32), r"\[0, 255\]"),
        (np.array([[-0.5, 0.5]], np.float32), r"\[-0.5, 0.5\]"),
        (np.array([[0.5, np.nan]], np.float32), r"\[nan, nan\]"),
    ],
)
def test_values_of_an_unknown_range_are_refused_by_name(values, found, tmp_path):
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(ValueError, match=rf"line 3: .*odd\.tif: .*{found}"):
        open_image(tmp_path / "odd.tif", "line 3")
    with pytest.raises(ValueError, match=rf"\(1, 2\) and dtype .*{found}"):
        open_image(values)


def test_a_black_picture_of_32_bits_is_black():
    assert not opened(np.zeros((2, 3), np.int32)).any()


CLEAR_RED = (255, 0, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparent_parts_become_white(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), CLEAR_RED)
    alpha = image.getchannel("A")
    image = image.convert("P" if mode == "PA" else mode)
    if mode == "PA":  # `convert` loses the transparency before Pillow 12
        image.putalpha(alpha)
    assert image.mode == mode
    assert opened(image).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_half_transparent_and_declared_transparency():
    assert opened(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).tolist() == [[[127, 127, 127]]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([200, 30, 10])
    assert opened(in_memory(encoded(palette, transparency=0))).tolist() == [[[255, 255, 255]]]
    assert opened(in_memory(encoded(palette))).tolist() == [[[200, 30, 10]]]


def test_other_modes_are_converted():
    assert opened(Image.new("CMYK", (1, 1), (0, 255, 255, 0))).tolist() == [[[255, 0, 0]]]
    assert opened(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]
    assert opened(Image.new("L", (1, 1), 7)).tolist() == [[[7, 7, 7]]]


def test_all_kinds_of_sources(tmp_path, monkeypatch):
    content = encoded(Image.fromarray(PIXELS))
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("train.zip", "w") as archive:
        archive.writestr("images/a.png", content)
    sources = [
        PIXELS,
        Image.fromarray(PIXELS),
        "a.png",
        tmp_path / "a.png",
        {"path": "a.png", "bytes": None},
        {"path": "gone.png", "bytes": content},
        f"data:image/png;base64,{base64.b64encode(content).decode()}",
        f"zip://images/a.png::{tmp_path}/train.zip",
        {"path": "zip://images/a.png::train.zip", "bytes": None},
    ]
    for source in sources:
        assert_array_equal(opened(source), PIXELS)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.png", r"row 7: .*gone\.png: "),
        ({"path": "gone.png", "bytes": b"no picture"}, r"row 7: .*gone\.png: "),
        ("zip://b.png::train.zip", r"row 7: .*zip://b\.png::train\.zip: "),
        ("zip://b.png::text.zip", r"row 7: .*zip://b\.png::text\.zip: "),
        ("zip://b.png::gone.zip", r"row 7: .*zip://b\.png::gone\.zip: "),
        ("http://127.0.0.1:9/a.png", r"row 7: .*http://127\.0\.0\.1:9/a\.png: "),
        ("nothing://a.png", r"row 7: .*nothing://a\.png: "),
        ("data:image/png;base64,!", r"row 7: .*data:image/png;base64,!"),
        (np.zeros((2, 2, 3)), r"row 7: .*\(2, 2, 3\) and dtype float64: .*uint8"),
        (None, "row 7: .*got nothing"),
        ({"path": None, "bytes": None}, "row 7: .*got dict"),
        (torch.zeros(3, 2, 2), "row 7: .*got Tensor"),
        (7, "row 7: .*got int"),
    ],
)
def test_errors_name_the_picture_and_its_row(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.zip").write_text("no archive")
    with zipfile.ZipFile("train.zip", "w") as archive:
        archive.writestr("a.png", encoded(Image.fromarray(PIXELS)))
    with pytest.raises(ValueError, match=message):
        open_image(source, "row 7")


def test_a_turned_picture_with_a_broken_entry_beside_it_is_turned(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    block = bytearray(exif.tobytes())
    # a second entry, XResolution, of an undefined type
    start = block.index(b"MM") if b"MM" in block else block.index(b"II")
    order = "big" if block[start : start + 2] == b"MM" else "little"
    directory = start + 8
    entry = (0x011A).to_bytes(2, order) + (7).to_bytes(2, order) + (4).to_bytes(4, order) + b"abcd"
    block[directory : directory + 2] = (2).to_bytes(2, order)
    block[directory + 14 : directory + 14] = entry
    Image.new("RGB", (20, 40), "red").save(tmp_path / "a.jpg", exif=bytes(block))
    assert open_image(tmp_path / "a.jpg").size == (40, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_an_orientation_that_cannot_be_read_is_upright(tmp_path):
    Image.new("RGB", (20, 40)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert open_image(tmp_path / "a.jpg").size == (20, 40)


def test_a_data_url_may_come_in_lines():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 30), "blue").save(buffer, format="BMP")
    url = "data:image/bmp;base64," + base64.encodebytes(buffer.getvalue()).decode()
    assert open_image(url).getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_16_bits_of_which_8_are_used_are_refused(mode):
    values = np.full((4, 4), 200, dtype=np.uint16 if mode == "I;16" else np.int32)
    with pytest.raises(DataError, match=r"a.png, row 3: .*\[200, 200\]"):
        open_image(Image.fromarray(values), "a.png, row 3")
    assert open_image(Image.fromarray(0 * values)).getpixel((0, 0)) == (0, 0, 0)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(DataError, match=r"row 3: .*\(0, 4, 3\) .*no pixels"):
        open_image(np.zeros((0, 4, 3), dtype=np.uint8), "row 3")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("a text.png", b"I am no picture\n"),
        ("a.pdf", b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    ],
)
def test_what_is_no_picture_is_said_in_plain_words(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"no format .* such as JPEG") as error:
        open_image(tmp_path / name)
    assert str(error.value).count(name) == 1


def test_a_huge_picture_is_refused(tmp_path, monkeypatch):
    Image.new("1", (40, 30)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=r"huge\.png: .*1000 pixels"):
        open_image(tmp_path / "huge.png")


def test_frames_are_counted(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert num_frames(tmp_path / name) == 3
        assert open_image(tmp_path / name).getpixel((0, 0))[0] > 200  # the first
    frames[0].save(tmp_path / "a.png")
    assert num_frames(tmp_path / "a.png") == 1
    assert num_frames(str(tmp_path / "a.png")) == 1
    assert num_frames(frames[0]) == 1
    # Phones save such files, whose other pictures are small ones of the first.
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert num_frames(tmp_path / "a.jpg") == 1
