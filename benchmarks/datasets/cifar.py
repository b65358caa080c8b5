"""CIFAR-10 and CIFAR-100 (the python version): a .tar.gz of pickles, read without executing them."""

import io
import math
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import IO, TypeGuard, cast

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.dataset import RawDataset, Sources

MEMBER_LIMIT = 512 << 20  # bytes; the largest, CIFAR-100's `train`, has 155 MB


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """A CIFAR archive in the official order (data_batch_1 .. 5, then test).

    `dataset.options`: folder in the archive, members of each split, key of the labels, member and key of the classes.
    """
    (path,) = sources.files
    options = dataset.options
    wanted = [name for names in options["members"].values() for name in names] + [options["meta"]]
    batches = _load(path, options["folder"], wanted)
    classes = batches[options["meta"]].get(options["classes"])
    if not _are_names(classes) or not classes:
        raise ValueError(f"{path}: {options['meta']}: `{options['classes']}` is not a list of printable names")
    arrays, labels, names, splits = [], [], list[str](), {}
    for split, members in options["members"].items():
        before = len(names)
        for member in members:
            data, targets = _batch(path, member, batches[member], options["labels"], len(classes))
            arrays.append(data)
            labels.append(targets)
            names += _names(member, batches[member].get("filenames"), len(targets))
        splits[split] = len(names) - before
    pixels = np.concatenate(arrays)

    def images(rows):
        for row in rows:
            yield int(row), f"{path.name}, image {row}", pixels[row].transpose(1, 2, 0)  # C x H x W -> H x W x C

    return RawDataset(splits, np.concatenate(labels), classes, images, names)


def _load(path: Path, folder: str, wanted: list[str]) -> dict[str, dict]:
    """{member: unpickled dict}; members are read by their exact names, never extracted."""
    found: dict[str, dict] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for entry in tar:
                parent, _, name = entry.name.removeprefix("./").rpartition("/")
                if entry.isreg() and parent == folder and name in wanted:
                    if entry.size > MEMBER_LIMIT:
                        raise ValueError(f"{path}: {entry.name} claims {entry.size:,} bytes; refused")
                    if name in found:
                        raise ValueError(f"{path}: holds {folder}/{name} twice")
                    found[name] = load_pickle(cast(IO[bytes], tar.extractfile(entry)).read(), f"{path}: {entry.name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path}: is not a valid .tar.gz archive: {error}") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{path}: lacks {folder}/{missing[0]}: is it the python version of the data set?")
    return found


def _batch(path: Path, name: str, batch: dict, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 N x 3 x 32 x 32, int64 N) of one pickle, checked."""
    data = getattr(batch.get("data"), "pixels", None)
    labels = batch.get(key)
    if data is None or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{path}: {name}: `data` is not an array of N x 3072 bytes")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(type(i) is int for i in labels):
        raise ValueError(f"{path}: {name}: `{key}` is not a list of {len(data)} integers")
    if labels and not 0 <= min(labels) <= max(labels) < classes:
        raise ValueError(f"{path}: {name}: `{key}` has values beyond the {classes} classes")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _names(member: str, filenames: object, count: int) -> list[str]:
    """The file names in the pickle, or member[i] if it has none."""
    if _are_names(filenames) and len(filenames) == count:
        return filenames
    return [f"{member}[{i}]" for i in range(count)]


def _are_names(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) and name.isprintable() for name in value)


class _Bytes:
    """Stands for a pickled numpy array of bytes; `pixels` is the array. numpy itself never sees pickled state."""

    def __setstate__(self, state) -> None:
        _, shape, dtype, fortran, raw = state
        shape = [int(length) for length in shape]
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _DType) or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError("an array that is not of plain bytes")
        self.pixels = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


class _DType:
    """Stands for the dtype of bytes."""

    def __init__(self, code, *flags) -> None:
        if code not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"an array of {code!r} where bytes are expected")

    def __setstate__(self, state) -> None:
        """Byte order and alignment, which bytes do not have."""


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: _Bytes(),  # numpy 1, the official files
    ("numpy._core.multiarray", "_reconstruct"): lambda kind, shape, code: _Bytes(),  # numpy 2
    ("numpy", "ndarray"): "ndarray",  # only named, as the first argument of _reconstruct; calling it fails
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): lambda text, *encoding: text.encode("latin1"),  # bytes of Python 3, in protocol 2
}


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, text and arrays of bytes; anything else that a pickle names is refused."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def load_pickle(data: bytes, name: str) -> dict:
    """The dict in a CIFAR pickle, its arrays as objects with `pixels`. Raises ValueError naming the member if it is
    something else."""
    try:
        # latin1: the official files are from Python 2 and store pixels as byte strings
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a pickle can fail in any way
        raise ValueError(f"{name}: refused: not a pickle as CIFAR's are ({error})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{name}: refused: not a pickled dict")
    return loaded
