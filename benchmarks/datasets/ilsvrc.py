"""ImageNet-10 and ImageNet-Dogs: a few synsets of ILSVRC-2012's training images, from a tar, a URL or a folder.

ILSVRC2012_img_train.tar (138 GB) is an uncompressed tar of 1,000 such tars, so a synset is a byte range of it. A local
file is read by seeking, a URL by range requests (about 140 MB per synset, kept in a folder in <archives>/ shared by
both subsets).
"""

import re
from pathlib import Path
from typing import Any, cast

from benchmarks.datasets.catalog import IMAGES_PER_CLASS, Dataset, missing_source
from benchmarks.datasets.connection import TransferError, plain
from benchmarks.datasets.dataset import RawDataset, Sources, labels_by_folder, refuse_duplicates
from benchmarks.datasets.remote_tar import cache_folder, cached_folders, download_member, members, no_synsets
from benchmarks.datasets.slices import FileSlice, in_hash_order, slice_images, tar_slices, whole_file
from scl.engine.locks import locked
from scl.util.text import expanded, say

# (images of each synset, sources for benchmark.json, the file or folder for messages)
Found = tuple[dict[str, list[FileSlice]], list[dict], Path]


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """The synsets `dataset.options["synsets"]` ({WNID: name}), in the order of the hashes of the image names.

    Raises ValueError unless each has exactly `images_per_class` images, with names as in ILSVRC-2012.
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
    try:
        found, records, where = find(sources, list(synsets))
    except TransferError as error:
        raise ValueError(
            f"{plain(source.tar or '')}: {error}. Check downloads.imagenet (tar, header), or download the whole tar "
            "and set downloads.imagenet.tar to its path; what was downloaded is kept"
        ) from error
    for synset, images in found.items():
        files = [image.name.partition("/")[2] for image in images]
        _check(f"{dataset.title}: {where}: {synset}", synset, files, source.images_per_class)
    slices = in_hash_order([image for synset in synsets for image in found[synset]])
    names = [image.name for image in slices]
    return RawDataset(
        {"train": len(slices)},
        labels_by_folder(names, synsets),
        list(synsets.values()),
        lambda rows: slice_images(slices, rows),
        names,
        sources=records,
        official=source.images_per_class == IMAGES_PER_CLASS,
    )


def _in_tar(sources: Sources, synsets: list[str]) -> Found:
    path = expanded(cast(str, sources.downloads.imagenet.tar))
    if not path.is_file():
        raise ValueError(f"downloads.imagenet.tar: {path} is not a file")
    inside = tar_slices(path)
    tars = [member for member in inside if member.name.endswith(".tar")]
    if inside and not tars:
        raise ValueError(no_synsets(path, inside[0].name))
    refuse_duplicates(path, [tar.name for tar in tars])
    inner = {tar.name.removesuffix(".tar"): tar for tar in tars}
    _refuse_missing(str(path), synsets, set(inner))
    found = {}
    for synset in synsets:
        _, _, start, size = inner[synset]
        found[synset] = tar_slices(path, start=start, size=size, prefix=f"{synset}/", where=f"{path}: {synset}.tar")
    return found, [{"file": path.name, "bytes": path.stat().st_size, "url": None}], path


def _at_url(sources: Sources, synsets: list[str]) -> Found:
    source = sources.downloads.imagenet
    tar = cast(str, source.tar)
    asked: dict[str, Any] = {"timeout": sources.downloads.timeout, "header": source.header}
    try:
        cache = cache_folder(tar, sources.cache, **asked)
    except (TransferError, ValueError) as error:  # ValueError: a variable of the header is not set
        complete = [folder for folder in cached_folders(tar, sources.cache) if not _missing(folder, synsets)]
        if len(complete) != 1:
            raise
        cache = complete[0]
        say(f"{plain(tar)}: {error}. All synsets are in {cache}, which is used")
    if missing := _missing(cache, synsets):
        with locked(cache / ".lock", cache):
            offered = members(tar, cache, **asked)
            _refuse_missing(plain(tar), synsets, {name.removesuffix(".tar") for name in offered})
            for synset in missing:
                download_member(tar, cache / f"{synset}.tar", offered[f"{synset}.tar"], **asked)
    paths = {synset: cache / f"{synset}.tar" for synset in synsets}
    found = {synset: tar_slices(path, prefix=f"{synset}/") for synset, path in paths.items()}
    return found, [{"file": p.name, "bytes": p.stat().st_size, "url": plain(tar)} for p in paths.values()], cache


def _missing(cache: Path, synsets: list[str]) -> list[str]:
    return [synset for synset in synsets if not (cache / f"{synset}.tar").exists()]


def _in_folder(sources: Sources, synsets: list[str]) -> Found:
    """From an extracted train/WNID/*.JPEG (or the folder `train` itself)."""
    root = expanded(cast(str, sources.downloads.imagenet.folder))
    if not root.is_dir():
        raise ValueError(f"downloads.imagenet.folder: {root} is not a folder")
    train = root / "train" if (root / "train").is_dir() else root
    _refuse_missing(str(train), synsets, {path.name for path in train.iterdir() if path.is_dir()})
    found = {
        synset: [
            whole_file(f"{synset}/{path.name}", path)
            for path in sorted((train / synset).iterdir())
            if not path.is_dir() and path.name[0] != "."
        ]
        for synset in synsets
    }
    size = sum(image.size for images in found.values() for image in images)
    return found, [{"file": "train/", "bytes": size, "url": None}], train


def _refuse_missing(where: str, synsets: list[str], offered: set[str]) -> None:
    missing = [synset for synset in synsets if synset not in offered]
    if missing:
        raise ValueError(
            f"{where}: lacks {len(missing)} of the {len(synsets)} synsets, such as {missing[0]}. Needed are the "
            "training images of ILSVRC-2012: ILSVRC2012_img_train.tar from image-net.org, or what it unpacks to. "
            "(Stanford Dogs, with folders such as n02085936-Maltese_dog, is another data set.)"
        )


def _check(where: str, synset: str, files: list[str], expected: int) -> None:
    """Refuse a synset that differs from ILSVRC-2012's. where: for the message."""
    strange = [name for name in files if not re.fullmatch(rf"{synset}_\d+\.JPEG", name)]
    if strange:
        problem = f"holds files with names that ILSVRC-2012 does not have, such as {strange[0]!r}"
    elif len(files) != expected:
        problem = f"has {len(files):,} images where {expected:,} are expected"
    else:
        return
    raise ValueError(
        f"{where} {problem}. Only ILSVRC-2012's training images (1,300 in each of these synsets) make the benchmark "
        "that the literature reports: 13,000 images for ImageNet-10, 19,500 for ImageNet-Dogs. Others are Stanford "
        "Dogs (148 to 252 images per breed, .jpg), Tiny-ImageNet (500 per class), ILSVRC-2012's validation images "
        "(50), and the per-synset archives of the full ImageNet (more)"
    )
