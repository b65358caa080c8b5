"""ImageNet-10 and ImageNet-Dogs: a few synsets out of ILSVRC-2012's training images, however these are at
hand.

ILSVRC2012_img_train.tar (138 GB) is a plain tar of 1,000 plain tars, so a synset is a stretch of it: a local
file is read by seeking, a URL by range requests (about 140 MB a synset, kept in <archives>/ilsvrc/ and shared
by both subsets).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from benchmarks.datasets.catalog import Dataset, missing_source
from benchmarks.datasets.connection import plain
from benchmarks.datasets.contents import Contents, Sources, refuse_twice
from benchmarks.datasets.pieces import file_piece, in_hash_order, piece_images, tar_pieces
from benchmarks.datasets.remote_tar import members, stretch

PER_CLASS = 1_300


def read(dataset: Dataset, sources: Sources) -> Contents:
    """Contents of the synsets `dataset.options["synsets"]` ({WNID: name}), in the order of the hashes of
    their names.

    Exactly `images_per_class` images a synset are demanded; the message says what other data set it may be.
    """
    reason = missing_source(dataset, sources.downloads)
    if reason:
        raise ValueError(
            f"{dataset.title}: {reason}. Get the training images of ILSVRC-2012 from image-net.org and "
            "set downloads.imagenet.tar (a path, or the URL) or downloads.imagenet.folder"
        )
    synsets = dataset.options["synsets"]
    source = sources.downloads.imagenet
    find = _in_folder if source.folder else _at_url if source.remote else _in_tar
    found, records = find(sources, list(synsets))
    for synset, pieces in found.items():
        _check(dataset.title, synset, [piece.name.partition("/")[2] for piece in pieces], source.images_per_class)
    pieces = in_hash_order([piece for synset in synsets for piece in found[synset]])
    index = {synset: label for label, synset in enumerate(synsets)}
    labels = np.asarray([index[piece.name.partition("/")[0]] for piece in pieces], dtype=np.int64)
    return Contents(
        {"train": len(pieces)},
        labels,
        list(synsets.values()),
        lambda rows: piece_images(pieces, rows),
        sources=records,
        official=source.images_per_class == PER_CLASS,
    )


def _in_tar(sources: Sources, synsets: list[str]):
    """From a local tar, by seeking."""
    path = Path(cast(str, sources.downloads.imagenet.tar)).expanduser()
    if not path.is_file():
        raise ValueError(f"downloads.imagenet.tar: {path} is no file")
    found = {}
    with open(path, "rb") as file:
        outer_pieces = tar_pieces(file, path)
        refuse_twice(path, [piece.name for piece in outer_pieces if piece.name.endswith(".tar")])
        inner = {piece.name: piece for piece in outer_pieces}
        _refuse_missing(str(path), synsets, {name.removesuffix(".tar") for name in inner})
        for synset in synsets:
            outer = inner[f"{synset}.tar"]
            found[synset] = tar_pieces(
                cast(BinaryIO, _Window(file, outer.offset, outer.size)),
                path,
                base=outer.offset,
                prefix=f"{synset}/",
                where=f"{path}: {synset}.tar",
            )
    return found, [{"file": path.name, "bytes": path.stat().st_size, "url": None}]


def _at_url(sources: Sources, synsets: list[str]):
    """From a URL, by range requests; a synset once fetched is kept."""
    tar = cast(str, sources.downloads.imagenet.tar)
    cache = sources.cache / "ilsvrc"
    asked: dict[str, Any] = {"timeout": sources.downloads.timeout, "header": sources.downloads.imagenet.header}
    missing = [synset for synset in synsets if not (cache / f"{synset}.tar").exists()]
    if missing:
        offered = members(tar, cache / "index.json", **asked)
        _refuse_missing(plain(tar), synsets, {name.removesuffix(".tar") for name in offered})
        for synset in missing:
            stretch(tar, cache / f"{synset}.tar", *offered[f"{synset}.tar"], **asked)
    found, records = {}, []
    for synset in synsets:
        path = cache / f"{synset}.tar"
        with open(path, "rb") as file:
            found[synset] = tar_pieces(file, path, prefix=f"{synset}/")
        records.append({"file": path.name, "bytes": path.stat().st_size, "url": plain(tar)})
    return found, records


def _in_folder(sources: Sources, synsets: list[str]):
    """From an extracted train/WNID/*.JPEG (or the folder `train` itself)."""
    root = Path(cast(str, sources.downloads.imagenet.folder)).expanduser()
    if not root.is_dir():
        raise ValueError(f"downloads.imagenet.folder: {root} is no folder")
    train = root / "train" if (root / "train").is_dir() else root
    _refuse_missing(str(train), synsets, {path.name for path in train.iterdir() if path.is_dir()})
    found = {
        synset: [
            file_piece(f"{synset}/{path.name}", path)
            for path in sorted((train / synset).iterdir())
            if not path.is_dir() and path.name[0] != "."
        ]
        for synset in synsets
    }
    size = sum(piece.size for pieces in found.values() for piece in pieces)
    return found, [{"file": "train/", "bytes": size, "url": None}]


def _refuse_missing(where: str, synsets: list[str], offered: set[str]) -> None:
    missing = [synset for synset in synsets if synset not in offered]
    if not missing:
        return
    text = f"{where}: lacks {len(missing)} of the {len(synsets)} synsets, such as {missing[0]}"
    if any(re.match(r"n\d{8}-", name) for name in offered) or {"Images", "Annotation"} & offered:
        text += ". This is the Stanford Dogs data set, whose images are others than ILSVRC-2012's"
    elif not any(re.fullmatch(r"n\d{8}", name) for name in offered):
        text += ". It holds no synsets (names such as n02085936) at all"
    raise ValueError(
        text + ". Wanted are the training images of ILSVRC-2012 (ILSVRC2012_img_train.tar from "
        "image-net.org, or what it unpacks to)"
    )


def _check(title: str, synset: str, files: list[str], expected: int) -> None:
    """Refuse a synset that is not ILSVRC-2012's, with a guess at what it is."""
    strange = [name for name in files if not re.fullmatch(rf"{synset}_\d+\.JPEG", name)]
    if len(files) == expected and not strange:
        return
    if strange:
        text = f"{title}: {synset} holds files that ILSVRC-2012 does not name so, such as {strange[0]!r}"
    else:
        text = f"{title}: {synset} has {len(files):,} images where {expected:,} are expected"
    raise ValueError(
        f"{text}. {_guess(len(files), strange)} Only ILSVRC-2012's training images (1,300 in each of "
        "these synsets) make the benchmark that the literature reports: 13,000 images for ImageNet-10, "
        "19,500 for ImageNet-Dogs"
    )


def _guess(count: int, strange: list[str]) -> str:
    if any(name.startswith("ILSVRC2012_val") for name in strange):
        return "Validation images are among them."
    if any(re.fullmatch(r"n\d{8}_\d+\.jpg", name) for name in strange) or 148 <= count <= 252:
        return "This looks like Stanford Dogs (148 to 252 images a breed, .jpg), which is another data set."
    if count == 500:
        return "500 a class is Tiny-ImageNet's count."
    if count == 50:
        return "50 a class is the count of ILSVRC-2012's validation images."
    if count > PER_CLASS:
        return "Per-synset archives of the full ImageNet hold more images than ILSVRC-2012's, and others."
    return "A copy cut short, or another upload of this name, is likely."


class _Window:
    """A stretch of an open file as a file of its own: what tarfile needs of one."""

    def __init__(self, file, start: int, size: int) -> None:
        self.file, self.start, self.size, self.place = file, start, size, 0

    def seek(self, place: int) -> int:
        self.place = place
        return place

    def tell(self) -> int:
        return self.place

    def read(self, count: int) -> bytes:
        self.file.seek(self.start + self.place)
        data = self.file.read(max(0, min(count, self.size - self.place)))
        self.place += len(data)
        return data
