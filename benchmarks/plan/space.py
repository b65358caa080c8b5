"""The downloads of a study, and the disk space that it needs. Looks at files, but does not use the network."""

import shutil
from pathlib import Path
from typing import Any

from benchmarks.datasets.catalog import Archive, archives_of
from benchmarks.datasets.connection import plain
from benchmarks.state import Survey
from benchmarks.study import Study

SYNSET_BYTES = 140e6  # of one class of ILSVRC-2012 in its tar, approximately
NAME_BYTES = 40  # of one image in labels.npy and image_names.json, approximately


def downloads(study: Study, survey: Survey) -> list[dict[str, Any]]:
    """One entry per archive: file, bytes, urls, state ("there", "prepared" if it is no longer needed, "missing")."""
    found: dict[str, dict[str, Any]] = {}
    for name in study.available:
        prepared = _is_prepared(survey, name)
        entries = [_archive(study, archive) for archive in archives_of(study.dataset(name), study.downloads)]
        for entry in [*entries, *_synsets(study, name)]:
            if entry["state"] == "missing" and prepared:
                entry["state"] = "prepared"
            if found.setdefault(entry["file"], entry)["state"] == "prepared":
                found[entry["file"]] = entry  # another benchmark may need it
    return list(found.values())


def _archive(study: Study, archive: Archive) -> dict[str, Any]:
    folder = study.downloads.archives
    places = [study.data / "archives", *([Path(folder).expanduser()] if folder else [])]
    there = any((place / archive.file).exists() for place in places)
    return {
        "file": archive.file,
        "bytes": archive.bytes,
        "urls": [plain(url) for url in archive.urls],
        "state": "there" if there else "missing",
    }


def _synsets(study: Study, name: str) -> list[dict[str, Any]]:
    """Parts of ILSVRC-2012's tar that are read from a URL; a local tar or folder needs no download."""
    dataset, source = study.dataset(name), study.downloads.imagenet
    if not dataset.imagenet or not source.remote:
        return []
    cache = study.data / "archives" / "ilsvrc"
    return [
        {
            "file": f"ilsvrc/{synset}.tar",
            "bytes": int(SYNSET_BYTES),
            "urls": [plain(source.tar or "")],
            "state": "there" if (cache / f"{synset}.tar").exists() else "missing",
        }
        for synset in dataset.options["synsets"]
    ]


def _array_bytes(study: Study, name: str, images: int) -> int:
    block = study.benchmarks[name]
    sizes = [block.size or study.dataset(name).size, *([block.larger_size] if block.larger_size else [])]
    return images * (sum(3 * size**2 for size in sizes) + NAME_BYTES)


def disk(
    study: Study, survey: Survey, images: dict[str, int | None], runs: list[tuple[Path, int, int]], *, at_once: int
) -> dict[str, Any]:
    """Bytes at the peak, by part, and those that are already on disk.

    images: number of images of each benchmark, None if unknown. runs: (folder, bytes when finished, additional bytes
    while it trains) of each run. Archives and arrays are written under temporary names and renamed, so they are never
    on disk twice.
    """
    archives = [entry for entry in downloads(study, survey) if entry["state"] != "prepared"]
    arrays = {name: _array_bytes(study, name, count or 0) for name, count in images.items()}
    here = sum(entry["bytes"] or 0 for entry in archives if entry["state"] == "there")
    here += sum(size for name, size in arrays.items() if _is_prepared(survey, name))
    here += sum(_folder_bytes(folder) for folder, _, _ in runs)
    parts = {
        "archives": sum(entry["bytes"] or 0 for entry in archives),
        "arrays": sum(arrays.values()),
        "runs": sum(size for _, size, _ in runs),
        "temporary": sum(sorted((more for _, _, more in runs), reverse=True)[:at_once]),
    }
    place = next(folder for folder in (study.results, *study.results.absolute().parents) if folder.exists())
    unknown = [e["file"] for e in archives if e["bytes"] is None] + [name for name, size in arrays.items() if not size]
    return {**parts, "peak": sum(parts.values()), "there": here, "free": shutil.disk_usage(place).free} | {
        "unknown": unknown
    }


def _is_prepared(survey: Survey, name: str) -> bool:
    facts, problem = survey.prepared(name)
    return facts is not None and not problem


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
