"""From archives to data/<benchmark>/: images.npy, labels.npy, and benchmark.json as the mark that all is
there."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.datasets.arrays import write_images
from benchmarks.datasets.catalog import Archive, Dataset, Downloads, archives_of, dataset_named
from benchmarks.datasets.contents import Contents, Sources, subset_rows
from benchmarks.datasets.download import fetch, source_of
from benchmarks.datasets.folder import fingerprint
from benchmarks.datasets.names import write_names
from benchmarks.datasets.pixels import RESIZE
from scl.engine.io import atomic, sha256, write_json
from scl.util.text import printable, say

SIZES = (4, 1024)  # pixels a side


def prepare(
    name: str,
    *,
    dataset: str,
    folder: Path,
    archives: Path,
    downloads: Downloads | None = None,
    size: int | None = None,
    larger_size: int | None = None,
    subset: int | None = None,
    clusters: int | None = None,
    path: str | Path | None = None,
    workers: int | None = None,
) -> Path:
    """Lay down the benchmark `name` in `folder` and return its benchmark.json, which is written last.

    dataset: its name in the catalog. size: pixels a side (default: the data set's); larger and smaller
    images are resized once, see `pixels.RESIZE`. larger_size: the images are kept at this size too, for methods
    that ask for it. subset: so many images, drawn without a look at labels.
    clusters: default the number of classes. path: the user's folder, for the data set `folder`. archives:
    where downloads are kept. workers: processes that resize. ValueError or OSError with a way out; nothing
    half-written under a final name.
    """
    described = dataset_named(dataset)
    downloads = downloads or Downloads()
    size = described.size if size is None else size
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"{name}: size: {size} is not within {SIZES[0]} .. {SIZES[1]} pixels")
    if larger_size is not None and not size < larger_size <= SIZES[1]:
        raise ValueError(f"{name}: larger_size: {larger_size} is not within {size + 1} .. {SIZES[1]} pixels")
    if bool(path) != described.user_path:
        raise ValueError(
            f"{name}: path: "
            + (
                "is needed: the folder of the images"
                if described.user_path
                else f"the data set {dataset!r} comes from an archive and takes none"
            )
        )
    wanted = archives_of(described, downloads)
    files = tuple(fetch(archive, Path(archives), downloads=downloads) for archive in wanted)
    sources = Sources(files, Path(path).expanduser() if path else None, Path(archives), downloads)
    module, _, function = described.read.partition(":")
    seen = fingerprint(sources.path) if sources.path and sources.path.exists() else None  # before the images are read
    contents = getattr(importlib.import_module(module), function)(described, sources)
    _check_classes(name, contents)
    official = _check_counts(name, described, contents, all(archive.official for archive in wanted))
    rows = (
        subset_rows(contents.splits, subset)
        if subset
        else {split: np.arange(*span) for split, span in contents.ranges().items()}
    )
    record = {
        "name": name,
        "dataset": dataset,
        **_shape(name, described, contents, rows, size, clusters),
        "subset": subset,
        "path": None if path is None else str(path),
        "official": official,
        "fingerprint": seen,
        "unreadable": dict(contents.unreadable),
        "resize": RESIZE,
        "sources": contents.sources + [_source(archive, file) for archive, file in zip(wanted, files)],
    }
    return _write(Path(folder), contents, np.concatenate(list(rows.values())), record, larger_size, workers)


def prepare_for(study, name: str, *, workers: int | None = None) -> Path:
    """Prepare the benchmark `name` as the study asks; returns its benchmark.json. Raises as `prepare` does."""
    block = study.benchmarks[name]
    return prepare(
        name,
        dataset=study.dataset(name).name,
        folder=study.data / name,
        archives=study.data / "archives",
        downloads=study.downloads,
        size=block.size,
        larger_size=block.larger_size,
        subset=block.subset,
        clusters=block.clusters,
        path=block.path,
        workers=workers,
    )


def unlike(facts: dict, block, dataset: Dataset, downloads: Downloads) -> str:
    """What of a prepared benchmark is not as the configuration asks, "" if nothing is.

    facts: its benchmark.json. block: its block in the configuration.
    """
    size = block.size or dataset.size
    clusters = block.clusters or len(facts.get("classes") or ())
    wanted = {
        "dataset": dataset.name,
        "size": [size, size],
        "subset": block.subset,
        "clusters": clusters,
        "path": block.path,
    }
    for key, value in wanted.items():
        if facts.get(key) != value:
            return f"{key}: {facts.get(key)}, wanted {value}"
    larger = (facts.get("larger") or {}).get("size")
    if larger != block.larger_size:
        return f"larger_size: {larger}, wanted {block.larger_size}"
    sources = {source.get("file"): source for source in facts.get("sources") or ()}
    for archive in archives_of(dataset, downloads):
        source = sources.get(archive.file, {})
        for kind in ("md5", "sha256"):
            if source.get(kind) and getattr(archive, kind) and source[kind] != getattr(archive, kind):
                return f"{archive.file}: {kind} {source[kind]}, wanted {getattr(archive, kind)}"
    if block.path and _changed(Path(block.path).expanduser(), facts):
        return "images were added, removed or changed in its folder"
    return ""


def _changed(path: Path, facts: dict) -> bool:
    """Whether the user's images at `path` are not those that were prepared; not so where they are not here (the
    prepared ones may have been carried to this machine)."""
    if not path.exists():
        return False
    try:
        return fingerprint(path) != facts.get("fingerprint")
    except (ValueError, OSError):  # preparing them says what is wrong
        return True


def _check_classes(name: str, contents: Contents) -> None:
    """benchmark.json, which is written last, holds their names."""
    for text in contents.classes:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}: the class name {printable(text)} is not UTF-8; mend it in the source") from None


def _check_counts(name: str, dataset: Dataset, contents: Contents, official: bool) -> bool:
    """Whether this is the published data set. An archive with the published checksum and other counts is
    refused."""
    official = official and contents.official
    if not dataset.counts or contents.splits == dict(dataset.counts):
        return official
    told = f"{name}: {contents.splits} images where {dataset.title} has {dict(dataset.counts)}"
    if official:
        raise ValueError(told)
    say(f"{told}; the configuration asks for another archive than the published one, so this is only recorded")
    return False


def _shape(name, dataset, contents, rows, size, clusters) -> dict:
    """The part of benchmark.json that consumers go by."""
    count = sum(map(len, rows.values()))
    clusters = clusters or len(contents.classes)
    if not clusters:
        raise ValueError(f"{name}: clusters: is needed, as the images have no classes")
    if not 1 <= clusters <= count:
        raise ValueError(f"{name}: clusters: {clusters} is not within 1 .. {count}, the number of images")
    stops = np.cumsum([0, *map(len, rows.values())]).tolist()
    return {
        "count": count,
        "size": [size, size],
        "clusters": clusters,
        "classes": contents.classes,
        "splits": {split: [stops[i], stops[i + 1]] for i, split in enumerate(rows)},
        "protocols": {
            protocol: {role: list(splits) for role, splits in roles.items()}
            for protocol, roles in dataset.protocols.items()
        },
    }


def _leave_out(path: Path, contents: Contents, rows: np.ndarray, failed: dict[int, str], record: dict) -> np.ndarray:
    """The rows that could be read; images.npy without the others, which the record names."""
    kept = np.setdiff1d(np.arange(len(rows)), list(failed))
    clusters, names = record["clusters"], contents.names or []
    record["unreadable"] |= {
        names[rows[at]]: why.removeprefix(f"{names[rows[at]]}: ") for at, why in sorted(failed.items())
    }
    if not len(kept) or clusters > len(kept):
        name, why = next(iter(record["unreadable"].items()))
        raise ValueError(
            f"{record['name']}: only {len(kept)} of {len(rows)} images can be read, too few for {clusters} clusters "
            f"({name}: {why})"
        )
    images = np.load(path, mmap_mode="r")
    with atomic(path) as temporary:
        shorter = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(kept), *images.shape[1:]))
        for start in range(0, len(kept), 256):
            shorter[start : start + 256] = images[kept[start : start + 256]]
        shorter.flush()
    record |= {"count": len(kept), "splits": {split: [0, len(kept)] for split in record["splits"]}}
    return rows[kept]


def describe_unreadable(unreadable: dict[str, str], most: int = 10) -> str:
    """How many files were left out, and a line each for the first of them; "" if none were."""
    if not unreadable:
        return ""
    lines = [f"  {printable(name)}: {printable(why)}" for name, why in sorted(unreadable.items())[:most]]
    more = [f"  and {len(unreadable) - most} more"] if len(unreadable) > most else []
    return "\n".join([f"{len(unreadable)} unreadable image(s) left out:", *lines, *more])


def _source(archive: Archive, file: Path) -> dict:
    digests = {kind: getattr(archive, kind) for kind in ("md5", "sha256") if getattr(archive, kind)}
    return {"file": archive.file, "bytes": file.stat().st_size, **digests, "url": source_of(file)}


def _write(
    folder: Path, contents: Contents, rows: np.ndarray, record: dict, larger_size: int | None, workers: int | None
) -> Path:
    mark, labels = folder / "benchmark.json", folder / "labels.npy"
    folder.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)  # from here on the folder is not whole
    labels.unlink(missing_ok=True)

    failed: dict[int, str] | None = {} if record["path"] else None  # of the user's images only

    def write(size: int, file: str) -> None:
        name, count, path = record["name"], len(rows), folder / file
        say(f"{name}: {count:,} images of {size} x {size}, {count * size * size * 3 / 1e6:,.0f} MB, into {path}")
        position = np.full(contents.count, -1)
        position[rows] = np.arange(count)
        stream = ((int(position[row]), where, data) for row, where, data in contents.images(rows))
        with atomic(path) as temporary:
            write_images(
                temporary,
                stream,
                count=count,
                size=size,
                workers=workers,
                upright=contents.upright,
                label=name,
                unreadable=failed,
            )

    write(record["size"][0], "images.npy")
    if failed:
        rows = _leave_out(folder / "images.npy", contents, rows, failed, record)
    if record["unreadable"]:
        say(f"{record['name']}: {describe_unreadable(record['unreadable'])}")
    record |= {"images_sha256": sha256(folder / "images.npy"), "larger": None, "labels_sha256": None}
    if larger_size:
        write(larger_size, f"images-{larger_size}.npy")
        record["larger"] = {"size": larger_size, "sha256": sha256(folder / f"images-{larger_size}.npy")}
    if contents.names is not None:
        write_names(folder, [contents.names[row] for row in rows])
    if contents.labels is not None:
        with atomic(labels) as temporary:
            np.save(temporary, contents.labels[rows])
        record["labels_sha256"] = sha256(labels)
    record["versions"] = {
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "pillow", "scikit-learn")},
    }
    write_json(mark, record)
    return mark
