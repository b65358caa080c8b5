"""A big uncompressed tar behind a URL: its index by reading headers, one member of it by a range request."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from benchmarks.datasets.connection import TransferError, plain
from benchmarks.datasets.download import lock_of, settle
from benchmarks.datasets.progress import progress
from benchmarks.datasets.transfer import read_range, transfer
from scl.engine.io import write_json
from scl.engine.locks import locked
from scl.util.text import printable, say

READ = 4096  # bytes a request while walking; a header has 512


def members(url: str, index: Path, *, timeout: float, header: str | None = None) -> dict[str, tuple[int, int]]:
    """{member: (offset, size)} of the tar at `url`, kept in `index` (1,000 requests are some minutes)."""
    index.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(index), index.name):
        try:
            _, total = read_range(url, 0, 1, timeout=timeout, header=header)
            found = _kept(index, url, total)
            if found is None:
                say(f"{plain(url)}: reading the index of {total / 1e9:,.1f} GB by range requests")
                found = _walk(url, total, timeout, header)
                write_json(index, {"url": plain(url), "bytes": total, "members": found})
        except TransferError as error:
            raise _refusal(url, error) from error
    return found


def stretch(url: str, target: Path, offset: int, size: int, *, timeout: float, header: str | None = None) -> None:
    """Bytes offset .. offset + size of `url` as the file `target`; a killed one goes on from its `.part`."""
    with locked(lock_of(target), target.name):
        if target.exists():
            return
        part = target.with_name(target.name + ".part")
        try:
            transfer(url, part, size=size, timeout=timeout, start=offset, header=header, label=target.name)
        except TransferError as error:
            raise _refusal(url, error) from error
        settle(part, target)


def _kept(index: Path, url: str, total: int) -> dict[str, tuple[int, int]] | None:
    """What an earlier walk found in this very file; None if it was another, or what is kept is damaged."""
    try:
        kept = json.loads(index.read_text())
        if (kept["url"], kept["bytes"]) == (plain(url), total):
            return {name: (int(offset), int(size)) for name, (offset, size) in kept["members"].items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


def _walk(url, total, timeout, header) -> dict[str, tuple[int, int]]:
    bar = progress("index", total, unit="B")
    found = {}
    raw = _Remote(url, total, timeout, header)
    try:
        with tarfile.open(fileobj=io.BufferedReader(raw, READ), mode="r:") as tar:
            for entry in tar:
                name = entry.name.rpartition("/")[2]
                if entry.isreg():
                    if name in found and name.endswith(".tar"):
                        raise ValueError(f"{plain(url)}: holds {printable(name)} twice")
                    found[name] = (entry.offset_data, entry.size)
                bar.update(entry.offset_data + entry.size - bar.n)
    except tarfile.TarError as error:
        raise ValueError(
            f"{plain(url)}: these {total:,} bytes are no uncompressed tar ({error}); if they are a page that "
            "asks to log in, give downloads.imagenet.header"
        ) from error
    bar.close()
    return found


def _refusal(url: str, error: TransferError) -> ValueError:
    return ValueError(
        f"{plain(url)}: {error}. Check downloads.imagenet (tar, header), or download the "
        "whole tar and set downloads.imagenet.tar to its path; what has come is kept"
    )


class _Remote(io.RawIOBase):
    """A file behind a URL, read by range requests."""

    def __init__(self, url, total, timeout, header) -> None:
        self.url, self.total, self.timeout, self.header, self.place = url, total, timeout, header, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        self.place = place + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.total}[whence]
        return self.place

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self.total - self.place))
        if count:
            data, _ = read_range(self.url, self.place, count, timeout=self.timeout, header=self.header)
            buffer[:count] = data
            self.place += count
        return count
