"""Pictures (PNG, JPEG) as scans of one slice, with class ids in a second PNG."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image

from fewshot_seg.data.atomic import write_bytes
from fewshot_seg.data.scan import Scan
from fewshot_seg.data.values import as_image, as_labels
from fewshot_seg.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
LABEL_SUFFIX = ".png"

COLOURS = {"RGB": "RGB", "RGBA": "RGB", "P": "RGB", "PA": "RGB"}
GREYS = {"L": "L", "LA": "L", "1": "L", "I": "I", "I;16": "I", "I;16B": "I"}
ALPHA = ("RGBA", "LA", "PA")
IDS = ("L", "P", "1", "I", "I;16", "I;16B")
"""Pillow's modes with one number a pixel; of a palette picture the number, not the colour."""

EXIF_ORIENTATION = 0x0112

PIXELS_PER_BYTE = 8 * 1032
"""No PNG holds more: 8 pixels of one bit a byte, compressed as far as deflate can."""


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()


def read_picture(image: Path, labels: Path | None = None, *, scan_id: str | None = None) -> Scan:
    """A grey or RGB picture as a scan of one slice, without spacing and geometry.

    labels: a PNG with the class id of each pixel, as grey level or palette index.
    scan_id: by default the file's name without its ending.
    Raises DataError, naming the file, when one cannot be used or their sizes disagree.
    """
    planes = as_image(image, _planes(image))
    ids = None if labels is None else read_picture_labels(labels)
    if ids is not None and ids.shape[1:] != planes.shape[1:]:
        raise DataError(
            f"{image} is {_size(planes)} but its labels {labels} are {_size(ids)}; "
            "draw the labels on the picture itself, or resize them by nearest neighbour"
        )
    return Scan(id=image.stem if scan_id is None else scan_id, image=planes[None], labels=ids)


def read_picture_labels(path: Path) -> Integer[np.ndarray, "1 height width"]:
    """The class ids in a PNG. Raises DataError for colours and for black-and-white masks."""
    if path.suffix.lower() != LABEL_SUFFIX:
        raise DataError(f"{path}: labels are PNG files; other formats may change class ids")
    picture = _open(path)
    if picture.mode not in IDS:
        raise DataError(
            f"{path} holds colours ({picture.mode}), but labels are class ids 0, 1, 2, ...; "
            "save it as an 8-bit grey picture in which each class has its own id"
        )
    ids = as_labels(path, np.asarray(picture))
    if picture.mode != "1" and np.array_equal(np.unique(ids), [0, 255]):
        raise DataError(
            f"{path} is black and white (0 and 255), but labels are class ids; "
            "write 1 instead of 255"
        )
    return ids[None]


def write_picture_labels(path: Path, labels: Integer[np.ndarray, "1 height width"]) -> None:
    """Write class ids 0 to 255 as an 8-bit grey PNG, which appears whole or not at all.

    Raises DataError for another file ending, ids that do not fit, or a file that cannot be written.
    """
    if path.suffix.lower() != LABEL_SUFFIX:
        raise DataError(f"{path}: labels of pictures are written as .png")
    if labels.min() < 0 or labels.max() > 255:
        raise DataError(
            f"{path}: the labels run from {labels.min()} to {labels.max()}, "
            "but an 8-bit PNG holds class ids 0 to 255"
        )
    content = io.BytesIO()
    Image.fromarray(labels[0].astype(np.uint8)).save(content, format="PNG")
    write_bytes(path, content.getvalue())


def _planes(path: Path) -> Float[np.ndarray, "channel height width"]:
    picture = _open(path)
    if picture.getexif().get(EXIF_ORIENTATION, 1) != 1:
        raise DataError(
            f"{path} is stored turned, with a note (EXIF) to turn it back, which labels lack; "
            "save it upright"
        )
    if picture.mode not in COLOURS | GREYS:
        raise DataError(f"{path} holds {picture.mode} pixels; save it as grey or RGB")
    if picture.mode in ALPHA and picture.getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{path} is partly transparent; save it as grey or RGB without alpha")
    pixels = np.asarray(picture.convert((COLOURS | GREYS)[picture.mode]), dtype=np.float32)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise DataError(f"{path} is no picture this library reads: {', '.join(PICTURE_SUFFIXES)}")
    try:
        with Image.open(path) as picture:
            _check_size(path, picture)
            picture.load()
            frames = getattr(picture, "n_frames", 1)
            found = picture.copy()
    # Pillow reports damage as any of these, a broken PNG chunk even as SyntaxError.
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error
    if frames != 1:
        raise DataError(f"{path} is an animation of {frames} pictures; save each by itself")
    return found


def _check_size(path: Path, picture: Image.Image) -> None:
    """Raise DataError for more pixels than the file can hold, before memory is taken for them."""
    width, height = picture.size
    if width * height > path.stat().st_size * PIXELS_PER_BYTE:
        raise DataError(
            f"{path} claims {width}x{height} pixels, more than {path.stat().st_size} bytes can "
            "hold; it is damaged, copy or download it again"
        )


def _size(planes: np.ndarray) -> str:
    return f"{planes.shape[-2]}x{planes.shape[-1]}"
