"""Whether a study can run as it says: the classes of its methods, options, networks, augmentations, and its images."""

import json
import os
from pathlib import Path

from benchmarks import rules
from benchmarks.datasets.catalog import archives_of
from benchmarks.datasets.dataset import Sources, subset_rows
from benchmarks.datasets.folder import read as read_folder
from benchmarks.study import Study
from scl import config
from scl.util.classes import FAILURES, described, find_class
from scl.util.imports import uncollected
from scl.util.text import did_you_mean, shown

with uncollected():
    from scl import augment, networks
    from scl.method import Method


def check_study(study: Study) -> None:
    """Everything that can be known before the first run. Raises ValueError naming the key."""
    check_methods(study)
    check_images(study)


# --- methods -----------------------------------------------------------------------------------------------------


def check_methods(study: Study) -> None:
    """Import every method, read its options, try its network and augmentations. Raises ValueError naming the key."""
    tried: set = set()
    for stage, block in study.methods.items():
        where = f"methods.{stage}"
        found = _class_of(block.method, f"{where}.method")
        for benchmark in study.benchmarks:
            run = study.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
            size = study.benchmarks[benchmark].size or study.dataset(benchmark).size
            _check_options(found, run.options, f"{where}.options")
            _check_epochs(found, run.training.epochs, f"{where}.training.epochs on {benchmark}")
            if run.training.epochs:
                _try(networks.check, run.network, size, tried, f"{where}.", f" (on {benchmark}, {size} px)")
            _check_augmentations(found, run.augment, f"{where}.augment", size, tried)


def _class_of(dotted: str, where: str) -> type[Method]:
    found = find_class(dotted, where)
    if not issubclass(found, Method):
        raise ValueError(f"{where}: '{dotted}' is not a scl.method.Method")
    if found.__module__ != dotted.rpartition(".")[0]:  # an edit of the file where it stands would go unseen
        raise ValueError(f"{where}: '{dotted}' stands elsewhere: name it '{found.__module__}.{found.__qualname__}'")
    for name in ("augmentations", "follows"):
        try:
            names = getattr(found, name)
        except FAILURES as error:
            raise ValueError(f"{where}: {dotted}.{name}: {described(error)}") from None
        if not isinstance(names, (tuple, list)) or not all(isinstance(one, str) for one in names):
            raise ValueError(f"{where}: {dotted}.{name}: expected names, such as ('view',), got {shown(names)}")
    if found.assign is Method.assign or not callable(found.assign):
        raise ValueError(f"{where}: {found.__name__} has no assign(); write it (scl/method.py)")
    if found.step is not Method.step and found.draw is Method.draw and not found.augmentations:
        raise ValueError(
            f"{where}: {found.__name__}.augmentations: none named, but draw() takes the first; name it or write draw()"
        )
    return found


def _check_options(found: type[Method], options: dict, where: str) -> None:
    read = config.options_of(found, options, where)
    try:
        json.dumps(read.model_dump(), allow_nan=False)  # a run's files hold them
    except FAILURES as error:
        raise ValueError(
            f"{where}: {found.__name__} has options that are not strings, finite numbers, lists or "
            f"mappings: {type(error).__name__}: {error}"
        ) from None


def _check_epochs(found: type[Method], epochs: int, where: str) -> None:
    """A network that was never trained is no result, and what has nothing to train would fail at its first step."""
    trains = found.step is not Method.step
    if trains and not epochs:
        raise ValueError(f"{where}: none given, but {found.__name__} trains; say how many")
    if epochs and not trains:
        raise ValueError(f"{where}: {epochs}, but {found.__name__} has no step() to train with; write 0")


def _check_augmentations(found: type[Method], augmentations: dict, where: str, size: int, tried: set) -> None:
    for name in found.augmentations:
        if name not in augmentations:
            raise ValueError(f"{where}.{name}: missing; {found.__name__} draws it")
    for name, spec in augmentations.items():
        if name not in found.augmentations:
            raise ValueError(f"{where}.{name}: unknown{did_you_mean(name, found.augmentations)}")
        _try(augment.build, spec, size, tried, f"{where}.{name}: ")


def _try(function, of, size: int, tried: set, where: str, after: str = "") -> None:
    """function(of, size), once for all stages and benchmarks that share it. tried: what was found right."""
    if (repr(of), size) not in tried:
        try:
            function(of, size)
        except ValueError as error:
            raise ValueError(f"{where}{error}{after}") from None
        tried.add((repr(of), size))


# --- images ------------------------------------------------------------------------------------------------------


def check_images(study: Study) -> None:
    """Folders that are named must be there, and hold enough images, unless what they are for has been prepared."""
    for key in ("results", "data"):
        folder = getattr(study, key)
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise ValueError(f"{key}: {there} is a file; name a folder")
        if key == "results" and not os.access(there, os.W_OK):
            raise ValueError(f"{key}: no permission to write in {there}; name another folder")
    for name in study.benchmarks:
        if name not in study.skipped and not (study.data / name / "benchmark.json").exists():
            _check_sources(study, name)
            _check_counts(study, name)


def _check_sources(study: Study, name: str) -> None:
    dataset, downloads = study.dataset(name), study.downloads
    if downloads.archives and archives_of(dataset, downloads) and not Path(downloads.archives).expanduser().is_dir():
        raise ValueError(f"downloads.archives: {downloads.archives} is not a folder")
    source = downloads.imagenet
    if dataset.imagenet and source.tar and not source.remote and not Path(source.tar).expanduser().is_file():
        raise ValueError(f"downloads.imagenet.tar: {source.tar} is not a file")
    if dataset.imagenet and source.folder and not Path(source.folder).expanduser().is_dir():
        raise ValueError(f"downloads.imagenet.folder: {source.folder} is not a folder")


def _check_counts(study: Study, name: str) -> None:
    """Enough images for the subset, and for the clusters in what each protocol clusters."""
    block, dataset, where = study.benchmarks[name], study.dataset(name), f"benchmarks.{name}"
    counts = dict(dataset.counts) if rules.published_images(study, dataset) else None
    if block.path:  # the data set `folder`
        path = Path(block.path).expanduser()
        try:
            counts = read_folder(dataset, Sources((), path, study.data / "archives", study.downloads)).splits
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}.path: {error}") from None
    if counts is None:
        return
    if block.subset:
        try:
            counts = {split: len(rows) for split, rows in subset_rows(counts, block.subset).items()}
        except ValueError as error:
            raise ValueError(f"{where}.{error}") from None
    for protocol in study.protocols_of(name):
        images = sum(counts[split] for split in dataset.protocols[protocol]["fit"])
        if (block.clusters or dataset.clusters) > images:
            raise ValueError(
                f"{where}.clusters: {block.clusters or dataset.clusters} clusters cannot be found in the "
                f"{images} images that protocol '{protocol}' clusters"
            )
