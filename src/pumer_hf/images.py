"""Functions that open pictures. All code uses [`open_image`], so a file gives the same pixels everywhere."""

import base64
import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage
from PIL.Image import Transpose


class DataError(ValueError):
    """An example of the user cannot be used; the message says which and why."""


ImageSource = PILImage.Image | np.ndarray | str | Path | Mapping[str, Any]
"""A PIL image; an array uint8 (height, width) or (height, width, 3 or 4); a path or a URL; or an undecoded image of
`datasets`, a dict with `bytes` or else `path`. The path may be in an archive (`zip://a.png::train.zip`)."""
URL_TIMEOUT = 30.0  # seconds
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""The turn that makes a picture upright, by its EXIF orientation."""
UNREADABLE = (OSError, SyntaxError, ValueError, BadZipFile, PILImage.DecompressionBombError)
"""The errors that Pillow and archives raise."""


def open_image(source: ImageSource, origin: str = "") -> PILImage.Image:
    """Read a picture as people see it: upright, in RGB with 8 bits per channel.

    The picture is turned as its EXIF orientation says, if that can be read. Transparent parts become white, as on a
    web page and in the image processors of transformers. In a grey picture of 16 bits they stay as they are. The
    upper 8 of 16 bits are taken. Integers of 32 bits must hold 16-bit values, and floats must be in [0, 1].

    Args:
        source: what to open.
        origin: where the picture is named (file and row), for error messages.

    Raises:
        DataError: the picture cannot be read, or its values have an unknown range. The message names it and
            `origin`.
    """
    if not isinstance(source, (PILImage.Image, np.ndarray, str, Path)) and not _is_undecoded(source):
        found = "nothing" if source is None else f"{type(source).__name__}"
        raise DataError(located(f"an image must be a PIL image, a numpy array, a path or a URL, got {found}", origin))
    try:
        if isinstance(source, PILImage.Image):
            return _upright_rgb(source)
        if isinstance(source, np.ndarray):
            return _upright_rgb(_from_array(source))
        with PILImage.open(_file(source)) as opened:
            return _upright_rgb(opened)
    except UNREADABLE as error:
        raise DataError(located(f"cannot read the image {image_name(source)}: {_reason(error)}", origin)) from error


def open_picture(name: str) -> PILImage.Image:
    """Open the picture in a file ([`open_image`]).

    Raises:
        ValueError, OSError: the file cannot be read; the message names it.
    """
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name}: there is no such image")
    return open_image(name)


def num_frames(source: ImageSource) -> int:
    """Return how many pictures a file holds: an animation holds several, and [`open_image`] takes the first.

    A photograph counts as one, even if a phone saved a small preview with it.
    """
    if isinstance(source, (PILImage.Image, np.ndarray)):
        return 1
    with PILImage.open(_file(source)) as opened:
        return 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)


def _reason(error: Exception) -> str:
    """Return why a picture cannot be read, in plainer words than Pillow's."""
    if isinstance(error, UnidentifiedImageError):
        return "it is in no format that can be read, such as JPEG, PNG, WebP or GIF"
    if isinstance(error, PILImage.DecompressionBombError):
        return f"it has more than {2 * (PILImage.MAX_IMAGE_PIXELS or 0)} pixels"
    return str(error)


def located(message: str, origin: str) -> str:
    """Put `origin` before a message, if it is known."""
    return f"{origin}: {message}" if origin else message


def _is_undecoded(source: Any) -> bool:
    """Return whether `source` is an undecoded image of `datasets` with a path or bytes."""
    return isinstance(source, Mapping) and any(source.get(name) is not None for name in ("bytes", "path"))


def image_name(source: ImageSource) -> str:
    """Return the name of a picture in a message: its file, or else its kind and size."""
    if isinstance(source, PILImage.Image):
        return f"of mode {source.mode} and {source.width} x {source.height} pixels"
    if isinstance(source, np.ndarray):
        return f"of shape {source.shape} and dtype {source.dtype}"
    name = str((source.get("path") if isinstance(source, Mapping) else source) or "in memory")
    return f"{name[:32]}..." if name.startswith("data:") else name


def _from_array(array: np.ndarray) -> PILImage.Image:
    if array.size == 0:
        raise ValueError("it has no pixels")
    try:
        return PILImage.fromarray(array)
    except TypeError as error:
        raise ValueError("give an array of uint8 (height, width, 3), or a PIL image") from error


def _file(source: str | Path | Mapping[str, Any]) -> Path | io.BytesIO:
    """Return what Pillow can open: a local path, or the bytes of any other source."""
    if isinstance(source, Mapping):
        if source.get("bytes") is not None:
            return io.BytesIO(source["bytes"])
        source = source["path"]
    name = str(source)
    if name.startswith("data:"):
        content = "".join(name.partition(";base64,")[2].split())  # it may have line breaks
        return io.BytesIO(base64.b64decode(content, validate=True))
    if "::" not in name and name.startswith(("http://", "https://")):
        return io.BytesIO(_download(name))
    if "://" in name:
        from datasets.utils.file_utils import xopen  # slow to import (1 s), and few pictures need it

        try:
            with xopen(name, "rb") as remote:
                return io.BytesIO(remote.read())
        except KeyError as error:  # older fsspec, if the archive lacks the file
            raise FileNotFoundError(str(error)) from error
    return Path(name)


def _download(url: str) -> bytes:
    import httpx  # transformers needs it too

    try:
        return httpx.get(url, timeout=URL_TIMEOUT, follow_redirects=True).raise_for_status().content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _upright_rgb(image: PILImage.Image) -> PILImage.Image:
    if 0 in image.size:
        raise ValueError("it has no pixels")
    image.load()  # Pillow turns a TIFF as it loads it, and drops the tag
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        transparency = image.info.get("transparency")
        image = image.transpose(turn)
        # The tag is left out. Otherwise code that opens the result would turn it again.
        image.info = {} if transparency is None else {"transparency": transparency}
    if image.mode == "F" or image.mode.startswith("I"):
        image = _in_8_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _orientation(image: PILImage.Image) -> Any:
    """Return the EXIF orientation; None if there is none.

    `ImageOps.exif_transpose` would also write the EXIF block again, which fails if another entry is broken.
    """
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # what Pillow raises for a broken block
        return None


def _in_8_bits(image: PILImage.Image) -> PILImage.Image:
    """Convert a grey image of mode `F`, `I` or `I;16` to mode `L`."""
    values = np.asarray(image)
    lowest, highest = values.min(), values.max()
    if image.mode == "F":
        if not (lowest >= 0 and highest <= 1):  # NaN is refused too
            raise ValueError(f"its values are in [{lowest:g}, {highest:g}]: scale them to [0, 1] or to 8 bits")
        return PILImage.fromarray((values * 255).round().astype(np.uint8))
    if not ((lowest >= 0 and 255 < highest <= 65535) or lowest == highest == 0):
        raise ValueError(f"its values are in [{lowest}, {highest}], so white is unknown: scale them to 8 or 16 bits")
    return PILImage.fromarray((values >> 8).astype(np.uint8))
