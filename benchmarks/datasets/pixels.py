"""One image: from encoded bytes or an array to uint8 size x size x 3, or a refusal that names it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000  # decoded; the largest of ILSVRC-2012 has 28 million
MAX_BYTES = 64 << 20  # encoded
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # formats that decode pixels and do nothing else
RESIZE = "the center square, resized by Pillow's bicubic filter with antialiasing"
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, MemoryError, struct.error, zlib.error)


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """uint8 size x size x 3: the center square, resized once (= shorter side to `size`, then a center
    crop)."""
    width, height = image.size
    side = min(width, height)
    if (width, height) != (size, size):
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(image, dtype=np.uint8)


def from_array(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 H x W x 3 -> uint8 size x size x 3."""
    return to_square(Image.fromarray(pixels), size)


def from_bytes(data: bytes, size: int, *, name: str, upright: bool = False) -> np.ndarray:
    """An encoded image -> uint8 size x size x 3, whatever its mode; ValueError naming it if it is no sound
    image.

    upright: turn it as its EXIF orientation says (photographs of the user's; no published benchmark does).
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: {len(data):,} bytes is too much for one image (at most {MAX_BYTES:,})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF, palette transparency; bombs are judged below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image.load()
                return to_square(_rgb(ImageOps.exif_transpose(image) if upright else image), size)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: refused as a decompression bomb: it decodes to more than {MAX_PIXELS // 10**6} million pixels"
        ) from error
    except _BROKEN as error:
        # Pillow's words on unknown formats hold the address of a buffer, which would differ from run to run
        reason = "no image of a known format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{name}: cannot be read as an image: {reason}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Gray, palette, CMYK and transparent images as RGB; 16-bit gray by its upper byte, where Pillow would
    clip."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; convert it to 8 bits first")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
