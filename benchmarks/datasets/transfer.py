"""One URL to one file: resumed, timed out, retried. Whether the bytes are the right ones is `download`'s
matter.

pooch and torchvision's utilities start again from byte 0 when a connection is cut, and torchvision waits for
ever on a silent one; at 50 kB/s for 170 MB, or for STL-10's 2.6 GB, neither will do.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.datasets.progress import Progress, say

ATTEMPTS = 3  # in a row at one URL without a new byte
PAUSE = 1.0  # seconds before the second attempt; doubled before the third
PIECE = 1 << 18
PASSING = {408, 416, 425, 429, 500, 502, 503, 504}  # worth another attempt
NETWORK = (OSError, http.client.HTTPException)  # URLError, HTTPError and time-outs are OSErrors


class TransferError(Exception):
    """A source did not deliver; `again` = the same source may yet do. `status`: its HTTP status, if one
    came."""

    def __init__(self, message: str, *, again: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.again = again
        self.status = status


def plain(url: str) -> str:
    """Without the query, which may hold a key: for messages and records."""
    return url.partition("?")[0]


def transfer(
    url: str,
    part: Path,
    *,
    size: int | None,
    timeout: float,
    start: int | None = None,
    header: str | None = None,
    label: str | None = None,
) -> None:
    """Bring the bytes of `url` to `part`, going on from what `part` holds; TransferError if that fails.

    size: the expected number of bytes, None if unknown. start: where in the remote file they begin, for a
    piece out of a large file (None = the whole file). A server without range requests sends the whole file
    again.
    """
    longest, failures = _size(part), 0
    while True:
        try:
            return _stream(url, part, size, timeout, start, header, label or part.name)
        except TransferError as error:
            if error.status == 416:  # what we hold reaches beyond the source's file: it is another file
                part.unlink(missing_ok=True)
            failures = 0 if _size(part) > longest else failures + 1
            longest = max(longest, _size(part))
            if not error.again or failures >= ATTEMPTS:
                raise
            pause = PAUSE * 2 ** max(failures - 1, 0)
            say(f"{plain(url)}: {error}; again in {pause:g} s, from byte {_size(part):,}")
            time.sleep(pause)


def read_range(
    url: str, start: int, count: int, *, timeout: float, header: str | None = None
) -> tuple[bytes, int]:
    """(bytes start .. start+count of `url`, the remote file's size); fewer bytes only at the file's end."""
    for attempt in range(ATTEMPTS):
        try:
            with _open(url, timeout, header, f"bytes={start}-{start + count - 1}") as response:
                _, total = _content_range(response, url)
                with _network_errors():
                    data = response.read(count)
            if len(data) == min(count, total - start):
                return data, total
            error = TransferError(f"sent {len(data)} of {count} bytes", again=True)
        except TransferError as caught:
            error = caught
        if not error.again or attempt == ATTEMPTS - 1:
            raise error
        time.sleep(PAUSE * 2**attempt)
    raise AssertionError("unreachable")


def _stream(url, part, size, timeout, start, header, label) -> None:
    have = _size(part)
    if size is not None and have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    note = part.with_name(
        part.name + ".url"
    )  # which source the part is from, and that source's version of the file
    whole = start is None
    wanted = None
    if not whole:
        wanted = f"bytes={start + have}-{start + size - 1}"
    elif have:
        wanted = f"bytes={have}-"
    with _open(url, timeout, header, wanted, _validator(note, url) if have else None) as response:
        if response.status == 206:
            begin, total = _content_range(response, url)
            if begin != (start or 0) + have or whole and size not in (None, total):
                part.unlink(missing_ok=True)
                raise TransferError(
                    f"sent bytes from {begin} of a file of {total}, which is not what was asked for",
                    again=False,
                )
            expected = total if whole else size
        else:
            if not whole:
                raise _no_ranges(url)
            have, expected = 0, _whole_length(response, size)
        note.write_text(
            f"{plain(url)}\n{response.headers.get('ETag') or response.headers.get('Last-Modified') or ''}\n"
        )
        _receive(
            response,
            part,
            have,
            expected,
            Progress(f"{label} from {urlsplit(url).netloc}", expected, unit="MB", scale=1e6, start=have),
        )


def _receive(response, part, have, expected, progress) -> None:
    with open(part, "r+b" if have else "wb") as file:
        file.seek(have)
        while True:
            with _network_errors():
                piece = response.read1(PIECE)
            if not piece:
                break
            file.write(piece)
            have += len(piece)
            progress.add(len(piece))
            if expected is not None and have > expected:
                raise TransferError(f"sent more than the {expected:,} bytes expected", again=False)
    progress.close()
    if expected is not None and have < expected:
        raise TransferError(f"the connection ended after {have:,} of {expected:,} bytes", again=True)


@contextmanager
def _open(url, timeout, header, wanted, validator=None) -> Iterator:
    request = urllib.request.Request(
        url, headers={"User-Agent": "scl-clustering", "Accept-Encoding": "identity"}
    )
    if wanted:
        request.add_header("Range", wanted)
    if validator:
        request.add_header("If-Range", validator)
    if header:  # unredirected: credentials are not handed to the host that a redirect names
        name, _, value = header.partition(":")
        request.add_unredirected_header(name.strip(), os.path.expandvars(value.strip()))
    with _network_errors():
        response = urllib.request.urlopen(request, timeout=timeout)
    with response:
        yield response


@contextmanager
def _network_errors() -> Iterator[None]:
    """Network errors as TransferError. Only reads from the network stand inside: a full disk is not one of
    them."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise TransferError(
            f"HTTP status {error.code} ({error.reason})", again=error.code in PASSING, status=error.code
        ) from error
    except TimeoutError as error:
        raise TransferError("nothing came for the whole time-out (downloads.timeout)", again=True) from error
    except NETWORK as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise TransferError(f"{reason}", again=True) from error


def _content_range(response, url) -> tuple[int, int]:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status != 206 or not match:
        raise _no_ranges(url)
    return int(match[1]), int(match[2])


def _no_ranges(url) -> TransferError:
    return TransferError(
        f"{urlsplit(url).netloc} answers no range requests, so a piece of the file cannot be had "
        "without the whole",
        again=False,
    )


def _whole_length(response, size) -> int | None:
    """The length of a whole file that is about to come; refused now if it cannot be the right file."""
    announced = response.headers.get("Content-Length")
    if size is not None and announced is not None and int(announced) != size:
        raise TransferError(
            f"offers {int(announced):,} bytes ({response.headers.get_content_type()}) where "
            f"{size:,} are expected",
            again=False,
        )
    return size if announced is None else int(announced)


def _validator(note: Path, url: str) -> str | None:
    """The strong validator that `url` gave with the bytes we hold; None where they came from elsewhere."""
    lines = note.read_text().splitlines() if note.exists() else []
    if len(lines) > 1 and lines[0] == plain(url) and lines[1] and not lines[1].startswith("W/"):
        return lines[1]
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
