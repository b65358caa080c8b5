"""Features that a run keeps for k-means, which clusters them after training (scl/engine/clustering.py).

`features/` of a run contains `<epoch>.npz` for each point of the curve (0: a method that does not train), with the
features of the `evaluated` images and, if k-means is fitted to others, of those (`fitted`), and `further.npz`, with
the other arrays of assignments.npz. Like the checkpoint, the folder is not declared as an output to Snakemake, which
deletes the outputs of a job that failed or was interrupted: the run would have to be trained again. Imports no torch.
"""

import shutil
from pathlib import Path

import numpy as np

from scl.engine.io import Damaged, atomic, set_aside, sha256

FOLDER, FURTHER = "features", "further.npz"


def name_of(epoch: int) -> str:
    return f"{epoch}.npz"


def keep(directory: Path, name: str, arrays: dict[str, np.ndarray]) -> str:
    """Write arrays to `features/<name>` of the run in `directory`; returns the SHA-256 of the file."""
    path = directory / FOLDER / name
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy takes ** for allow_pickle
    return sha256(path)


def load(directory: Path, name: str, checksum: str) -> dict[str, np.ndarray]:
    """The arrays of `features/<name>`. Raises Damaged if the file is missing or, with the file set aside, has another
    checksum."""
    path = directory / FOLDER / name
    if not path.exists():
        raise Damaged(f"{path}: missing; train this run again")
    if sha256(path) != checksum:  # the record is kept: Snakemake cannot retry a job whose input is gone
        raise set_aside(path, "damaged")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def lost(directory: Path, files: dict[str, str], *, hashed: bool = True) -> list[str]:
    """Names of the files {name: SHA-256} that are missing or, if `hashed`, damaged."""
    paths = {name: directory / FOLDER / name for name in files}
    return [name for name, path in paths.items() if not path.exists() or (hashed and sha256(path) != files[name])]


def remove(directory: Path) -> None:
    """Delete the features of a run, once they are clustered."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)
