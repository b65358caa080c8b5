"""Rules of a study that need neither torch nor the disk, checked when it is loaded. The others are in check.py."""

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compose import chain
from scl.util.text import did_you_mean, shown


def name(text: str) -> str:
    """Validate the name of a benchmark or a stage."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{,99}", text):
        raise ValueError("a name is a folder too: up to 100 small letters, digits, '-', '_' and '.'")
    return text


def folder(path: Path) -> Path:
    """Validate a folder that becomes an argument of commands and part of Snakemake's patterns."""
    problem = None
    if not str(path).isprintable() or max(map(len, path.parts), default=0) > 200 or len(str(path)) > 1000:
        problem = "control characters and names of more than 200 characters are not allowed"
    elif set("{}") & set(str(path)):
        problem = "{ and } mean wildcards to Snakemake"
    elif str(path).startswith(("-", "~")):
        problem = "commands would take it for an option" if str(path)[0] == "-" else "~ is not expanded here"
    elif not set(path.parts) - {".."} or not str(path).strip():
        problem = "it contains other files"
    if problem:
        raise ValueError(f"{shown(str(path))}: {problem}; name another folder")
    return path


def check(study) -> None:
    """Check benchmarks and how methods refer to each other. Raises ValueError naming the key."""
    if "archives" in study.benchmarks:
        raise ValueError(f"benchmarks.archives: {study.data}/archives holds the downloads; choose another name")
    for benchmark, block in study.benchmarks.items():
        try:
            dataset = study.dataset(benchmark)
        except ValueError as error:
            raise ValueError(f"benchmarks.{benchmark}{'' if block.dataset is None else '.dataset'}: {error}") from None
        for problem in _benchmark_problems(benchmark, block, dataset):
            raise ValueError(f"benchmarks.{benchmark}.{problem}")
    if not any(study.protocols_of(benchmark) for benchmark in study.benchmarks):
        wanted = " or ".join(study.protocols)
        raise ValueError(f"protocols: no benchmark of this study has {wanted}, so there is nothing to run")
    for stage, block in study.methods.items():
        for benchmark in block.per_benchmark:
            if benchmark not in study.benchmarks:
                key = f"methods.{stage}.per_benchmark.{benchmark}"
                raise ValueError(f"{key}: no such benchmark{did_you_mean(benchmark, study.benchmarks)}")
        chain({name: other.after for name, other in study.methods.items()}, stage, "after")
    if study.reference is not None and study.reference not in study.methods:
        raise ValueError(f"reference: unknown '{study.reference}'{did_you_mean(study.reference, study.methods)}")


def _benchmark_problems(name: str, block, dataset) -> Iterator[str]:
    if dataset.user_path and not block.path:
        yield "path: missing; give the folder of the images"
    if block.path and not dataset.user_path:
        yield "path: only for dataset: folder"
    if dataset.clusters is None and block.clusters is None:
        yield "clusters: missing; give the number of clusters"
    size = block.size or dataset.size
    if block.larger_size is not None and block.larger_size <= size:
        yield f"larger_size: {block.larger_size} is not above the size, {size}"
    if block.subset and (block.clusters or 0) > block.subset:
        yield f"clusters: {block.clusters} clusters cannot be found in {block.subset} images"
    if block.subset and name == dataset.name:
        example = f"{name}-{block.subset}: {{dataset: {name}, subset: {block.subset}}}"
        yield f"subset: a subset is a separate benchmark; name it differently, e.g. {example}"
    for protocol in block.protocols or []:
        if protocol not in dataset.protocols:
            yield f"protocols: {dataset.title} has no '{protocol}'; it has {', '.join(dataset.protocols)}"
