"""From archives to data/<benchmark>/: images.npy, labels.npy, image_names.json (a list, one name per image), and
benchmark.json, the completion marker."""

import importlib
import json
import platform
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import (
    IMAGES_PER_CLASS,
    Archive,
    Dataset,
    Downloads,
    ImageNetSource,
    archives_of,
    dataset_named,
)
from benchmarks.datasets.dataset import RawDataset, Sources, ranges, subset_rows
from benchmarks.datasets.download import fetch, source_of
from benchmarks.datasets.folder import fingerprint, readable_now
from benchmarks.datasets.pixels import HEIF, RESIZE, write_images
from scl.engine import failures
from scl.engine.io import Damaged, atomic, sha256, write_json
from scl.engine.locks import locked
from scl.engine.prepared import describe
from scl.util.text import did_you_mean, expanded, printable, say

NAMES = "image_names.json"
CHANGED = "images were added, removed or changed in its folder"


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
) -> Path:
    """Prepare the benchmark `name` in `folder` and return its benchmark.json, which is written last.

    dataset: its name in the catalog. archives: where downloads are kept. size: pixels per side (default: the data
    set's). larger_size: also store the images at this size, for methods that ask for it. subset: the number of images,
    chosen without labels. clusters: default the number of classes. path: the user's folder, for the data set `folder`.
    Raises ValueError or OSError with a fix; no incomplete file has a final name.
    """
    info, downloads = dataset_named(dataset), downloads or Downloads()
    wanted = archives_of(info, downloads)
    files = tuple(fetch(archive, Path(archives), downloads=downloads) for archive in wanted)
    read = importlib.import_module(f"benchmarks.datasets.{info.reader}").read
    own = expanded(path) if path else None
    seen = fingerprint(own) if own and own.exists() else None  # before the images are read
    raw = read(info, Sources(files, own, Path(archives), downloads))
    if raw.note:
        say(f"{name}: {raw.note}")
    official = _check_counts(name, info, raw, all(archive.official for archive in wanted))
    spans = ranges(raw.splits)
    rows = subset_rows(raw.splits, subset) if subset else {split: np.arange(*span) for split, span in spans.items()}
    fetched = [
        {"file": archive.file, "bytes": file.stat().st_size, **archive.digests, "url": source_of(file)}
        for archive, file in zip(wanted, files)
    ]
    record = {
        "name": name,
        "dataset": dataset,
        **_shape(name, info, raw, rows, size or info.size, clusters),
        "subset": subset,
        "path": None if path is None else str(path),
        "official": official,
        "fingerprint": seen,
        "unreadable": dict(raw.unreadable),
        "resize": RESIZE,
        "sources": raw.sources + fetched,
    }
    return _write(Path(folder), raw, np.concatenate(list(rows.values())), record, larger_size)


def prepare_for(study, name: str, *, again: bool = True) -> Path:
    """Prepare the benchmark `name` of a study, one process at a time; returns its benchmark.json. Raises as `prepare`
    does. again: even if it is already prepared as configured."""
    block, dataset, folder = study.benchmarks[name], study.dataset(name), study.data / name
    with locked(folder / ".lock", folder):
        with suppress(Damaged):  # or missing
            if not again and not unlike(describe(folder), block, dataset, study.downloads):
                return folder / "benchmark.json"
        with failures.recorded(folder, block):
            return prepare(
                name,
                dataset=dataset.name,
                folder=folder,
                archives=study.data / "archives",
                downloads=study.downloads,
                **{key: getattr(block, key) for key in ("size", "larger_size", "subset", "clusters", "path")},
            )


def fetch_for(study, file: str) -> Path:
    """Download an archive of a study; returns its path. Raises as `fetch` does, and ValueError for other files."""
    needed = {name: archives_of(study.dataset(name), study.downloads) for name in study.benchmarks}
    archives = {archive.file: archive for found in needed.values() for archive in found}
    if file not in archives:
        raise ValueError(f"{file}: not an archive of this study{did_you_mean(file, archives)}")
    with ExitStack() as stack:
        for name, found in needed.items():
            if archives[file] in found:
                stack.enter_context(failures.recorded(study.data / name, study.benchmarks[name]))
        return fetch(archives[file], study.data / "archives", downloads=study.downloads)


