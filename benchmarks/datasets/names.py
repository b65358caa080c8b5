"""names.txt: the name of every image of a prepared benchmark, one per line in the order of images.npy."""

import json
from collections.abc import Sequence
from pathlib import Path

from scl.engine.io import Damaged, atomic

FILE = "names.txt"


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Write the names as JSON strings without their quotes, so that a line break in a name does not end its line."""
    with atomic(folder / FILE) as temporary:
        temporary.write_text("".join(json.dumps(name)[1:-1] + "\n" for name in names), encoding="utf-8")


def read_names(folder: Path, count: int) -> list[str]:
    """The names of the `count` images in `folder`. Raises Damaged."""
    path = folder / FILE
    try:
        names = [json.loads(f'"{line}"') for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise Damaged(f"{path}: cannot be read ({error}); prepare the benchmark again") from None
    if len(names) != count:
        raise Damaged(f"{path}: {len(names)} names for {count} images; prepare the benchmark again")
    return names
