"""Downloads from a server that misbehaves: each case is handled, or reported with a fix."""

import hashlib
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from archive_server import ArchiveServer

from benchmarks.datasets import transfer
from benchmarks.datasets.catalog import Archive, Downloads, ImageNetSource, archives_of, dataset_named, is_published
from benchmarks.datasets.download import fetch, source_of
from benchmarks.datasets.prepare import unlike
from benchmarks.study import Benchmark
from scl.config import read

pytestmark = pytest.mark.network

FILE = "cifar-10-python.tar.gz"
DATA = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.01)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "offered").mkdir()
    (tmp_path / "offered" / FILE).write_bytes(DATA)
    with ArchiveServer(tmp_path / "offered") as server:
        yield server


def archive(server, *mirrors, **changes):
    known = {"bytes": len(DATA), "md5": hashlib.md5(DATA).hexdigest(), "sha256": hashlib.sha256(DATA).hexdigest()}
    return Archive(FILE, tuple(server.url(FILE, mirror) for mirror in mirrors), **{**known, **changes})


def get(archive, tmp_path, **downloads):
    return fetch(archive, tmp_path / "archives", downloads=Downloads(timeout=0.3, **downloads))


def kept(tmp_path):
    return {path.name for path in (tmp_path / "archives").iterdir() if not path.name.startswith(".")}


def test_sound_file_is_verified_named_and_not_fetched_twice(server, tmp_path):
    path = get(archive(server, "a"), tmp_path)
    assert path.read_bytes() == DATA and path == tmp_path / "archives" / FILE
    assert source_of(path) == server.url(FILE, "a")
    get(archive(server, "a"), tmp_path)
    assert len(server.requests) == 1 and not any(".part" in name for name in kept(tmp_path))


@pytest.mark.parametrize("fault", ["404", "login", "wrong", "short", "truncated", "stall"])
def test_a_bad_mirror_is_passed_over(server, tmp_path, fault):
    server.faults[f"a/{FILE}"] = {fault}
    path = get(archive(server, "a", "b"), tmp_path)
    assert path.read_bytes() == DATA
    assert source_of(path) == server.url(FILE, "b")


WORDS = {
    "404": "HTTP status 404",
    "login": r"offers 19 bytes \(.*\) where 1,024,000 are expected",
    "wrong": "md5 .* instead of",
    "short": "offers 512,000 bytes",
    "stall": "downloads.timeout",
    "truncated": "ended after 512,000 of 1,024,000 bytes",
}


@pytest.mark.parametrize("fault", WORDS)
def test_the_last_message_says_what_happened_and_what_to_do(server, tmp_path, fault):
    server.faults[f"a/{FILE}"] = {fault}
    with pytest.raises(ValueError, match=WORDS[fault]) as caught:
        get(archive(server, "a"), tmp_path)
    for part in (
        FILE,
        hashlib.md5(DATA).hexdigest(),
        str(tmp_path / "archives" / FILE),
        f"downloads.mirrors.{FILE}",
        server.url(FILE, "a"),
    ):
        assert part in str(caught.value)
    assert FILE not in kept(tmp_path)


def test_cut_connection_is_resumed_from_the_byte_where_it_broke(server, tmp_path):
    server.faults[f"a/{FILE}"] = {"cut"}
    assert get(archive(server, "a"), tmp_path).read_bytes() == DATA
    assert [wanted for _, wanted, _ in server.requests] == [None, f"bytes={len(DATA) // 2}-"]
    assert "If-Range" in server.headers[1]


def test_server_without_ranges_sends_all_again(server, tmp_path):
    server.faults[f"a/{FILE}"] = {"cut", "no ranges"}
    assert get(archive(server, "a"), tmp_path).read_bytes() == DATA
    assert [status for *_, status in server.requests] == [200, 200]


def test_a_file_that_changed_on_the_server_is_begun_again(server, tmp_path):
    server.faults[f"a/{FILE}"] = {"cut", "changed"}
    assert get(archive(server, "a"), tmp_path).read_bytes() == DATA
    assert [status for *_, status in server.requests] == [200, 200]


def test_busy_server_is_asked_three_times(server, tmp_path):
    server.faults[f"a/{FILE}"] = {"503 twice"}
    get(archive(server, "a"), tmp_path)
    assert [status for *_, status in server.requests] == [503, 503, 200]


