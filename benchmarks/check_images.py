"""Checks of the folders, sources and numbers of images of a study before its first run. No torch.

Every error is a ValueError that names the key.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.datasets.catalog import IMAGES_PER_CLASS, archives_of, is_published
from benchmarks.datasets.dataset import Sources, subset_rows
from benchmarks.datasets.folder import read as read_folder
from benchmarks.state import Survey
from benchmarks.study import Study
from scl.util.text import expanded


def check_images(study: Study, survey: Survey) -> None:
    """Check the folders, and the sources and numbers of images of all benchmarks that are to be prepared."""
    for key in ("results", "data"):
        place = existing(getattr(study, key))
        if not place.is_dir():
            raise ValueError(f"{key}: {place} is a file; name a folder")
        if key == "results" and not os.access(place, os.W_OK):
            raise ValueError(f"{key}: no permission to write in {place}; name another folder")
    names = survey.unprepared()
    for problem in missing_sources(study, names):
        raise ValueError(problem)
    for name in names:
        _check_counts(study, name)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def archive_folders(study: Study) -> list[Path]:
    """Where archives are searched before they are downloaded."""
    folder = study.downloads.archives
    return [study.data / "archives", *([expanded(folder)] if folder else [])]


def missing_sources(study: Study, names: list[str]) -> Iterator[str]:
    """Yield `key: problem` for files and folders of the configuration that these benchmarks are prepared from."""
    downloads, source = study.downloads, study.downloads.imagenet
    datasets = {name: study.dataset(name) for name in names}
    folders = {f"benchmarks.{name}.path": study.benchmarks[name].path for name in datasets}
    if any(archives_of(dataset, downloads) for dataset in datasets.values()):
        folders["downloads.archives"] = downloads.archives
    if any(dataset.imagenet for dataset in datasets.values()):
        folders["downloads.imagenet.folder"] = source.folder
        if source.tar and not source.remote and not expanded(source.tar).is_file():
            yield f"downloads.imagenet.tar: {source.tar} is not a file"
    for key, folder in folders.items():
        path = expanded(folder or ".")
        if not path.is_dir() and not (path.is_file() and path.suffix == ".npy" and key.endswith(".path")):
            yield f"{key}: {folder} is not a folder"


def published_counts(study: Study, name: str) -> dict[str, int] | None:
    """Images of each split of a benchmark before it is prepared; None if its source is not the published one."""
    block, dataset = study.benchmarks[name], study.dataset(name)
    if not is_published(dataset, study.downloads):
        return None
    if dataset.imagenet and study.downloads.imagenet.images_per_class != IMAGES_PER_CLASS:
        return None
    counts = dict(dataset.counts)
    if block.path:  # the data set `folder`
        path = expanded(block.path)
        try:
            counts = read_folder(dataset, Sources((), path, study.data / "archives", study.downloads)).splits
        except (ValueError, OSError) as error:
            raise ValueError(f"benchmarks.{name}.path: {error}") from None
    if block.subset:
        try:
            counts = {split: len(rows) for split, rows in subset_rows(counts, block.subset).items()}
        except ValueError as error:
            raise ValueError(f"benchmarks.{name}.{error}") from None
    return counts


def _check_counts(study: Study, name: str) -> None:
    """Enough images for the subset, and for the clusters of every protocol."""
    block, dataset = study.benchmarks[name], study.dataset(name)
    counts = published_counts(study, name)
    if counts is None:
        return  # the counts of another source
    for protocol in study.protocols_of(name):
        images = sum(counts[split] for split in dataset.protocols[protocol]["fit"])
        if (block.clusters or dataset.clusters) > images:
            raise ValueError(
                f"benchmarks.{name}.clusters: {block.clusters or dataset.clusters} clusters cannot be found in the "
                f"{images} images that protocol '{protocol}' clusters"
            )
