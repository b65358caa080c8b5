"""The downloads of a study, and the disk space that it needs. Looks at files, but does not use the network."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.check_images import archive_folders, existing
from benchmarks.datasets.catalog import archives_of
from benchmarks.datasets.connection import plain
from benchmarks.datasets.remote_tar import cached_folders
from benchmarks.plan.rates import size_of
from benchmarks.state import Survey
from benchmarks.study import Study

SYNSET_BYTES = 140e6  # of one class of ILSVRC-2012 in its tar, approximately
NAME_BYTES = 40  # of one image in labels.npy and image_names.json, approximately


def downloads(study: Study, survey: Survey) -> list[dict[str, Any]]:
    """One entry per archive: file, bytes, urls, state ("there", "prepared" if no longer needed, "missing")."""
    found: dict[str, dict[str, Any]] = {}
    for name in study.available:
        needed = "prepared" if _is_prepared(survey, name) else "missing"
        for file, size, urls, there in _files(study, name):
            entry = {"file": file, "bytes": size, "urls": list(map(plain, urls)), "state": "there" if there else needed}
            if found.setdefault(file, entry)["state"] == "prepared":
                found[file] = entry  # another benchmark may need it
    return list(found.values())


def _files(study: Study, name: str) -> Iterator[tuple[str, int | None, Sequence[str], bool]]:
    """(name, bytes, URLs, whether it exists) of the archives of a benchmark, and of the parts of ILSVRC-2012's tar that
    are read from a URL; a local tar or folder needs no download."""
    dataset, source, folders = study.dataset(name), study.downloads.imagenet, archive_folders(study)
    for archive in archives_of(dataset, study.downloads):
        yield archive.file, archive.bytes, archive.urls, any((folder / archive.file).exists() for folder in folders)
    if dataset.imagenet and source.remote:
        url = source.tar or ""
        kept = cached_folders(url, folders[0])
        for file in (f"{synset}.tar" for synset in dataset.options["synsets"]):
            yield f"ilsvrc/{file}", int(SYNSET_BYTES), [url], any((folder / file).exists() for folder in kept)


def disk(
    study: Study,
    survey: Survey,
    counts: dict[str, dict[str, int] | None],
    runs: list[tuple[Path, int, int]],
    *,
    at_once: int,
) -> dict[str, Any]:
    """Bytes at the peak, by part, and the bytes already on disk.

    counts: number of images in each split of each benchmark, None if unknown. runs: (folder, bytes when finished,
    additional bytes while it trains) of each run. Archives and arrays are written under temporary names and renamed, so
    they are never on disk twice.
    """
    archives = [entry for entry in downloads(study, survey) if entry["state"] != "prepared"]
    arrays = {name: sum((splits or {}).values()) * _image_bytes(study, name) for name, splits in counts.items()}
    there = sum(entry["bytes"] or 0 for entry in archives if entry["state"] == "there")
    there += sum(size for name, size in arrays.items() if _is_prepared(survey, name))
    there += sum(file.stat().st_size for folder, _, _ in runs for file in folder.rglob("*") if file.is_file())
    parts = {
        "archives": sum(entry["bytes"] or 0 for entry in archives),
        "arrays": sum(arrays.values()),
        "runs": sum(size for _, size, _ in runs),
        "temporary": sum(sorted((more for _, _, more in runs), reverse=True)[:at_once]),
    }
    unknown = [e["file"] for e in archives if e["bytes"] is None] + [name for name, size in arrays.items() if not size]
    free = shutil.disk_usage(existing(study.results)).free
    return {**parts, "peak": sum(parts.values()), "there": there, "free": free, "unknown": unknown}


def _image_bytes(study: Study, name: str) -> int:
    """Bytes of one prepared image of a benchmark, at its sizes."""
    block = study.benchmarks[name]
    sizes = [size_of(study, name), *([block.larger_size] if block.larger_size else [])]
    return sum(3 * size**2 for size in sizes) + NAME_BYTES


def _is_prepared(survey: Survey, name: str) -> bool:
    facts, problem = survey.prepared(name)
    return facts is not None and not problem