def test_no_server_at_all(tmp_path):
    dead = Archive(FILE, (f"http://127.0.0.1:9/{FILE}",), md5="0" * 32)
    with pytest.raises(ValueError, match="refused|127.0.0.1:9"):
        get(dead, tmp_path)


def test_part_of_a_killed_download_is_gone_on_with_from_another_mirror(server, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / f"{FILE}.part").write_bytes(DATA[:1000])
    assert get(archive(server, "b"), tmp_path).read_bytes() == DATA
    assert server.requests == [(f"b/{FILE}", "bytes=1000-", 206)]
    assert "If-Range" not in server.headers[0]  # another mirror's validator would be meaningless


@pytest.mark.parametrize("size", [len(DATA), None])
@pytest.mark.parametrize("part", [b"x" * 1000, DATA, DATA + b"x", b"x" * len(DATA)])
def test_whatever_the_part_holds_the_file_is_right_in_the_end(server, tmp_path, part, size):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / f"{FILE}.part").write_bytes(part)
    assert get(archive(server, "a", bytes=size), tmp_path).read_bytes() == DATA


def test_corrupt_file_in_place_is_set_aside_and_named(server, tmp_path, capsys):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / FILE).write_bytes(b"x" * len(DATA))
    assert get(archive(server, "a"), tmp_path).read_bytes() == DATA
    assert (tmp_path / "archives" / f"{FILE}.corrupt").read_bytes() == b"x" * len(DATA)
    assert f"{FILE}.corrupt" in capsys.readouterr().err


def test_folder_of_the_user_replaces_a_corrupt_file(server, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / FILE).write_bytes(DATA)
    get(archive(server, "a"), tmp_path).write_bytes(DATA[::-1])
    path = get(archive(server, "a"), tmp_path, archives=str(tmp_path / "mine"))
    assert path.read_bytes() == DATA and len(server.requests) == 1 and source_of(path) is None
    assert (tmp_path / "archives" / f"{FILE}.corrupt").read_bytes() == DATA[::-1]


def test_without_a_checksum_nothing_is_used(server, tmp_path):
    with pytest.raises(ValueError, match=f"no checksum.*downloads.checksums.{FILE}"):
        get(archive(server, "a", md5=None, sha256=None), tmp_path)
    assert not server.requests


def test_folder_of_the_user_comes_before_the_network_and_is_checked(server, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / FILE).write_bytes(DATA)
    path = get(archive(server, "a"), tmp_path, archives=str(mine))
    assert path.read_bytes() == DATA and not server.requests and source_of(path) is None
    (mine / FILE).write_bytes(DATA[:-1])
    path.unlink()
    with pytest.raises(ValueError, match="1,023,999 bytes instead of 1,024,000"):
        get(archive(server, "a"), tmp_path, archives=str(mine))
    assert (mine / FILE).exists()  # the user's file is left alone


def test_link_to_a_file_that_is_gone_does_not_hinder(server, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / FILE).symlink_to(tmp_path / "gone")
    path = get(archive(server, "a"), tmp_path)
    assert path.read_bytes() == DATA and not path.is_symlink()


