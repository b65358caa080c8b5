"""Images into one .npy file: several processes, bounded memory, plain writes.

Rows are written with pwrite rather than through a memory map: a full disk is then an error with a message
instead of a SIGBUS, and the pages written do not count as memory of the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.datasets.pixels import from_array, from_bytes
from benchmarks.datasets.progress import progress
from scl.engine.provenance import cores

BATCH_BYTES = 4 << 20
BATCH_IMAGES = 256
FEW = 2_000  # images for which starting processes costs more than it saves


def write_images(
    path: Path,
    images: Iterator,
    *,
    count: int,
    size: int,
    workers: int | None = None,
    upright: bool = False,
    label: str = "images",
    unreadable: dict[int, str] | None = None,
) -> None:
    """Fill `path` with a .npy of uint8 count x size x size x 3.

    images: (row, name, encoded bytes or uint8 H x W x 3), each row exactly once, in any order; they are
    resized if need be. workers: processes (default: one a core, at most 8; none for a few images). An image
    that cannot be read is a ValueError with its name; with `unreadable`, its row is left black and {row: message} is
    added there. Memory: at most 2 batches of 4 MiB (or one image) a worker are under way.
    """
    if workers is None:
        workers = 1 if count <= FEW else min(8, cores())
    offset = _create(path, (count, size, size, 3))
    bar = progress(label, count, unit="images")
    seen = np.zeros(count, dtype=bool)
    target = (str(path), offset, size, upright, unreadable is not None)
    written = _by_processes(images, target, workers) if workers > 1 else _by_one(images, target)
    for rows, failed in written:
        if unreadable is not None:
            unreadable |= failed
        assert not seen[rows].any() and len(set(rows)) == len(rows), "a row came twice"
        seen[rows] = True
        bar.update(len(rows))
    bar.close()
    assert seen.all(), f"{(~seen).sum()} rows never came"


def _create(path: Path, shape: tuple[int, ...]) -> int:
    """The header and the space (a disk too small is found out now); the offset of row 0."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        offset = file.tell()
        file.flush()
        stop = offset + int(np.prod(shape, dtype=np.int64))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, stop)
        else:
            file.truncate(stop)
    return offset


def _batches(images: Iterator) -> Iterator[list]:
    batch, held = [], 0
    for row, name, data in images:
        batch.append((row, name, data))
        held += len(data) if isinstance(data, bytes) else data.nbytes
        if held >= BATCH_BYTES or len(batch) >= BATCH_IMAGES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _by_one(images, target) -> Iterator[tuple[list[int], dict[int, str]]]:
    path, *rest = target
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for batch in _batches(images):
            yield _write(batch, descriptor, *rest)
    finally:
        os.close(descriptor)


def _by_processes(images, target, workers) -> Iterator[tuple[list[int], dict[int, str]]]:
    """As `_by_one`, with the work on pixels done by `workers` processes; arrays of the right size stay here."""
    size = target[2]
    batches = _batches(images)
    first = next(batches, [])
    if all(not isinstance(data, bytes) and data.shape == (size, size, 3) for _, _, data in first):
        yield from _by_one(chain(first, chain.from_iterable(batches)), target)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, target)
    try:
        running = set[Future]()
        for batch in chain([first], batches):
            if len(running) >= 2 * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            running.add(pool.submit(_work, batch))
        yield from (future.result() for future in running)
    except BrokenProcessPool as error:
        raise ValueError(
            "a process that resizes images died, most likely for want of memory; the same command with "
            "more memory (or fewer processes) begins this benchmark again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write(batch, descriptor, offset, size, upright, skip) -> tuple[list[int], dict[int, str]]:
    """(rows, {row: message} of those that cannot be read). skip: leave these black rather than raise ValueError."""
    failed = {}
    for row, name, data in batch:
        try:
            pixels = _pixels(data, size, name, upright)
        except ValueError as error:
            if not skip:
                raise
            failed[row] = str(error)
            continue
        piece = np.ascontiguousarray(pixels).data.cast("B")
        place = offset + row * piece.nbytes
        while piece.nbytes:  # a write may be short on the last free blocks of a disk
            wrote = os.pwrite(descriptor, piece, place)
            piece, place = piece[wrote:], place + wrote
    return [row for row, _, _ in batch], failed


def _pixels(data: bytes | np.ndarray, size: int, name: str, upright: bool) -> np.ndarray:
    """uint8 size x size x 3"""
    if isinstance(data, bytes):
        return from_bytes(data, size, name=name, upright=upright)
    return data if data.shape == (size, size, 3) else from_array(data, size)


_target: tuple[int, int, int, bool, bool]  # of a worker process: (descriptor, offset, size, upright, skip)


def _start(path, *rest) -> None:
    """A worker opens the file, and ends when its parent does (the pool's own workers would wait for ever)."""
    global _target
    _target = (os.open(path, os.O_WRONLY), *rest)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    connection.wait([cast(BaseProcess, parent_process()).sentinel])
    os._exit(1)


def _work(batch) -> tuple[list[int], dict[int, str]]:
    return _write(batch, *_target)
