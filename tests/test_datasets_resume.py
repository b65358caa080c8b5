"""Downloaded data is not lost to a captive portal, a mirror with another version, or a change on the server."""

import hashlib

import pytest
from archive_server import ArchiveServer

from benchmarks.datasets import transfer
from benchmarks.datasets.catalog import Archive, Downloads
from benchmarks.datasets.download import fetch, source_of
from benchmarks.datasets.remote_tar import download_member

pytestmark = pytest.mark.network

FILE = "cifar-10-python.tar.gz"
DATA = bytes(range(256)) * 400
PAGE = b"<html>log in</html>"
PORTAL = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + PAGE


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.001)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "offered").mkdir()
    (tmp_path / "offered" / FILE).write_bytes(DATA)
    with ArchiveServer(tmp_path / "offered") as server:
        yield server


@pytest.fixture
def part(tmp_path, server):
    """The data that mirror "a" has sent so far."""
    path = tmp_path / "archives" / f"{FILE}.part"
    path.parent.mkdir()
    path.write_bytes(DATA[:60_000])
    transfer.note_of(path).write_text(f"{server.url(FILE)}\n\n")
    return path


def get(server, part, mirrors, size=len(DATA)):  # noqa: B008 a constant
    urls = tuple(server.url(FILE, mirror) for mirror in mirrors)
    archive = Archive(FILE, urls, bytes=size, md5=hashlib.md5(DATA).hexdigest())
    return fetch(archive, part.parent, downloads=Downloads(timeout=0.5))


def get_range(server, part):
    download_member(server.url(FILE), part.with_suffix(""), (1000, 70_000), timeout=0.5, header=None)
    return part.with_suffix("").read_bytes()


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_login_page_leaves_the_good_part(server, part, size):
    note = transfer.note_of(part).read_text()
    server.raw[f"a/{FILE}"] = PORTAL
    with pytest.raises(ValueError, match="answers with a web page .a login page"):
        get(server, part, "a", size)
    assert part.read_bytes() == DATA[:60_000] and transfer.note_of(part).read_text() == note
    assert len(server.requests) == 1
    server.raw.clear()
    assert get(server, part, "a", size).read_bytes() == DATA
    assert server.requests[1:] == [(f"a/{FILE}", "bytes=60000-", 206)]


@pytest.mark.parametrize("status", ["203 Non-Authoritative Information", "204 No Content"])
def test_an_unexpected_status_leaves_the_good_part(server, part, status):
    server.raw[f"a/{FILE}"] = f"HTTP/1.1 {status}\r\n\r\nabc".encode()
    with pytest.raises(ValueError, match=f"HTTP status {status[:3]}"):
        get(server, part, "a")
    assert part.read_bytes() == DATA[:60_000]


def test_a_login_page_leaves_the_good_part_of_a_range(server, part):
    server.raw[f"a/{FILE}"] = PORTAL
    with pytest.raises(transfer.TransferError, match="answers with a web page .a login page"):
        get_range(server, part)
    assert part.read_bytes() == DATA[:60_000]


def test_a_range_of_a_file_that_changed_on_the_server_is_begun_again(server, part, capsys):
    transfer.note_of(part).write_text(f'{server.url(FILE)}\n"the former version"\n')
    assert get_range(server, part) == DATA[1000:71_000]
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=61000-70999", "bytes=1000-70999"]
    assert "the file changed on the server" in capsys.readouterr().err


def test_a_server_without_ranges_leaves_the_good_part_of_a_range(server, part):
    server.faults[f"a/{FILE}"] = {"no ranges"}
    with pytest.raises(transfer.TransferError, match="does not answer range requests"):
        get_range(server, part)
    assert part.read_bytes() == DATA[:60_000]


@pytest.mark.parametrize("total", [60_500, 120_000])
def test_a_mirror_with_another_version_leaves_the_good_part(server, part, total):
    server.raw[f"b/{FILE}"] = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 60000-{total - 1}/{total}\r\n\r\n".encode() + PAGE
    )
    path = get(server, part, "ba")
    assert path.read_bytes() == DATA and source_of(path) == server.url(FILE)
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=60000-", "bytes=60000-"]


def test_a_mirror_with_a_version_shorter_than_the_good_part_leaves_it(server, part):
    server.faults[f"b/{FILE}"] = {"short"}
    path = get(server, part, "ba")
    assert path.read_bytes() == DATA and source_of(path) == server.url(FILE)
    assert [status for *_, status in server.requests] == [416, 200, 206]
    assert server.requests[-1][1] == "bytes=60000-"


def test_a_part_longer_than_a_file_of_unknown_size_is_begun_again(server, part):
    part.write_bytes(DATA + b"x")
    assert get(server, part, "a", None).read_bytes() == DATA
    assert [status for *_, status in server.requests] == [416, 200]
