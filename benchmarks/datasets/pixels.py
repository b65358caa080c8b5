"""Images as uint8 size x size x 3: one from encoded bytes or an array, or many into one .npy file."""

import io
import os
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Transpose

from benchmarks.bars import ProgressBar
from scl.engine.provenance import cores

MAX_PIXELS = 89_000_000  # decoded; Pillow warns above this. Phone cameras have 50 or 64 million
MAX_BYTES = 64 << 20  # encoded
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # these decode pixels and do nothing else
HEIF = (".heic", ".heif", ".hif")  # read if pillow-heif is installed (`reads_heif`)
RESIZE = "the center square, resized by Pillow's bicubic filter with antialiasing"
BATCH = 1 << 16  # bytes per task of a thread: with one image per task, scheduling costs as much as decoding 64 px
AHEAD = 2  # batches per thread that are read before they are needed
TURNS = dict(enumerate((Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSPOSE,
                        Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90), 2))  # fmt: skip
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, MemoryError, struct.error, zlib.error,
           RuntimeError)  # the last is pillow-heif's  # fmt: skip


def write_images(
    path: Path,
    images: Iterable[tuple[int, str, bytes | np.ndarray | ValueError]],
    *,
    count: int,
    size: int,
    upright: bool,
    label: str,
    unreadable: dict[int, str] | None,
) -> None:
    """Fill `path` with a .npy of uint8 count x size x size x 3.

    images: (row, name, encoded bytes or uint8 H x W x 3, or why it cannot be read), each row once, in any order;
    resized if needed, by threads (Pillow releases the GIL). label: of the progress bar. Raises ValueError naming an
    unreadable image; with a dictionary `unreadable`, adds {row: message} to it instead and leaves the row black.

    Rows are written with pwrite rather than through a memory map: a full disk then raises an error instead of SIGBUS,
    and the written pages do not count as memory of the process.
    """
    workers = min(8, cores())
    seen = np.zeros(count, dtype=bool)
    offset = np.lib.format.open_memmap(path, "w+", np.uint8, shape=(count, size, size, 3)).offset
    with (
        open(path, "r+b") as file,
        warnings.catch_warnings(action="ignore"),  # broken EXIF, palette transparency; bombs: see from_bytes
        ThreadPoolExecutor(workers) as pool,
        ProgressBar(label, count, unit="images") as bar,
    ):
        if hasattr(os, "posix_fallocate"):  # a disk that is too small fails now
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

        def write(row: int, name: str, data: bytes | np.ndarray | ValueError) -> int:
            try:
                if isinstance(data, ValueError):
                    raise data
                if isinstance(data, bytes):
                    data = from_bytes(data, size, name=name, upright=upright)
            except ValueError as error:
                if unreadable is None:
                    raise
                unreadable[row] = str(error)
                return row
            _pwrite(file.fileno(), to_square(data, size), offset + row * size * size * 3)
            return row

        for row in _in_threads(pool, write, images, ahead=AHEAD * workers):
            assert not seen[row], "a row came twice"
            seen[row] = True
            bar.update()
    assert seen.all(), f"{(~seen).sum()} rows never came"


def _in_threads(pool: ThreadPoolExecutor, function, items: Iterable[tuple], *, ahead: int) -> Iterator:
    """function(*item) of each item, in order; at most `ahead` batches are in progress."""
    running = deque[Future]()
    for batch in _batches(items):
        if len(running) >= ahead:
            yield from running.popleft().result()
        running.append(pool.submit(lambda batch: [function(*item) for item in batch], batch))
    for future in running:
        yield from future.result()


def _batches(items: Iterable[tuple]) -> Iterator[list[tuple]]:
    """Consecutive items in lists of at least BATCH bytes of images, the last one excepted."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += 0 if isinstance(item[2], ValueError) else memoryview(item[2]).nbytes
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _pwrite(descriptor: int, pixels: np.ndarray, offset: int) -> None:
    left = np.ascontiguousarray(pixels).data.cast("B")
    while left.nbytes:  # a write may be short if the disk is almost full
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def to_square(image: Image.Image | np.ndarray, size: int) -> np.ndarray:
    """An RGB image, or uint8 H x W x 3, as uint8 size x size x 3: the center square, resized once (= shorter side to
    `size`, then a center crop)."""
    if isinstance(image, np.ndarray):
        if image.shape == (size, size, 3):
            return image
        image = Image.fromarray(image)
    width, height = image.size
    side = min(width, height)
    if (width, height) != (size, size):
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.frombuffer(image.tobytes(), np.uint8).reshape(size, size, 3)  # faster than np.asarray


def from_bytes(data: bytes, size: int, *, name: str, upright: bool = False) -> np.ndarray:
    """An encoded image of any mode as uint8 size x size x 3. Raises ValueError naming an image that cannot be read.

    upright: apply its EXIF orientation (for photographs; no published benchmark does).
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: {len(data):,} bytes is too much for one image (at most {MAX_BYTES:,})")
    formats = (*FORMATS, "HEIF") if name.lower().endswith(HEIF) and reads_heif() else FORMATS
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            turn = _turn(image) if upright else None
            rgb = _rgb(image)
            # ImageOps.exif_transpose would also write all tags again, and fail on odd ones
            return to_square(rgb if turn is None else rgb.transpose(turn), size)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: refused as a decompression bomb: it decodes to more than {MAX_PIXELS // 10**6} million pixels"
        ) from error
    except _BROKEN as error:
        # Pillow's message on unknown formats contains the address of a buffer, which differs from run to run
        reason = "no image of a known format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{name}: cannot be read as an image: {reason}") from error


def _turn(image: Image.Image) -> Transpose | None:
    """How the EXIF orientation turns an image; None if it does not, or if its EXIF data are damaged."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))  # 1 from pillow-heif, which has turned it
    except _BROKEN:
        return None


def reads_heif() -> bool:
    """Whether HEIC can be read: with the optional pillow-heif, which is then registered with Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: transparent parts become white; 12- and 16-bit gray is reduced to its upper byte, where Pillow
    would clip. Raises ValueError for pixels whose range is not known."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("32-bit, signed, or floating-point pixels have no agreed range; convert the image to 8 bits")
    if image.mode.startswith("I"):
        bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0]  # 12 in some TIFFs
        return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert copies