def test_two_processes_fetch_once(server, tmp_path):
    threads = [threading.Thread(target=get, args=(archive(server, "a"), tmp_path)) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(server.requests) == 1


def test_killed_download_leaves_no_final_name_and_goes_on(server, tmp_path):
    server.faults[f"a/{FILE}"] = {"stall"}
    wanted = archive(server, "a")
    code = (
        "import sys; from pathlib import Path; from benchmarks.datasets.catalog import Archive, Downloads;"
        "from benchmarks.datasets.download import fetch;"
        f"fetch({wanted!r}, Path({str(tmp_path / 'archives')!r}), downloads=Downloads(timeout=20))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part = tmp_path / "archives" / f"{FILE}.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert FILE not in kept(tmp_path)
    have = part.stat().st_size
    server.faults.clear()
    assert get(wanted, tmp_path).read_bytes() == DATA
    assert server.requests[-1][1] == f"bytes={have}-"


def test_full_disk_is_told_apart_from_a_bad_network(server, tmp_path, monkeypatch):
    wanted = archive(server, "a")
    code = (
        "import resource; from pathlib import Path;"
        "from benchmarks.datasets.catalog import Archive, Downloads;"
        "from benchmarks.datasets.download import fetch;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000));"
        f"fetch({wanted!r}, Path({str(tmp_path / 'archives')!r}), downloads=Downloads())"
    )
    child = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert f"no room for {FILE}" in child.stderr and "make room" in child.stderr
    assert FILE not in kept(tmp_path) and len(server.requests) == 1
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="needs . MB and .* has 0 MB free"):
        get(wanted, tmp_path)


def test_progress_is_plain_lines_with_rate_when_not_on_a_terminal(server, tmp_path, capsys):
    get(archive(server, "a"), tmp_path)
    told = capsys.readouterr().err
    assert f"{FILE} from 127.0.0.1" in told and "1.0 MB of 1.0 MB, " in told and "B/s" in told and "\r" not in told


def test_configuration_replaces_sources_and_checksums():
    (published,) = archives_of(dataset_named("cifar10"), Downloads())
    (same,) = archives_of(dataset_named("cifar10"), Downloads(checksums={FILE: {"md5": published.md5.upper()}}))
    assert same == published and published.official
    (other,) = archives_of(
        dataset_named("cifar10"), Downloads(mirrors={FILE: ["https://here/x"]}, checksums={FILE: {"sha256": "0" * 64}})
    )
    assert other == Archive(FILE, ("https://here/x",), None, None, "0" * 64, official=False)


@pytest.mark.parametrize(
    "given, official",
    [
        ({}, True),
        ({"md5": None}, True),
        ({"sha256": "0" * 64}, False),  # the catalog has no SHA-256 of STL-10, so the file cannot be identified
        ({"md5": None, "sha256": "0" * 64}, True),
        ({"md5": "0" * 32, "sha256": "0" * 64}, False),
    ],
)
def test_an_archive_is_official_only_by_a_known_checksum(given, official):
    """given: None means the published value."""
    stl = dataset_named("stl10")
    (published,) = stl.archives
    given = {kind: value or getattr(published, kind) for kind, value in given.items()}
    (found,) = archives_of(stl, Downloads(checksums={published.file: given}))
    assert found.official == is_published(stl, Downloads(checksums={published.file: given})) == official
    assert found.digests == ({"md5": published.md5} if official else {}) | given
    assert found.bytes == (published.bytes if official else None)


def test_images_of_a_file_with_another_kind_of_checksum_are_prepared_again():
    stl, file = dataset_named("stl10"), "stl10_binary.tar.gz"

    def problem(recorded, wanted):
        facts = {"dataset": "stl10", "size": [96, 96], "classes": list(range(10)), "clusters": 10}
        facts["sources"] = [{"file": file, **recorded}] if recorded is not None else []
        return unlike(facts, Benchmark(), stl, Downloads(checksums={file: wanted} if wanted else {}))

    md5, sha256 = stl.archives[0].md5, "0" * 64
    assert problem({"md5": md5}, {}) == problem({"sha256": sha256}, {"sha256": sha256}) == ""
    assert problem({"sha256": sha256}, {"md5": "1" * 32, "sha256": sha256}) == ""
    assert file in problem({"md5": md5}, {"sha256": sha256}) and file in problem({"sha256": sha256}, {})
    assert problem(None, {}) == ""  # there is no recorded value to compare with


@pytest.mark.parametrize(
    "block, message",
    [
        ({"mirrors": {"cifar-10.tar.gz": ["https://x/"]}}, "did you mean 'cifar-10-python.tar.gz'"),
        ({"mirrors": {FILE: "https://x/"}}, "must be a list"),
        ({"mirrors": {FILE: ["file:///etc/passwd"]}}, "http"),
        ({"checksums": {FILE: {"md5": "abc"}}}, f"checksums.{FILE}.md5: must be 32 hexadecimal digits, got 'abc'"),
        ({"checksums": {FILE: {"crc": "0" * 32}}}, f"checksums.{FILE}.crc: unknown key; known: md5, sha256"),
        ({"timeout": 0}, "timeout: must be greater than or equal to 0.1, got 0"),
    ],
)
def test_configuration_is_refused_before_anything_starts(block, message):
    with pytest.raises(ValueError, match=message):
        read(Downloads, block)


def test_imagenet_source_is_one_of_two():
    with pytest.raises(ValueError, match="not both"):
        ImageNetSource(tar="a.tar", folder="b")