def unlike(facts: dict, block, dataset: Dataset, downloads: Downloads) -> str:
    """How a prepared benchmark differs from the configuration; "" if it does not.

    facts: its benchmark.json. block: its block in the configuration.
    """
    size = block.size or dataset.size
    found = {**facts, "larger_size": (facts.get("larger") or {}).get("size")}
    wanted = {
        "dataset": dataset.name,
        "size": [size, size],
        "subset": block.subset,
        "clusters": block.clusters or len(facts.get("classes") or ()),
        "path": block.path,
        "larger_size": block.larger_size,
    }
    for key, value in wanted.items():
        if found.get(key) != value:
            return f"{key}: {found.get(key)}, wanted {value}"
    if dataset.imagenet and (difference := _unlike_imagenet(facts, block, downloads.imagenet)):
        return difference
    sources = {source.get("file"): source for source in facts.get("sources") or ()}
    for archive in archives_of(dataset, downloads):
        if difference := _unlike_archive(sources.get(archive.file, {}), archive):
            return difference
    if is_changed(block, facts.get("fingerprint")):
        return CHANGED
    if block.path and readable_now(expanded(block.path), facts.get("unreadable") or {}):
        return "images that were left out can be read now"
    return ""


def _unlike_imagenet(facts: dict, block, source: ImageNetSource) -> str:
    per_class = source.images_per_class
    if facts.get("official") != (per_class == IMAGES_PER_CLASS) or facts.get("count") != (
        block.subset or per_class * len(facts.get("classes") or ())
    ):
        return f"downloads.imagenet.images_per_class: another number, wanted {per_class}"
    local = None if source.remote else source.folder or source.tar
    if not (facts.get("sources") and local and expanded(local).exists()):  # prepared images may have been copied here
        return ""
    first = facts["sources"][0]
    found = "a URL" if first.get("url") else "a folder" if first.get("file") == "train/" else "a tar"
    wanted = "a folder" if source.folder else "a tar"
    return f"downloads.imagenet: {found}, wanted {wanted}" if found != wanted else ""


def _unlike_archive(recorded: dict, archive: Archive) -> str:
    """recorded: the source of this name in benchmark.json."""
    known = {kind: recorded[kind] for kind in ("md5", "sha256") if recorded.get(kind)}
    shared = known.keys() & archive.digests.keys()
    if not known or (shared and all(known[kind] == archive.digests[kind] for kind in shared)):
        return ""
    found, wanted = (
        ", ".join(f"{kind} {value}" for kind, value in digests.items()) for digests in (known, archive.digests)
    )
    return f"{archive.file}: {found}, wanted {wanted}"


def is_changed(block, known: str | None) -> bool:
    """Whether the user's images of a benchmark differ from those with the fingerprint `known`; False where they are not
    on this machine (prepared images or results may have been copied to it)."""
    if not block.path or not (path := expanded(block.path)).exists():
        return False
    try:
        return fingerprint(path) != known
    except (ValueError, OSError):  # preparing them reports the problem
        return True


def _check_counts(name: str, info: Dataset, raw: RawDataset, official: bool) -> bool:
    """Whether this is the published data set. Raises ValueError for the published checksum with other counts."""
    official = official and raw.official
    if not info.counts or raw.splits == info.counts:
        return official
    difference = f"{name}: {raw.splits} images where {info.title} has {info.counts}"
    if official:
        raise ValueError(difference)
    say(f"{difference}; recorded as unofficial, since the configuration asks for another archive or for fewer images")
    return False


