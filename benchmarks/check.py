"""Checks of a study before its first run that need the classes of its methods.

Checks of its images are in benchmarks/check_images.py, those that need neither in benchmarks/rules.py. Every error is a
ValueError that names the key.
"""

import json
from functools import cache

from benchmarks.check_images import check_images
from benchmarks.plan.rates import counts_of
from benchmarks.state import Survey
from benchmarks.study import Study
from scl import config
from scl.engine.progress import require_tensorboard
from scl.util.classes import FAILURES, describe_error, find_class
from scl.util.imports import gc_paused
from scl.util.text import did_you_mean, shown

with gc_paused():
    from baselines.scan import SCAN
    from scl import augment, networks
    from scl.method import Method, clustered_by_kmeans


def check_study(study: Study, survey: Survey | None = None) -> None:
    """Check everything that can be known before the first run. survey: by default a new one."""
    survey = survey or Survey(study)
    check_methods(study)
    check_images(study, survey)
    _check_neighbors(study, survey)
    if study.machine.tensorboard:
        require_tensorboard()


def check_methods(study: Study) -> None:
    """Import every method, validate its options, and try its network and augmentations."""
    tried: set = set()
    for stage, block in study.methods.items():
        where = f"methods.{stage}"
        method = _load_class(block.method, f"{where}.method")
        for benchmark in study.benchmarks:
            run = study.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
            size = study.benchmarks[benchmark].size or study.dataset(benchmark).size
            _check_options(method, run.options, where)
            _check_epochs(method, run.training.epochs, f"{where}.training.epochs on {benchmark}")
            if run.training.epochs:
                _try(networks.check, run.network, size, tried, f"{where}.", f" (on {benchmark}, {size} px)")
            _check_augmentations(method, run.augment, f"{where}.augment", size, tried)


def _load_class(dotted: str, where: str) -> type[Method]:
    method = find_class(dotted, where)
    if not issubclass(method, Method):
        raise ValueError(f"{where}: '{dotted}' is not a scl.method.Method")
    if method.__module__ != dotted.rpartition(".")[0]:  # else edits of the defining file would go unnoticed
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


def _check_options(method: type[Method], given: dict, where: str) -> None:
    options = config.options_of(method, given, f"{where}.options")
    try:
        json.dumps(options.model_dump(), allow_nan=False)  # for run.yaml and record.json
        config.options_of(method, options.model_dump(mode="json"), "options")  # as from run.yaml
    except FAILURES as error:
        raise ValueError(
            f"{where}.options: {method.__name__} has options that are not strings, finite numbers, lists or "
            f"mappings: {type(error).__name__}: {error}"
        ) from None
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
    for name in augmentations:  # first, since a misspelled one is also missing
        if name not in method.augmentations:
            raise ValueError(f"{where}.{name}: unknown{did_you_mean(name, method.augmentations)}")
    for name in method.augmentations:
        if name not in augmentations:
            raise ValueError(f"{where}.{name}: missing; {method.__name__} uses it")
        _try(augment.build, augmentations[name], size, tried, f"{where}.{name}: ")


def _check_neighbors(study: Study, survey: Survey) -> None:
    """More images than SCAN looks for neighbors of each, for all runs that are left; otherwise this would be found
    after the training of SimCLR."""
    counts = cache(lambda benchmark: counts_of(survey, benchmark))
    for run, state in survey.states().items():
        scan = issubclass(find_class(study.methods[run.stage].method), SCAN)
        if not scan or state.status in ("done", "skipped") or not (known := counts(run.benchmark)):
            continue
        neighbors = config.complete(study.settings(run)).options["neighbors"]
        images = sum(known[split] for split in study.dataset(run.benchmark).protocols[run.protocol]["fit"])
        if neighbors >= images:
            raise ValueError(
                f"methods.{run.stage}.options.neighbors: {neighbors} is not less than the {images} images that "
                f"protocol '{run.protocol}' clusters on {run.benchmark}; lower it"
            )


def _try(function, spec, size: int, tried: set, prefix: str, suffix: str = "") -> None:
    """Call function(spec, size), once for all stages and benchmarks that share them. tried: those that passed."""
    if (repr(spec), size) not in tried:
        try:
            function(spec, size)
        except ValueError as error:
            raise ValueError(f"{prefix}{error}{suffix}") from None
        tried.add((repr(spec), size))
