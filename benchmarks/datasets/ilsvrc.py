"""ImageNet-10 and ImageNet-Dogs: a few synsets of ILSVRC-2012's training images, from a tar, a URL or a folder.

ILSVRC2012_img_train.tar (138 GB) is an uncompressed tar of 1,000 such tars, so a synset is a byte range of it. A local
file is read by seeking, a URL by range requests (about 140 MB per synset, kept in a folder of <archives>/ for both
subsets).
"""

import re
from pathlib import Path
from typing import Any, cast

from benchmarks.datasets.catalog import IMAGES_PER_CLASS, Dataset, missing_source
from benchmarks.datasets.connection import plain
from benchmarks.datasets.dataset import RawDataset, Sources, labels_by_folder, refuse_duplicates
from benchmarks.datasets.remote_tar import cache_folder, cached_folders, download_range, members, no_synsets
from benchmarks.datasets.slices import FileSlice, in_hash_order, slice_images, tar_slices, whole_file
from scl.util.text import expanded, say

# (images of each synset, sources for benchmark.json, the file or folder for messages)
Found = tuple[dict[str, list[FileSlice]], list[dict], Path]


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """The synsets `dataset.options["synsets"]` ({WNID: name}), in the order of the hashes of the image names.

    Raises ValueError unless each has exactly `images_per_class` images, with a guess at what data set it is instead.
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
    found, records, where = find(sources, list(synsets))
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
    tar = cast(str, sources.downloads.imagenet.tar)
    asked: dict[str, Any] = {"timeout": sources.downloads.timeout, "header": sources.downloads.imagenet.header}
    try:
        cache = cache_folder(tar, sources.cache, **asked)
    except ValueError as error:
        complete = [folder for folder in cached_folders(tar, sources.cache) if not _missing(folder, synsets)]
        if len(complete) != 1:
            raise
        cache = complete[0]
        say(f"{error}. All synsets are in {cache}, which is used")
    missing = _missing(cache, synsets)
    if missing:
        offered = members(tar, cache / "index.json", **asked)
        _refuse_missing(plain(tar), synsets, {name.removesuffix(".tar") for name in offered})
        for synset in missing:
            download_range(tar, cache / f"{synset}.tar", *offered[f"{synset}.tar"], **asked)
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
    if not missing:
        return
    text = f"{where}: lacks {len(missing)} of the {len(synsets)} synsets, such as {missing[0]}"
    if any(re.match(r"n\d{8}-", name) for name in offered) or {"Images", "Annotation"} & offered:
        text += ". This is the Stanford Dogs data set, whose images are not those of ILSVRC-2012"
    elif not any(re.fullmatch(r"n\d{8}", name) for name in offered):
        text += ". It holds no synsets (names such as n02085936) at all"
    raise ValueError(
        text + ". Needed are the training images of ILSVRC-2012: ILSVRC2012_img_train.tar from image-net.org, or what "
        "it unpacks to"
    )


def _check(where: str, synset: str, files: list[str], expected: int) -> None:
    """Refuse a synset that differs from ILSVRC-2012's, with a guess at what it is. where: for the message."""
    strange = [name for name in files if not re.fullmatch(rf"{synset}_\d+\.JPEG", name)]
    if len(files) == expected and not strange:
        return
    if strange:
        text = f"{where} holds files with names that ILSVRC-2012 does not have, such as {strange[0]!r}"
    else:
        text = f"{where} has {len(files):,} images where {expected:,} are expected"
    raise ValueError(
        f"{text}. {_guess(synset, len(files), strange)} Only ILSVRC-2012's training images (1,300 in each of "
        "these synsets) make the benchmark that the literature reports: 13,000 images for ImageNet-10, "
        "19,500 for ImageNet-Dogs"
    )


def _guess(synset: str, count: int, strange: list[str]) -> str:
    is_dog = "n02085620" <= synset <= "n02116738"
    if any(name.startswith("ILSVRC2012_val") for name in strange):
        return "Validation images are among them."
    if is_dog and any(re.fullmatch(r"n\d{8}_\d+\.jpg", name) for name in strange):
        return "This looks like Stanford Dogs (148 to 252 images per breed, .jpg), which is another data set."
    if is_dog and not strange and 148 <= count <= 252:
        return "Perhaps this is Stanford Dogs (148 to 252 images per breed), which is another data set."
    if count == 500:
        return "500 per class is Tiny-ImageNet's count."
    if count == 50:
        return "50 per class is the count of ILSVRC-2012's validation images."
    if count > IMAGES_PER_CLASS:
        return "Per-synset archives of the full ImageNet hold more images than ILSVRC-2012's, and different ones."
    return "It is probably an incomplete copy, or a different upload of this name."