def _shape(name, info: Dataset, raw: RawDataset, rows: dict[str, np.ndarray], size: int, clusters: int | None) -> dict:
    """The part of benchmark.json that describes the arrays."""
    splits = ranges({split: len(chosen) for split, chosen in rows.items()})
    count = sum(map(len, rows.values()))
    clusters = clusters or len(raw.classes)
    if not clusters:
        raise ValueError(f"{name}: clusters: is needed, as the images have no classes")
    if not 1 <= clusters <= count:
        raise ValueError(f"{name}: clusters: {clusters} is not within 1 .. {count}, the number of images")
    return {
        "count": count,
        "size": [size, size],
        "clusters": clusters,
        "classes": raw.classes,
        "splits": splits,
        "protocols": info.protocols,
    }


def _write(folder: Path, raw: RawDataset, rows: np.ndarray, record: dict, larger_size: int | None) -> Path:
    """Write arrays of the chosen rows, then `record` with their checksums as benchmark.json."""
    marker, labels, names = folder / "benchmark.json", folder / "labels.npy", folder / NAMES
    folder.mkdir(parents=True, exist_ok=True)
    for file in (marker, names, labels):  # from here on the folder is incomplete
        file.unlink(missing_ok=True)

    def write(size: int, file: str, unreadable: dict[int, str] | None = None) -> None:
        name, count, path = record["name"], len(rows), folder / file
        say(f"{name}: {count:,} images of {size} x {size}, {count * size * size * 3 / 1e6:,.0f} MB, into {path}")
        position = {row: at for at, row in enumerate(rows.tolist())}
        images = ((position[row], where, data) for row, where, data in raw.images(rows))
        with atomic(path) as temporary:
            write_images(
                temporary, images, count=count, size=size, upright=raw.upright, label=name, unreadable=unreadable
            )

    failed: dict[int, str] = {}
    write(record["size"][0], "images.npy", failed if record["path"] else None)  # only a user's images may be left out
    if failed:
        rows = _leave_out(folder / "images.npy", raw.names, rows, failed, record)
    if record["unreadable"]:
        say(f"{record['name']}: {describe_unreadable(record['unreadable'])}")
    record |= {"images_sha256": sha256(folder / "images.npy"), "larger": None, "labels_sha256": None}
    if larger_size:
        write(larger_size, f"images-{larger_size}.npy")
        record["larger"] = {"size": larger_size, "sha256": sha256(folder / f"images-{larger_size}.npy")}
    if raw.labels is not None:
        with atomic(labels) as temporary:
            np.save(temporary, raw.labels[rows])
        record["labels_sha256"] = sha256(labels)
    kept = [raw.names[row] for row in rows]
    write_json(names, kept)
    packages = ["numpy", "pillow", "scikit-learn"]
    if any(name.lower().endswith(HEIF) for name in kept):
        packages.append("pillow-heif")
    record["versions"] = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    write_json(marker, record)
    return marker


def read_names(folder: Path) -> list[str]:
    """The name of each image of a prepared benchmark, by row. Raises Damaged."""
    path = folder / NAMES
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path}: cannot be read ({error}); prepare the benchmark again") from None


def _leave_out(path: Path, names: Sequence[str], rows: np.ndarray, failed: dict[int, str], record: dict) -> np.ndarray:
    """Remove the rows that could not be read from images.npy, list them in the record, and return the others."""
    kept = np.setdiff1d(np.arange(len(rows)), list(failed))
    for at, why in sorted(failed.items()):
        name = names[rows[at]]
        record["unreadable"][name] = why.removeprefix(f"{name}: ")
    if not len(kept) or record["clusters"] > len(kept):
        name, why = min(record["unreadable"].items())
        raise ValueError(
            f"{record['name']}: only {len(kept)} of {len(rows)} images can be read, too few for {record['clusters']} "
            f"clusters ({name}: {why})"
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
    """The number of files that were left out, and a line for each of the first `most`."""
    lines = [f"  {printable(name)}: {printable(why)}" for name, why in sorted(unreadable.items())[:most]]
    more = [f"  and {len(unreadable) - most} more"] if len(unreadable) > most else []
    return "\n".join([f"{len(unreadable)} unreadable image(s) left out:", *lines, *more])
