"""Tiny-ImageNet: the training images of tiny-imagenet-200.zip, read without extraction."""

import re
import zipfile
import zlib
from pathlib import Path

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.dataset import RawDataset, Sources, hash_order, labels_by_folder, refuse_duplicates
from benchmarks.datasets.pixels import MAX_BYTES

MEMBER = re.compile(r"tiny-imagenet-200/train/((n\d{8})/images/[^/]+\.JPEG)")
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # the last: encrypted
WORDS = "tiny-imagenet-200/words.txt"


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """The zip's train/WNID/images/*.JPEG, in the order of the hashes of their names.

    Classes are the synsets in alphabetical order, named by words.txt if it exists. Other members are ignored.
    """
    (path,) = sources.files
    try:
        archive = zipfile.ZipFile(path)  # stays open: rereading its list of 120,000 members takes a second
        matches = [(match[1], info) for info in archive.infolist() if (match := MEMBER.fullmatch(info.filename))]
        words = _words(archive)
    except (*BROKEN, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not a valid zip archive: {error}") from error
    members = dict(matches)
    refuse_duplicates(path, [info.filename for _, info in matches])
    if not members:
        raise ValueError(f"{path}: holds no tiny-imagenet-200/train/WNID/images/*.JPEG")
    names = hash_order(list(members))
    synsets = sorted({name.partition("/")[0] for name in names})
    return RawDataset(
        {"train": len(names)},
        labels_by_folder(names, synsets),
        [words.get(synset, synset) for synset in synsets],
        lambda rows: _images(path, archive, [(int(row), members[names[row]]) for row in rows]),
        names,
    )


def _images(path: Path, archive: zipfile.ZipFile, wanted: list[tuple[int, zipfile.ZipInfo]]):
    """Images in the order of the archive, which is disk order."""
    for row, info in sorted(wanted, key=lambda pair: pair[1].header_offset):
        name = f"{path.name}: {info.filename}"
        if info.file_size > MAX_BYTES:
            raise ValueError(f"{name}: refused as a decompression bomb: it unpacks to {info.file_size:,} bytes")
        try:
            yield row, name, archive.read(info)
        except BROKEN as error:
            raise ValueError(f"{name}: cannot be unpacked: {error}") from error


def _words(archive: zipfile.ZipFile) -> dict[str, str]:
    """{synset: its first word}, empty if the archive lacks the list."""
    if WORDS not in archive.namelist() or archive.getinfo(WORDS).file_size > MAX_BYTES:
        return {}
    lines = (line.partition("\t") for line in archive.read(WORDS).decode("utf-8", "replace").splitlines())
    return {synset: text.partition(",")[0].strip() for synset, _, text in lines if text}
