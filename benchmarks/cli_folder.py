"""`scl cluster` and `scl assign`: what they do, and their arguments as in SUBCOMMANDS of benchmarks/cli.py."""

from pathlib import Path

from benchmarks.cli_arguments import ALL_THREADS, argument, new_file, show, within
from scl.util.imports import gc_paused
from scl.util.text import expanded, printable


def cluster(threads, **request):
    """Cluster a folder of images: prepare, train, assign, and write clusters.csv.

    The same command resumes, and trains again if images were added, removed or changed.
    """
    with gc_paused():
        from benchmarks.cluster import cluster_folder
        from benchmarks.folder_page import summary_lines
    from benchmarks.folder_study import Request

    found = cluster_folder(Request(**request), threads=threads)
    show(*map(printable, [*summary_lines(found.summary), *found.paths]))


def assign(run, folder, out, gpus, threads):
    """Put the images of a folder into the clusters of a finished run, and write the same CSV as `scl cluster`."""
    with gc_paused():
        from benchmarks.cluster import assign_folder, write_csv
        from benchmarks.folder_page import summary_lines
    found = assign_folder(run, folder, gpus=gpus, threads=threads)
    table = write_csv(found, out or Path(f"{folder.resolve().name}-assigned.csv"))
    show(*map(printable, [*summary_lines(found.summary), table]))


GPUS = argument("--gpus", "0 for the CPU (default: a GPU if there is one)", default=1, **within(0, 1))
MACHINE = ("machine", GPUS, ALL_THREADS)
STRICT = "stop before training if an image cannot be read (default: list it and leave it out)"
WEIGHTS = "start from a pretrained ResNet: a name of timm, such as resnet50.a1_in1k, or a file (default: none)"
CONFIG = "settings (default: config/folder.yaml or config/folder-cpu.yaml)"
OUT = "folder of the results (default: <name of FOLDER>-clusters in the working directory)"
CSV = "file for the CSV (default: <name of FOLDER>-assigned.csv in the working directory)"
CLUSTER: list = [
    "photos --clusters 12",
    argument("folder", "images, or one sub-folder per class, or a .npy file", type=expanded, metavar="FOLDER"),
    argument("--clusters", "number of clusters (default: of classes)", **within(2, 10**6, "K")),
    argument("--strict", STRICT, action="store_true"),
    "method",
    argument("--method", "scl, scan, selflabel, simclr, pica, or kmeans", default="scl"),
    argument("--size", "side of the images in pixels (default: by device)", **within(8, 1024, "PX")),
    argument("--epochs", "of each stage of the method (default: by the number of images)", **within(1, 10**6)),
    argument("--seed", "of all random numbers", default=0, **within(0, 2**63 - 1, "S")),
    argument("--weights", WEIGHTS, metavar="NAME_OR_FILE"),
    argument("--config", CONFIG, type=expanded, metavar="FILE"),
    "output",
    argument("--out", OUT, type=expanded, metavar="DIR"),
    argument(
        "--sort", "also make sorted/, one folder of images per cluster (default: no)", choices=["links", "copies"]
    ),
    *MACHINE,
]
ASSIGN: list = [
    "photos-clusters new",
    argument("run", "folder that scl cluster made, or that of a finished run", type=expanded, metavar="RUN_OR_DIR"),
    argument("folder", "the new images", type=expanded, metavar="FOLDER"),
    "output",
    argument("--out", CSV, type=new_file, metavar="FILE"),
    *MACHINE,
]
