"""What the parts of a study may say together, beyond the types of its keys: checked as it is read, without torch."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.datasets.catalogue import CATALOGUE, ImageNetSource, archives_of
from scl import settings
from scl.settings import Network, Training, check_range
from scl.text import did_you_mean, shown

PROTOCOLS = ("joint", "heldout")
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Differences:
    """What a part of `per_benchmark` may say. Read to be checked; what counts is the text merged with the block."""

    method: str | None = None
    origin: str = ""
    note: str = ""
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    augment: dict[str, list] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe(Differences):
    per_benchmark: dict[str, Differences] = field(default_factory=dict)


def check(study) -> None:
    """Raises ValueError naming the key: names and folders, benchmarks, and how methods start from each other."""
    if not study.seeds or len(set(study.seeds)) != len(study.seeds) or min(study.seeds) < 0:
        raise ValueError(f"seeds: a number of seeds, or a list of different ones from 0 on; got {shown(study.seeds)}")
    check_range("seeds", len(study.seeds), 1, MOST_SEEDS)
    for key in ("results", "data"):
        _check_folder(getattr(study, key), key)
    for key in ("benchmarks", "methods"):
        if not getattr(study, key):
            raise ValueError(f"{key}: none given (what is null is left out; {{}} takes the defaults)")
        for name in getattr(study, key):
            if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{,99}", name):
                raise ValueError(f"{key}.{shown(name)[1:-1]}: a name is a folder too: up to 100 small letters, digits, "
                                 "'-', '_' and '.'")
    if "archives" in study.benchmarks:
        raise ValueError(f"benchmarks.archives: {study.data}/archives holds the downloads; give it another name")
    settings.read(Differences, {"network": study.network, "training": study.training})
    _check_protocols(study.protocols, "protocols")
    for protocol in study.protocols:
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocols: unknown '{protocol}'{did_you_mean(protocol, PROTOCOLS)}")
    for name in study.benchmarks:
        _check_benchmark(study, name)
    for stage in study.methods:
        _check_block(study, stage)
        _check_chain(study, stage)
    recipes = {name for block in study.methods.values() for name in block.recipes}
    if study.recipe is not None and study.recipe not in recipes:
        raise ValueError(f"recipe: no method has a recipe '{study.recipe}'{did_you_mean(study.recipe, recipes)}")
    if study.reference is not None and study.reference not in study.methods:
        raise ValueError(f"reference: unknown '{study.reference}'{did_you_mean(study.reference, study.methods)}")


def _check_folder(folder: Path, where: str) -> None:
    """It becomes an argument of commands and a part of Snakemake's patterns."""
    problem = None
    if not str(folder).isprintable() or max(map(len, folder.parts), default=0) > 200 or len(str(folder)) > 1000:
        problem = "control characters and names of more than 200 characters make no folder"
    elif set("{}") & set(str(folder)):
        problem = "{ and } mean wildcards to Snakemake"
    elif str(folder).startswith(("-", "~")):
        problem = "commands would take it for an option" if str(folder)[0] == "-" else "~ is not expanded here"
    elif not set(folder.parts) - {".."}:
        problem = "other files are there"
    if problem:
        raise ValueError(f"{where}: {shown(str(folder))}: {problem}; name another folder")


def _check_protocols(protocols: list[str], where: str) -> None:
    if not protocols or len(set(protocols)) != len(protocols):
        raise ValueError(f"{where}: one or more different ones of {', '.join(PROTOCOLS)}; got {protocols}")


def _check_benchmark(study, name: str) -> None:
    block, where = study.benchmarks[name], f"benchmarks.{name}"
    try:
        dataset = study.dataset(name)
    except ValueError as error:
        raise ValueError(f"{where}{'' if block.dataset is None else '.dataset'}: {error}") from None
    if dataset.user_path and not block.path:
        raise ValueError(f"{where}.path: missing; give the folder of the images")
    if block.path and not dataset.user_path:
        raise ValueError(f"{where}.path: only for dataset: folder")
    if dataset.clusters is None and block.clusters is None:
        raise ValueError(f"{where}.clusters: missing; say how many clusters to look for")
    size = block.size or dataset.size
    if block.larger_size is not None and block.larger_size <= size:
        raise ValueError(f"{where}.larger_size: {block.larger_size} is not above the size, {size}")
    published = published_images(study, dataset)
    if block.subset and published and block.subset > published:
        raise ValueError(f"{where}.subset: {block.subset:,} images cannot be drawn from the {published:,} of "
                         f"{dataset.title}")
    images = block.subset or published
    if images and (block.clusters or 0) > images:
        raise ValueError(f"{where}.clusters: {block.clusters} clusters cannot be found in {images} images")
    if block.subset and name == dataset.name:
        raise ValueError(f"{where}.subset: a subset is another benchmark; give it a name of its own, "
                         f"e.g. {name}-{block.subset}: {{dataset: {name}, subset: {block.subset}}}")
    if block.protocols is not None:
        _check_protocols(block.protocols, f"{where}.protocols")
    for protocol in block.protocols or []:
        if protocol not in dataset.protocols:
            raise ValueError(f"{where}.protocols: {dataset.title} has no '{protocol}'; "
                             f"it has {', '.join(dataset.protocols)}")


def published_images(study, dataset) -> int:
    """How many images a data set has; 0 where the configuration names another source than the published one."""
    sources = all(archive.official for archive in archives_of(dataset, study.downloads))
    if dataset.imagenet and study.downloads.imagenet.images_per_class != ImageNetSource.images_per_class:
        sources = False
    return sum(dataset.counts.values()) if sources else 0


def _check_block(study, stage: str) -> None:
    block, where = study.methods[stage], f"methods.{stage}"
    settings.read(Differences, {"network": block.network, "training": block.training}, where)
    recipe = settings.read(Recipe, {"per_benchmark": block.per_benchmark}, where)
    recipes = {name: settings.read(Recipe, one, f"{where}.recipes.{name}") for name, one in block.recipes.items()}
    for place, one in {where: recipe, **{f"{where}.recipes.{name}": one for name, one in recipes.items()}}.items():
        for name in one.per_benchmark:
            if name not in study.benchmarks and name not in CATALOGUE:
                raise ValueError(f"{place}.per_benchmark.{name}: no such benchmark"
                                 f"{did_you_mean(name, study.benchmarks)}")


def _check_chain(study, stage: str) -> None:
    block, seen = study.methods[stage], [stage]
    while block.after is not None:
        if block.after not in study.methods:
            raise ValueError(f"methods.{seen[-1]}.after: unknown '{block.after}'"
                             f"{did_you_mean(block.after, study.methods)}")
        if block.after in seen:
            raise ValueError(f"methods.{stage}.after: a circle: {' -> '.join([*seen, block.after])}")
        seen.append(block.after)
        block = study.methods[block.after]
