"""Label guard: while a method trains, its process cannot open labels by accident.

It stops accidents, not intent: it sees what Python opens by a path (`open`, numpy, zipfile, ...), not what a
subprocess or a C library opens, nor a copy or hard link under another name. The guarantee is that methods are given no
labels, with a test that permuting the labels changes nothing; this is only a safety net.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = re.compile(
    r"labels.*(?<!\.py)(?<!\.pyc)(?<!\.so)"  # source files may have such a name
    r"|(metrics|clusters)\.json"  # scores of a run, and its clusters against the classes
    r"|image_names\.json"  # file names often contain the class
    r"|.*(?<!\.pth)\.(tar(\.\w+)*|tgz|zip)",  # archives contain labels; .pth.tar is a usual name of weights
    re.IGNORECASE | re.DOTALL,
)

_archives: list[tuple[str, ...]] = []  # per active guard: the archives folder, and the targets of links in it


@contextlib.contextmanager
def forbid_label_access(benchmark: str | Path) -> Iterator[None]:
    """Raise PermissionError inside the block on opening labels, archives, metrics.json and clusters.json, or symbolic
    links to them.

    benchmark: folder of a prepared benchmark; any file in `archives` beside it is refused, whatever its name.
    """
    _install()
    folder = Path(benchmark).parent / "archives"
    links = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_symlink()]
    places = tuple(os.path.join(os.path.realpath(path), "") for path in (folder, *links))
    _archives.append(places)
    try:
        yield
    finally:
        _archives.remove(places)  # not pop(): another thread may have begun or ended meanwhile


@functools.cache
def _install() -> None:
    """Once per process: audit hooks cannot be removed, only silenced."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _archives and event == "open" and not isinstance(arguments[0], int) and _forbidden(arguments[0]):
        name = os.fsdecode(arguments[0])
        raise PermissionError(f"{name}: labels and files that may contain some cannot be opened while a method trains")


def _forbidden(path: Any) -> bool:
    try:
        path = os.fsdecode(path)
        real = os.path.realpath(path)
    except (ValueError, TypeError):  # not a path: open() itself fails
        return False
    if path in sys.path or real in sys.path:  # a package installed as a zip
        return False
    named_so = any(NAMES.fullmatch(os.path.basename(name)) for name in (path, real))
    return named_so or any(os.path.join(real, "").startswith(places) for places in tuple(_archives))
