"""CIFAR-10 and CIFAR-100 (the python version): a .tar.gz of pickles, read without running what is in them."""

from __future__ import annotations

import io
import math
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.contents import Contents, Sources

MEMBER_LIMIT = 512 << 20  # bytes; the largest, CIFAR-100's `train`, has 155 MB


def read(dataset: Dataset, sources: Sources) -> Contents:
    """Contents of a CIFAR archive, in the official order (data_batch_1 .. 5, then test).

    `dataset.options`: folder in the archive, members of each split, key of the labels, member and key of the
    names.
    """
    (path,) = sources.files
    options = dataset.options
    members = {split: options[split] for split in dataset.counts}
    wanted = [name for names in members.values() for name in names] + [options["meta"]]
    batches = _load(path, options["folder"], wanted)
    classes = _strings(path, options["meta"], batches[options["meta"]], options["names"])
    arrays, labels, splits = [], [], {}
    for split, names in members.items():
        parts = [_batch(path, name, batches[name], options["labels"], len(classes)) for name in names]
        arrays += [part[0] for part in parts]
        labels += [part[1] for part in parts]
        splits[split] = sum(len(part[1]) for part in parts)
    pixels = np.concatenate(arrays)

    def images(rows):
        for row in rows:
            yield (int(row), f"{path.name}, image {row}", pixels[row].transpose(1, 2, 0))  # C x H x W -> H x W x C

    return Contents(splits, np.concatenate(labels), classes, images)


def _load(path: Path, folder: str, wanted: list[str]) -> dict[str, dict]:
    """{member: unpickled dict}; members are read in place, by their exact names, never extracted."""
    found = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./").removeprefix(f"{folder}/")
                if entry.isreg() and name in wanted and entry.name.removeprefix("./") == f"{folder}/{name}":
                    if entry.size > MEMBER_LIMIT:
                        raise ValueError(f"{path}: {entry.name} claims {entry.size:,} bytes; refused")
                    if name in found:
                        raise ValueError(f"{path}: holds {folder}/{name} twice")
                    found[name] = load_pickle(cast(IO[bytes], tar.extractfile(entry)).read(), f"{path}: {entry.name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path}: is no sound .tar.gz archive: {error}") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{path}: lacks {folder}/{missing[0]}: is it the python version of the data set?")
    return found


def _batch(path, name, batch, key, classes) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 N x 3 x 32 x 32, int64 N) of one pickle, checked."""
    data = getattr(batch.get("data"), "pixels", None)
    labels = batch.get(key)
    if data is None or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{path}: {name}: `data` is no array of N x 3072 bytes")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(type(i) is int for i in labels):
        raise ValueError(f"{path}: {name}: `{key}` is no list of {len(data)} integers")
    if labels and not 0 <= min(labels) <= max(labels) < classes:
        raise ValueError(f"{path}: {name}: `{key}` goes beyond the {classes} classes")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _strings(path, name, meta, key) -> list[str]:
    names = meta.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(text, str) for text in names):
        raise ValueError(f"{path}: {name}: `{key}` is no list of names")
    return names


class _Bytes:
    """What stands for a pickled numpy array of bytes; `pixels` is the array. numpy itself sees no pickled
    state."""

    def __setstate__(self, state) -> None:
        _, shape, dtype, fortran, raw = state
        shape = [int(length) for length in shape]
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _DType) or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError("an array that is not of plain bytes")
        self.pixels = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


class _DType:
    def __setstate__(self, state) -> None:
        """Byte order and alignment, of which one byte has none."""


class _NDArray:
    """A name that the pickles mention and nothing calls."""

    def __new__(cls, *arguments):
        raise pickle.UnpicklingError("numpy.ndarray is not to be called")


def _reconstruct(kind, shape, code):
    if kind is not _NDArray:
        raise pickle.UnpicklingError("an array of an unknown kind")
    return _Bytes()


def _dtype(code, *flags):
    if code not in ("u1", "|u1"):
        raise pickle.UnpicklingError(f"an array of {code!r} where bytes are expected")
    return _DType()


def _encode(text, encoding="latin1"):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r} where bytes are expected")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # numpy 1, the official files
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # numpy 2
    ("numpy", "ndarray"): _NDArray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,  # bytes, as Python 3 writes them in protocol 2
}


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, text and arrays of bytes; whatever else a pickle names is refused."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def load_pickle(data: bytes, name: str) -> dict:
    """The dict in a CIFAR pickle, its arrays as objects with `pixels`; ValueError naming the member if it is
    not one."""
    try:
        # latin1: the official files are Python 2's, whose byte strings carry the pixels
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a pickle can fail in any way
        raise ValueError(f"{name}: refused: not a pickle as CIFAR's are ({error})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{name}: refused: no dict in this pickle")
    return loaded
