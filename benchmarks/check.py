"""Checks of a study before its first run, with the classes of its methods and the files of its benchmarks.

Rules that need neither are in benchmarks/rules.py. Every error is a ValueError that names the key.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.datasets.catalog import IMAGES_PER_CLASS, archives_of
from benchmarks.datasets.dataset import Sources, subset_rows
from benchmarks.datasets.folder import read as read_folder
from benchmarks.study import Study
from scl import config
from scl.engine.progress import require_tensorboard
from scl.util.classes import FAILURES, describe_error, find_class
from scl.util.imports import gc_paused
from scl.util.text import did_you_mean, shown

with gc_paused():
    from scl import augment, networks
    from scl.method import Method, clustered_by_kmeans


def check_study(study: Study) -> None:
    """Check everything that can be known before the first run."""
    check_methods(study)
    check_images(study)
    if study.machine.tensorboard:
        require_tensorboard()


# --- methods -----------------------------------------------------------------------------------------------------


def check_methods(study: Study) -> None:
    """Import every method, validate its options, and try its network and augmentations."""
    tried: set = set()
    for stage, block in study.methods.items():
        where = f"methods.{stage}"
        method = _load_class(block.method, f"{where}.method")
        for benchmark in study.benchmarks:
            run = study.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
            size = study.benchmarks[benchmark].size or study.dataset(benchmark).size
            _check_options(method, run.options, f"{where}.options")
            _check_clustering(method, config.options_of(method, run.options, f"{where}.options"), where)
            _check_epochs(method, run.training.epochs, f"{where}.training.epochs on {benchmark}")
            if run.training.epochs:
                _try(networks.check, run.network, size, tried, f"{where}.", f" (on {benchmark}, {size} px)")
            _check_augmentations(method, run.augment, f"{where}.augment", size, tried)


def _load_class(dotted: str, where: str) -> type[Method]:
    method = find_class(dotted, where)
    if not issubclass(method, Method):
        raise ValueError(f"{where}: '{dotted}' is not a scl.method.Method")
    if method.__module__ != dotted.rpartition(".")[0]:  # edits of the defining file would go unnoticed
        defined = f"{method.__module__}.{method.__qualname__}"
        raise ValueError(f"{where}: '{dotted}' is defined elsewhere; write '{defined}'")
    for name in ("augmentations", "follows"):
        try:
            names = getattr(method, name)
        except FAILURES as error:
            raise ValueError(f"{where}: {dotted}.{name}: {describe_error(error)}") from None
        if not isinstance(names, (tuple, list)) or not all(isinstance(one, str) for one in names):
            raise ValueError(f"{where}: {dotted}.{name}: expected names, such as ('view',), got {shown(names)}")
    if method.assign is Method.assign or not callable(method.assign):
        raise ValueError(f"{where}: {method.__name__} has no assign(); write it (scl/method.py)")
    if method.step is not Method.step and method.draw is Method.draw and not method.augmentations:
        raise ValueError(f"{where}: {method.__name__}.augmentations: empty, but draw() uses the first; add a name")
    return method


def _check_options(method: type[Method], options: dict, where: str) -> None:
    values = config.options_of(method, options, where).model_dump()
    try:
        json.dumps(values, allow_nan=False)  # for run.yaml and record.json
    except FAILURES as error:
        raise ValueError(
            f"{where}: {method.__name__} has options that are not strings, finite numbers, lists or "
            f"mappings: {type(error).__name__}: {error}"
        ) from None


def _check_clustering(method: type[Method], options: config.MethodOptions, where: str) -> None:
    try:
        by_kmeans = clustered_by_kmeans(method, options)
    except FAILURES as error:
        raise ValueError(f"{where}: {method.__name__}.clusters_by_kmeans: {describe_error(error)}") from None
    if by_kmeans and not isinstance(getattr(options, "kmeans_restarts", None), int):
        raise ValueError(f"{where}: {method.__name__}.Options has no kmeans_restarts; add it (scl/method.py)")


def _check_epochs(method: type[Method], epochs: int, where: str) -> None:
    trains = method.step is not Method.step
    if trains and not epochs:
        raise ValueError(f"{where}: none given, but {method.__name__} trains; give a number")
    if epochs and not trains:
        raise ValueError(f"{where}: {epochs}, but {method.__name__} has no step() to train with; write 0")


def _check_augmentations(method: type[Method], augmentations: dict, where: str, size: int, tried: set) -> None:
    for name in method.augmentations:
        if name not in augmentations:
            raise ValueError(f"{where}.{name}: missing; {method.__name__} uses it")
    for name, spec in augmentations.items():
        if name not in method.augmentations:
            raise ValueError(f"{where}.{name}: unknown{did_you_mean(name, method.augmentations)}")
        _try(augment.build, spec, size, tried, f"{where}.{name}: ")


def _try(function, spec, size: int, tried: set, prefix: str, suffix: str = "") -> None:
    """Call function(spec, size), once for all stages and benchmarks that share them. tried: those that passed."""
    if (repr(spec), size) not in tried:
        try:
            function(spec, size)
        except ValueError as error:
            raise ValueError(f"{prefix}{error}{suffix}") from None
        tried.add((repr(spec), size))


# --- images ------------------------------------------------------------------------------------------------------


def check_images(study: Study) -> None:
    """Check the folders, and the sources and numbers of images of all benchmarks that are not prepared yet."""
    for key in ("results", "data"):
        folder = getattr(study, key)
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise ValueError(f"{key}: {existing} is a file; name a folder")
        if key == "results" and not os.access(existing, os.W_OK):
            raise ValueError(f"{key}: no permission to write in {existing}; name another folder")
    for problem in missing_sources(study):
        raise ValueError(problem)
    for name in unprepared(study):
        _check_counts(study, name)


def unprepared(study: Study) -> list[str]:
    """Benchmarks that are available but not prepared yet."""
    names = [name for name in study.benchmarks if name not in study.skipped]
    return [name for name in names if not (study.data / name / "benchmark.json").exists()]


def missing_sources(study: Study) -> Iterator[str]:
    """Yield `key: problem` for files and folders of the configuration that unprepared benchmarks need."""
    downloads, source = study.downloads, study.downloads.imagenet
    datasets = {name: study.dataset(name) for name in unprepared(study)}
    folders = {f"benchmarks.{name}.path": study.benchmarks[name].path for name in datasets}
    if any(archives_of(dataset, downloads) for dataset in datasets.values()):
        folders["downloads.archives"] = downloads.archives
    if any(dataset.imagenet for dataset in datasets.values()):
        folders["downloads.imagenet.folder"] = source.folder
        if source.tar and not source.remote and not Path(source.tar).expanduser().is_file():
            yield f"downloads.imagenet.tar: {source.tar} is not a file"
    for key, folder in folders.items():
        path = Path(folder or ".").expanduser()
        if not path.is_dir() and not (path.is_file() and path.suffix == ".npy" and key.endswith(".path")):
            yield f"{key}: {folder} is not a folder"


def _check_counts(study: Study, name: str) -> None:
    """Enough images for the subset, and for the clusters of every protocol."""
    block, dataset, where = study.benchmarks[name], study.dataset(name), f"benchmarks.{name}"
    published = all(archive.official for archive in archives_of(dataset, study.downloads))
    if dataset.imagenet and study.downloads.imagenet.images_per_class != IMAGES_PER_CLASS:
        published = False
    if not published:
        return  # the counts are those of another source
    counts = dict(dataset.counts)
    if block.path:  # the data set `folder`
        path = Path(block.path).expanduser()
        try:
            counts = read_folder(dataset, Sources((), path, study.data / "archives", study.downloads)).splits
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}.path: {error}") from None
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
