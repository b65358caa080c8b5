"""Encoded images that lie in plain files, or as stretches of uncompressed tars: one table, read without
extraction."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from benchmarks.datasets.contents import hash_order, refuse_twice
from benchmarks.datasets.pixels import MAX_BYTES
from scl.util.text import printable


class Piece(NamedTuple):
    """`size` bytes from `offset` on in `file` are the image `name`."""

    name: str
    file: Path
    offset: int
    size: int


def file_piece(name: str, file: Path) -> Piece:
    """The whole of `file`. ValueError for a link to nowhere, and for what is no regular file: to read a pipe is to
    wait for ever."""
    try:
        found = file.stat()
    except OSError as error:
        if not file.is_symlink():
            raise
        raise ValueError(f"{printable(file)}: is a link that leads nowhere; mend or remove it") from error
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise ValueError(f"{printable(file)}: is {kind}, not a file; remove it")
    return Piece(name, file, 0, found.st_size)


def tar_pieces(fileobj: BinaryIO, file: Path, *, base: int = 0, prefix: str = "", where: str = "") -> list[Piece]:
    """The regular members of an uncompressed tar (which begins at `base` of `file`), named prefix + their
    base name.

    Links and folders are passed over. ValueError where it is no tar, or is cut off.
    """
    try:
        with tarfile.open(fileobj=fileobj, mode="r:") as tar:
            return [
                Piece(prefix + entry.name.rpartition("/")[2], file, base + entry.offset_data, entry.size)
                for entry in tar
                if entry.isreg()
            ]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{where or file}: is no sound tar archive: {error}") from error


def in_hash_order(pieces: list[Piece]) -> list[Piece]:
    """By the hash of the name: the row says nothing about the class."""
    refuse_twice(pieces[0].file, [piece.name for piece in pieces])
    by_name = {piece.name: piece for piece in pieces}
    return [by_name[name] for name in hash_order(list(by_name))]


def piece_images(pieces: list[Piece], rows: np.ndarray) -> Iterator[tuple[int, str, bytes]]:
    """(row, name, bytes) of `pieces[row]`, file by file in the order of the disk."""
    opened, file = None, None
    try:
        for row in sorted(map(int, rows), key=lambda row: pieces[row][1:]):
            piece = pieces[row]
            where = piece.name if piece.file.name == Path(piece.name).name else f"{piece.file.name}: {piece.name}"
            if piece.size > MAX_BYTES:
                raise ValueError(f"{where}: {piece.size:,} bytes is too much for one image (at most {MAX_BYTES:,})")
            if file is None or piece.file != opened:
                if file:
                    file.close()
                file, opened = open(piece.file, "rb"), piece.file  # noqa: SIM115 closed below
            file.seek(piece.offset)
            data = file.read(piece.size)
            if len(data) < piece.size:
                raise ValueError(f"{where}: is cut off after {len(data):,} of {piece.size:,} bytes")
            yield row, where, data
    finally:
        if file:
            file.close()
