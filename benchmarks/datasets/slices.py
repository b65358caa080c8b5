"""Encoded images in plain files or in uncompressed tars, as slices of files that are read without extraction."""

import itertools
import stat
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from benchmarks.datasets.dataset import Image, hash_order, refuse_duplicates
from benchmarks.datasets.pixels import MAX_BYTES
from scl.util.text import printable


class FileSlice(NamedTuple):
    """Bytes offset .. offset + size of `file`: the image `name`."""

    name: str
    file: Path
    offset: int
    size: int


def whole_file(name: str, file: Path) -> FileSlice:
    """Raises ValueError for broken links and anything but regular files: reading a pipe would wait forever."""
    try:
        found = file.stat()
    except OSError as error:
        if not file.is_symlink():
            raise
        raise ValueError(f"{printable(file)}: is a broken link; fix or remove it") from error
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise ValueError(f"{printable(file)}: is {kind}, not a file; remove it")
    return FileSlice(name, file, 0, found.st_size)


def tar_members(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(base name, offset, size) of the regular members of the uncompressed tar that starts at the position of `file`;
    links and folders are skipped. Raises tarfile.TarError and others if it is not a tar."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for entry in tar:
            if entry.isreg():
                yield entry.name.rpartition("/")[2], entry.offset_data, entry.size


def tar_slices(path: Path, *, start: int = 0, size: int | None = None, prefix: str = "", where: str = "") -> list:
    """The members, named prefix + base name, of the tar that is bytes start .. start + size of `path` (default: all).
    Raises ValueError if it is not a tar, or is cut off."""
    stop = path.stat().st_size if size is None else start + size
    try:
        with open(path, "rb") as file:
            file.seek(start)
            found = [FileSlice(prefix + name, path, *place) for name, *place in tar_members(file)]
        if any(member.offset + member.size > stop for member in found):
            raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{where or path}: is not a valid tar archive: {error}") from error
    return found


def in_hash_order(slices: list[FileSlice]) -> list[FileSlice]:
    """By the hash of the name: the row says nothing about the class."""
    refuse_duplicates(slices[0].file, [member.name for member in slices])
    by_name = {member.name: member for member in slices}
    return [by_name[name] for name in hash_order(list(by_name))]


def slice_images(slices: list[FileSlice], rows: np.ndarray) -> Iterator[Image]:
    """(row, name, bytes) of `slices[row]`, file by file in disk order. Bytes that cannot be read are replaced by the
    ValueError that says why, so that a user's folder can be prepared without that image."""
    by_file = itertools.groupby(sorted(map(int, rows), key=lambda row: slices[row][1:]), lambda row: slices[row].file)
    for path, rows_of_file in by_file:
        with ExitStack() as held:
            try:
                file: IO[bytes] | OSError = held.enter_context(open(path, "rb"))
            except OSError as error:
                file = error
            for row in rows_of_file:
                name = slices[row].name
                where = name if path.name == Path(name).name else f"{path.name}: {name}"
                yield row, where, _read(file, slices[row], where)


def _read(file: IO[bytes] | OSError, image: FileSlice, where: str) -> bytes | ValueError:
    """The bytes of `image`, or why they cannot be read. file: open, or the error of opening it."""
    if image.size > MAX_BYTES:
        return ValueError(f"{where}: {image.size:,} bytes is too much for one image (at most {MAX_BYTES:,})")
    try:
        if isinstance(file, OSError):
            raise file
        file.seek(image.offset)
        data = file.read(image.size)
    except OSError as error:
        return ValueError(f"{where}: cannot be read: {error.strerror or error} ({image.file})")
    if len(data) < image.size:
        return ValueError(f"{where}: is cut off after {len(data):,} of {image.size:,} bytes")
    return data
