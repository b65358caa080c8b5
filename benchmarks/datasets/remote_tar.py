"""A big uncompressed tar at a URL: its index by reading headers, one member by a range request.

All functions that use the network raise TransferError.
"""

import contextlib
import hashlib
import io
import json
import tarfile
from pathlib import Path

from benchmarks.bars import ProgressBar
from benchmarks.datasets.connection import plain
from benchmarks.datasets.dataset import refuse_duplicates
from benchmarks.datasets.download import part_of, settle
from benchmarks.datasets.slices import tar_members
from benchmarks.datasets.transfer import read_range, transfer
from scl.engine.io import write_json
from scl.util.text import printable, say

READ = 4096  # bytes per request while reading the index; a header has 512


def cache_folder(url: str, archives: Path, *, timeout: float, header: str | None = None) -> Path:
    """The folder in `archives` for parts of the file at `url`. Its name depends on the URL and on the size of the file,
    so that parts of different files are not mixed."""
    _, total = read_range(url, 0, 1, timeout=timeout, header=header)
    return archives / f"{_prefix(url)}{total}"


def cached_folders(url: str, archives: Path) -> list[Path]:
    """The folders in `archives` of this and of earlier files at `url`. Does not use the network."""
    return sorted(archives.glob(f"{_prefix(url)}*"))


def _prefix(url: str) -> str:
    return f"ilsvrc-{hashlib.sha256(plain(url).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}-"


def members(url: str, cache: Path, *, timeout: float, header: str | None = None) -> dict[str, tuple[int, int]]:
    """{member: (offset, size)} of the tar at `url`, cached in `cache` (1,000 requests take minutes). Raises ValueError
    if it is not a tar of tars."""
    index = cache / "index.json"
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):  # or damaged
        kept = json.loads(index.read_bytes())["members"]
        return {name: (int(offset), int(size)) for name, (offset, size) in kept.items()}
    _, total = read_range(url, 0, 1, timeout=timeout, header=header)
    say(f"{plain(url)}: reading the index of {total / 1e9:,.1f} GB by range requests")
    found = _read_index(_Remote(url, total, timeout, header))
    write_json(index, {"url": plain(url), "bytes": total, "members": found})
    return found


def download_member(url: str, target: Path, place: tuple[int, int], *, timeout: float, header: str | None) -> None:
    """The member at `place` (offset, size) of the tar at `url` as the file `target`; a killed download resumes."""
    if not target.exists():
        offset, size = place
        transfer(url, part_of(target), size=size, timeout=timeout, start=offset, header=header)
        settle(target)


def _read_index(remote: "_Remote") -> dict[str, tuple[int, int]]:
    url, found = plain(remote.url), []
    try:
        with ProgressBar("index", remote.total, unit="B") as bar:
            for name, offset, size in tar_members(io.BufferedReader(remote, READ)):
                if not name.endswith(".tar"):
                    raise ValueError(no_synsets(url, name))
                found.append((name, (offset, size)))
                bar.update(offset + size - bar.done)
    except tarfile.TarError as error:
        raise ValueError(
            f"{url}: these {remote.total:,} bytes are not an uncompressed tar ({error}); if they are a login page, "
            "give downloads.imagenet.header"
        ) from error
    refuse_duplicates(url, [name for name, _ in found])
    return dict(found)


def no_synsets(where: Path | str, name: str) -> str:
    """The message for the tar `where` with the member `name`, which is not a tar."""
    problem = f"{where}: holds {printable(name)}, not the tars of the synsets"
    return f"{problem}; needed is ILSVRC2012_img_train.tar as published"


class _Remote(io.RawIOBase):
    """A file at a URL, read by range requests."""

    def __init__(self, url: str, total: int, timeout: float, header: str | None) -> None:
        self.url, self.total, self.timeout, self.header, self.position = url, total, timeout, header, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.total}[whence]
        return self.position

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self.total - self.position))
        if count:
            buffer[:count], _ = read_range(self.url, self.position, count, timeout=self.timeout, header=self.header)
            self.position += count
        return count
