"""`scl cluster` and `scl assign`: what they do, and their arguments as in SUBCOMMANDS of benchmarks/cli.py."""

import argparse
from pathlib import Path

from scl.util.imports import gc_paused
from scl.util.text import printable


def cluster(sort, strict, threads, **request):
    """Cluster a folder of images: prepare, train, assign, and write clusters.csv.

    The same command resumes, and trains again if images were added, removed or changed.
    """
    with gc_paused():
        from benchmarks.cluster import check_sortable, cluster_folder, summary_lines, write_results
    from benchmarks.folder_study import Request

    asked = Request(**request)
    if sort:
        check_sortable(asked.folder, asked.results / "sorted")
    found = cluster_folder(asked, strict=strict, threads=threads)
    paths = write_results(found, asked.results, sort=sort)
    for line in [*summary_lines(found.summary), *map(str, paths)]:
        print(printable(line))


def assign(run, folder, out, gpus, threads):
    """Put the images of a folder into the clusters of a finished run, and write the same CSV as `scl cluster`."""
    out = out or Path(f"{folder.resolve().name}-assigned.csv")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ValueError(f"--out: {out}: {'a folder' if out.is_dir() else 'its folder does not exist'}; name a file")
    with gc_paused():
        from benchmarks.cluster import assign_folder, summary_lines, write_csv
    found = assign_folder(run, folder, gpus=gpus, threads=threads)
    for line in [*summary_lines(found.summary), write_csv(found, out)]:
        print(printable(line))


def _integer(least: int, most: int):
    """Type of an argument."""

    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least} .. {most}")
        return value

    return number


def _argument(name: str, text: str, **settings) -> tuple[str, dict]:
    return name, {"help": text, **settings}


MACHINE = (
    "machine",
    _argument("--gpus", "0 for the CPU (default: a GPU if there is one)", default=1, type=_integer(0, 1), metavar="N"),
    _argument("--threads", "CPU threads (default: all cores)", type=_integer(1, 1024), metavar="N"),
)
CLUSTER: list = [
    "photos --clusters 12",
    _argument("folder", "images, or one sub-folder per class, or a .npy file", type=Path, metavar="FOLDER"),
    _argument("--clusters", "number of clusters (default: of classes)", type=_integer(2, 10**6), metavar="K"),
    _argument(
        "--strict",
        "stop before training if an image cannot be read (default: list it and leave it out)",
        action="store_true",
    ),
    "method",
    _argument("--method", "scl, scan, selflabel, simclr, pica, or kmeans (default: scl)", default="scl"),
    _argument("--size", "side of the images in pixels (default: by device)", type=_integer(8, 1024), metavar="PX"),
    _argument(
        "--epochs",
        "of each stage of the method (default: by the number of images)",
        type=_integer(1, 10**6),
        metavar="N",
    ),
    _argument("--seed", "of all random numbers (default: 0)", default=0, type=_integer(0, 2**63 - 1), metavar="S"),
    _argument(
        "--weights",
        "start from a pretrained ResNet: a name of timm, such as resnet50.a1_in1k, or a file (default: none)",
        metavar="NAME_OR_FILE",
    ),
    _argument(
        "--config", "settings (default: config/folder.yaml or config/folder-cpu.yaml)", type=Path, metavar="FILE"
    ),
    "output",
    _argument("--out", "folder of the results (default: <name of FOLDER>-clusters)", type=Path, metavar="DIR"),
    _argument(
        "--sort", "also make sorted/, one folder of images per cluster (default: no)", choices=["links", "copies"]
    ),
    *MACHINE,
]
ASSIGN: list = [
    "photos-clusters new",
    _argument("run", "folder that scl cluster made, or that of a finished run", type=Path, metavar="RUN_OR_DIR"),
    _argument("folder", "the new images", type=Path, metavar="FOLDER"),
    "output",
    _argument("--out", "file for the CSV (default: <name of FOLDER>-assigned.csv)", type=Path, metavar="FILE"),
    *MACHINE,
]
