"""`scl cluster` and `scl assign`: their options, and what they print."""

import argparse
from pathlib import Path

from scl.util.imports import uncollected
from scl.util.text import printable


def cluster(options):
    """Cluster a folder of images: prepare, train, assign, and write clusters.csv. The same command resumes."""
    with uncollected():
        from benchmarks.cluster import check_sortable, cluster_folder, summary_lines, write_results
    from benchmarks.folder_study import Request

    fields = ("folder", "clusters", "method", "size", "epochs", "seed", "out", "weights", "config", "gpus")
    request = Request(**{name: getattr(options, name) for name in fields})
    if options.sort:
        check_sortable(request.folder, request.results / "sorted")
    found = cluster_folder(request, strict=options.strict, threads=options.threads)
    paths = write_results(found, request.results, sort=options.sort)
    for line in [*summary_lines(found.summary), *map(str, paths)]:
        print(printable(line))


def assign(options):
    """Put the images of a folder into the clusters of a finished run, and write the same CSV as `scl cluster`."""
    out = options.out or Path(f"{options.folder.resolve().name}-assigned.csv")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ValueError(f"--out: {out}: {'a folder' if out.is_dir() else 'its folder does not exist'}; name a file")
    with uncollected():
        from benchmarks.cluster import assign_folder, summary_lines, write_csv
    found = assign_folder(options.run, options.folder, gpus=options.gpus, threads=options.threads)
    for line in [*summary_lines(found.summary), write_csv(found, out)]:
        print(printable(line))


def _count(least: int, most: int) -> dict:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least} .. {most}")
        return value

    return {"type": number, "metavar": "N"}


_MACHINE = {
    "gpus": {**_count(0, 1), "default": 1, "help": "0: on the CPU (default: a GPU if there is one)"},
    "threads": {**_count(1, 1024), "help": "threads on the CPU (default: all cores)"},
}
CLUSTER = (
    (
        "folder",
        {"type": Path, "metavar": "FOLDER", "help": "of images, or of one sub-folder per class; or a .npy file"},
    ),
    {
        "clusters": {**_count(2, 10**6), "metavar": "K", "help": "number of clusters (default: of class sub-folders)"},
        "method": {"default": "scl", "help": "scl (the default), scan, selflabel, simclr, pica, or kmeans"},
        "size": {**_count(8, 1024), "metavar": "PX", "help": "side of the images in pixels (default: by device)"},
        "epochs": {**_count(1, 10**6), "help": "of each stage of the method (default: by the number of images)"},
        "seed": {**_count(0, 2**63 - 1), "default": 0, "metavar": "S", "help": "default: %(default)s"},
        "out": {"type": Path, "metavar": "DIR", "help": "folder of the results (default: <name of FOLDER>-clusters)"},
        "weights": {
            "metavar": "NAME_OR_FILE",
            "help": "start from a pretrained ResNet: its name in timm, such as resnet50.a1_in1k, or a file",
        },
        "sort": {"choices": ["links", "copies"], "help": "also make sorted/, one folder of images per cluster"},
        "strict": {"action": "store_true", "help": "stop before training if an image cannot be read"},
        "config": {
            "type": Path,
            "metavar": "FILE",
            "help": "settings (default: config/folder.yaml or folder-cpu.yaml)",
        },
        **_MACHINE,
    },
)
ASSIGN = (
    ("run", {"type": Path, "metavar": "RUN_OR_DIR", "help": "folder that scl cluster made, or that of a finished run"}),
    ("folder", {"type": Path, "metavar": "FOLDER", "help": "the new images"}),
    {"out": {"type": Path, "metavar": "FILE", "help": "default: <name of FOLDER>-assigned.csv"}, **_MACHINE},
)
