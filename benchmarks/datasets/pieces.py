"""Encoded images that lie in plain files, or as stretches of uncompressed tars: one table, read without
extraction."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from benchmarks.datasets.contents import hash_order
from benchmarks.datasets.pixels import MAX_BYTES


class Piece(NamedTuple):
    """`size` bytes from `offset` on in `file` are the image `name`."""

    name: str
    file: Path
    offset: int
    size: int


def tar_pieces(
    fileobj: BinaryIO, file: Path, *, base: int = 0, prefix: str = "", where: str = ""
) -> list[Piece]:
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
    by_name = {piece.name: piece for piece in pieces}
    if len(by_name) < len(pieces):
        names = [piece.name for piece in pieces]
        raise ValueError(f"{pieces[0].file}: holds {next(n for n in names if names.count(n) > 1)} twice")
    return [by_name[name] for name in hash_order(list(by_name))]


def piece_images(pieces: list[Piece], rows: np.ndarray) -> Iterator[tuple[int, str, bytes]]:
    """(row, name, bytes) of `pieces[row]`, file by file in the order of the disk."""
    opened, file = None, None
    try:
        for row in sorted(map(int, rows), key=lambda row: pieces[row][1:]):
            piece = pieces[row]
            where = (
                piece.name if piece.file.name == Path(piece.name).name else f"{piece.file.name}: {piece.name}"
            )
            if piece.size > MAX_BYTES:
                raise ValueError(
                    f"{where}: {piece.size:,} bytes is too much for one image (at most {MAX_BYTES:,})"
                )
            if piece.file != opened:
                if file:
                    file.close()
                file, opened = open(piece.file, "rb"), piece.file
            file.seek(piece.offset)
            data = file.read(piece.size)
            if len(data) < piece.size:
                raise ValueError(f"{where}: is cut off after {len(data):,} of {piece.size:,} bytes")
            yield row, where, data
    finally:
        if file:
            file.close()
