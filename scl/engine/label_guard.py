"""Label guard: while a method trains, its process cannot open labels by accident.

It stops accidents, not intent: it sees what Python opens by a path (`open`, numpy, zipfile, ...), not what a
subprocess or a C library opens, nor a copy under another name. The guarantee is that methods are given no labels, and
a test that permuted labels change nothing; this is a safety net below it.
"""

import contextlib
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
    r"|.*\.(tar(\.\w+)*|tgz|zip)",  # archives contain labels
    re.IGNORECASE | re.DOTALL,
)

# (device, inode, modification time): file systems give the inode of a deleted file to the next new one
Place = tuple[int, int, int]

# (places of labels, folders) while the guard is on; audit hooks cannot be removed, only silenced
_rules: tuple[frozenset[Place], tuple[str, ...]] | None = None
_installed = False


@contextlib.contextmanager
def forbid_label_access(*benchmarks: str | Path) -> Iterator[None]:
    """Raise PermissionError inside the block for opening labels, archives, metrics.json and clusters.json, or links to
    them.

    benchmarks: folders of prepared benchmarks. The labels of all benchmarks beside them and the files in `archives`
    there are identified by Place too, which catches hard links and other names.
    """
    global _rules, _installed
    if not _installed:
        sys.addaudithook(_refuse)
        _installed = True
    before = _rules
    places, folders = before or (frozenset(), ())
    _rules = places | _places(benchmarks), (*folders, *(_archives(folder) for folder in benchmarks))
    try:
        yield
    finally:
        _rules = before


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
    if _rules and event == "open" and not isinstance(arguments[0], int) and _forbidden(arguments[0], *_rules):
        name = os.fsdecode(arguments[0])
        raise PermissionError(f"{name}: labels and files that may contain some cannot be opened while a method trains")


def _forbidden(path: Any, places: frozenset[Place], folders: tuple[str, ...]) -> bool:
    try:
        path = os.fsdecode(path)
        real = os.path.realpath(path)
        if path in sys.path or real in sys.path:  # a package installed as a zip
            return False
        if any(NAMES.fullmatch(os.path.basename(name)) for name in (path, real)) or real.startswith(folders):
            return True
        status = os.stat(path)
    except (OSError, ValueError, TypeError):  # no such file, or not a path: open() itself fails
        return False
    return _place(status) in places
