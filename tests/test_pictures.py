"""PNG and JPEG pictures as scans of one slice."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_seg.data.pictures import read_picture, read_picture_labels, write_picture_labels
from fewshot_seg.errors import DataError

GREY = (np.arange(20).reshape(4, 5) * 12).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
IDS = (np.arange(20).reshape(4, 5) % 3).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def test_a_colour_picture_is_a_scan_of_one_slice(tmp_path: Path) -> None:
    scan = read_picture(save(tmp_path / "007.png", COLOUR), save(tmp_path / "label.png", IDS))
    assert scan.id == "007"
    assert scan.image.dtype == np.float32
    np.testing.assert_array_equal(scan.image, COLOUR.transpose(2, 0, 1)[None])
    np.testing.assert_array_equal(scan.labels, IDS[None])
    assert scan.spacing is None
    assert scan.geometry is None
    assert scan.class_slices == {1: (0,), 2: (0,)}


def palette() -> Image.Image:
    picture = Image.fromarray(IDS)
    picture.putpalette([0, 0, 0, 250, 20, 30, 5, 60, 200])
    return picture


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.fromarray(GREY), GREY[None]),
        (Image.fromarray(GREY.astype(np.uint16) * 200), GREY[None] * 200.0),
        (Image.fromarray(IDS > 0), (IDS > 0)[None] * 255.0),
        (Image.fromarray(COLOUR).convert("RGBA"), COLOUR.transpose(2, 0, 1)),
        (Image.fromarray(GREY).convert("LA"), GREY[None]),
        (palette(), np.array([[0, 250, 5], [0, 20, 60], [0, 30, 200]])[:, IDS]),
    ],
    ids=["grey", "16 bits", "1 bit", "opaque", "opaque grey", "palette"],
)
def test_the_kinds_of_pictures(tmp_path: Path, picture: Image.Image, expected: np.ndarray) -> None:
    scan = read_picture(save(tmp_path / "a.png", picture), scan_id="x")
    assert scan.id == "x"
    assert scan.labels is None
    np.testing.assert_array_equal(scan.image[0], expected)


def test_jpeg_pictures_take_png_labels(tmp_path: Path) -> None:
    image = save(tmp_path / "a.JPG", COLOUR, quality=95)
    assert read_picture(image, save(tmp_path / "a.png", IDS)).image.shape == (1, 3, 4, 5)
    with pytest.raises(DataError, match="labels are PNG files"):
        read_picture(image, image)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (palette(), IDS),
        (Image.fromarray(IDS > 0), IDS > 0),
        (Image.fromarray(IDS.astype(np.uint16) * 300), IDS.astype(int) * 300),
        (Image.fromarray(IDS * 127), IDS.astype(int) * 127),
    ],
    ids=["palette", "1 bit", "16 bits", "any ids"],
)
def test_the_kinds_of_labels(tmp_path: Path, picture: Image.Image, expected: np.ndarray) -> None:
    labels = read_picture_labels(save(tmp_path / "label.png", picture))
    assert labels.dtype == np.int16
    np.testing.assert_array_equal(labels[0], expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (COLOUR, r"holds colours \(RGB\).*8-bit grey"),
        (IDS[:3], "is 4x5 but its labels .* are 3x5"),
        ((IDS > 0).astype(np.uint8) * 255, "black and white.*write 1 instead of 255"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    image, path = save(tmp_path / "image.png", GREY), save(tmp_path / "label.png", labels)
    with pytest.raises(DataError, match=message) as error:
        read_picture(image, path)
    assert str(path) in str(error.value)


def transparent() -> Image.Image:
    picture = Image.fromarray(COLOUR).convert("RGBA")
    picture.putpixel((0, 0), (1, 2, 3, 4))
    return picture


@pytest.mark.parametrize(
    ("name", "picture", "options", "message"),
    [
        ("a.png", transparent(), {}, "partly transparent"),
        ("a.png", Image.new("L", (5, 4), 9), {}, "the value 9 in every voxel"),
        ("a.jpg", Image.fromarray(COLOUR).convert("CMYK"), {}, "holds CMYK pixels"),
        ("a.jpg", Image.fromarray(COLOUR), {"exif": {0x0112: 6}}, "stored turned"),
        ("a.bmp", Image.fromarray(GREY), {}, "no picture this library reads: .png"),
        (
            "a.png",
            Image.fromarray(GREY),
            {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]},
            "animation of 2 pictures",
        ),
    ],
)
def test_pictures_that_are_refused(
    tmp_path: Path, name: str, picture: Image.Image, options: dict, message: str
) -> None:
    if "exif" in options:
        tags = Image.Exif()
        tags.update(options["exif"])
        options = {"exif": tags}
    path = save(tmp_path / name, picture, **options)
    with pytest.raises(DataError, match=message) as error:
        read_picture(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: b"hello",
        lambda good: good[: len(good) // 2],
        lambda good: good[:50] + b"\xff\xff" + good[52:],
    ],
)
def test_damaged_pictures(tmp_path: Path, damage: object) -> None:
    path = save(tmp_path / "a.png", COLOUR)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        read_picture(path)


def test_a_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        read_picture(tmp_path / "a.png")


def test_labels_are_written_as_8_bit_grey(tmp_path: Path) -> None:
    labels = np.array([[[0, 1, 7], [200, 2, 254]]], dtype=np.int16)
    write_picture_labels(tmp_path / "new" / "out.png", labels)
    with Image.open(tmp_path / "new" / "out.png") as picture:
        assert picture.mode == "L"
    np.testing.assert_array_equal(read_picture_labels(tmp_path / "new" / "out.png"), labels)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("a.png", 256, "from 0 to 256"), ("a.png", -1, "from -1 to 0"), ("a.jpg", 1, "as .png")],
)
def test_labels_that_cannot_be_written(tmp_path: Path, name: str, value: int, message: str) -> None:
    labels = np.zeros((1, 2, 3), np.int16)
    labels[0, 0, 0] = value
    with pytest.raises(DataError, match=message):
        write_picture_labels(tmp_path / name, labels)
    assert list(tmp_path.iterdir()) == []
