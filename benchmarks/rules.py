"""What the parts of a study may say together, beyond the types of their keys: checked as it is read, without torch."""

import re
from pathlib import Path

from benchmarks.datasets.catalog import CATALOG, IMAGES_PER_CLASS, archives_of
from scl.util.text import did_you_mean, shown


def name(text: str) -> str:
    """Of a benchmark or a stage."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{,99}", text):
        raise ValueError("a name is a folder too: up to 100 small letters, digits, '-', '_' and '.'")
    return text


def folder(path: Path) -> Path:
    """It becomes an argument of commands and a part of Snakemake's patterns."""
    problem = None
    if not str(path).isprintable() or max(map(len, path.parts), default=0) > 200 or len(str(path)) > 1000:
        problem = "control characters and names of more than 200 characters make no folder"
    elif set("{}") & set(str(path)):
        problem = "{ and } mean wildcards to Snakemake"
    elif str(path).startswith(("-", "~")):
        problem = "commands would take it for an option" if str(path)[0] == "-" else "~ is not expanded here"
    elif not set(path.parts) - {".."} or not str(path).strip():
        problem = "other files are there"
    if problem:
        raise ValueError(f"{shown(str(path))}: {problem}; name another folder")
    return path


def check(study) -> None:
    """Raises ValueError naming the key: benchmarks, and how methods start from each other."""
    if "archives" in study.benchmarks:
        raise ValueError(f"benchmarks.archives: {study.data}/archives holds the downloads; give it another name")
    for benchmark in study.benchmarks:
        _check_benchmark(study, benchmark)
    for stage, block in study.methods.items():
        for benchmark in block.per_benchmark:
            if benchmark not in study.benchmarks and benchmark not in CATALOG:
                raise ValueError(
                    f"methods.{stage}.per_benchmark.{benchmark}: no such benchmark"
                    f"{did_you_mean(benchmark, study.benchmarks)}"
                )
        _check_chain(study, stage)
    if study.reference is not None and study.reference not in study.methods:
        raise ValueError(f"reference: unknown '{study.reference}'{did_you_mean(study.reference, study.methods)}")


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
        raise ValueError(
            f"{where}.subset: {block.subset:,} images cannot be drawn from the {published:,} of {dataset.title}"
        )
    images = block.subset or published
    if images and (block.clusters or 0) > images:
        raise ValueError(f"{where}.clusters: {block.clusters} clusters cannot be found in {images} images")
    if block.subset and name == dataset.name:
        raise ValueError(
            f"{where}.subset: a subset is another benchmark; give it a name of its own, "
            f"e.g. {name}-{block.subset}: {{dataset: {name}, subset: {block.subset}}}"
        )
    for protocol in block.protocols or []:
        if protocol not in dataset.protocols:
            raise ValueError(
                f"{where}.protocols: {dataset.title} has no '{protocol}'; it has {', '.join(dataset.protocols)}"
            )


def published_images(study, dataset) -> int:
    """How many images a data set has; 0 where the configuration names another source than the published one."""
    sources = all(archive.official for archive in archives_of(dataset, study.downloads))
    if dataset.imagenet and study.downloads.imagenet.images_per_class != IMAGES_PER_CLASS:
        sources = False
    return sum(dataset.counts.values()) if sources else 0


def _check_chain(study, stage: str) -> None:
    block, seen = study.methods[stage], [stage]
    while block.after is not None:
        if block.after not in study.methods:
            raise ValueError(
                f"methods.{seen[-1]}.after: unknown '{block.after}'{did_you_mean(block.after, study.methods)}"
            )
        if block.after in seen:
            raise ValueError(f"methods.{stage}.after: a circle: {' -> '.join([*seen, block.after])}")
        seen.append(block.after)
        block = study.methods[block.after]
