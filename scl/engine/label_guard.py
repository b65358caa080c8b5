"""Label guard: while a method trains, its process cannot open labels by accident.

It stops accidents, not intent: it sees what Python opens by a path (`open`, numpy, zipfile, ...), not what a
subprocess or a C library opens, nor a copy under another name. The guarantee is that methods are given no labels, and
a test that permuted labels change nothing; this is a safety net below it.
"""

import contextlib
import functools
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NAMES = re.compile(
    r"labels.*(?<!\.py)(?<!\.pyc)(?<!\.so)"  # source files may have such a name
    r"|(metrics|clusters)\.json"  # scores of a run, and its clusters against the classes
    r"|image_names\.json"  # file names often contain the class
    r"|.*(?<!\.pth)\.(tar(\.\w+)*|tgz|zip)",  # archives contain labels; .pth.tar is a usual name of weights
    re.IGNORECASE | re.DOTALL,
)

# (device, inode, modification time): file systems give the inode of a deleted file to the next new one
Place = tuple[int, int, int]

_rules: list[tuple[set[Place], tuple[str, ...]]] = []  # of each guard that is on: places of labels, folders


@contextlib.contextmanager
def forbid_label_access(*benchmarks: str | Path) -> Iterator[None]:
    """Raise PermissionError inside the block for opening labels, archives, metrics.json and clusters.json, or links to
    them.

    benchmarks: folders of prepared benchmarks. The labels of all benchmarks beside them and the files in `archives`
    there are identified by Place too, which catches hard links and other names.
    """
    _install()
    rule = _places(benchmarks), tuple(map(_archives, benchmarks))
    _rules.append(rule)
    try:
        yield
    finally:
        _rules.remove(rule)  # not the last one: another thread may have begun or ended meanwhile


@functools.cache
def _install() -> None:
    """Once per process: audit hooks cannot be removed, only silenced."""
    sys.addaudithook(_refuse)


def _archives(benchmark: str | Path) -> str:
    return os.path.join(os.path.realpath(Path(benchmark).parent / "archives"), "")


def _place(status: os.stat_result) -> Place:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _places(benchmarks: Iterable[str | Path]) -> set[Place]:
    """Places of the labels and archives beside the benchmarks."""
    found = set()
    for data in {Path(folder).parent for folder in benchmarks}:
        for pattern in ("*/labels*", "archives/*", "archives/*/*"):
            for path in data.glob(pattern):
                with contextlib.suppress(OSError):  # a link to nowhere
                    status = path.stat()
                    if stat.S_ISREG(status.st_mode):
                        found.add(_place(status))
    return found


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _rules and event == "open" and not isinstance(arguments[0], int) and _forbidden(arguments[0]):
        name = os.fsdecode(arguments[0])
        raise PermissionError(f"{name}: labels and files that may contain some cannot be opened while a method trains")


def _forbidden(path: Any) -> bool:
    try:
        path = os.fsdecode(path)
        real = os.path.realpath(path)
        if path in sys.path or real in sys.path:  # a package installed as a zip
            return False
        if any(NAMES.fullmatch(os.path.basename(name)) for name in (path, real)):
            return True
        if any(real.startswith(folders) for _, folders in tuple(_rules)):
            return True
        place = _place(os.stat(path))
    except (OSError, ValueError, TypeError):  # no such file, or not a path: open() itself fails
        return False
    return any(place in places for places, _ in tuple(_rules))
