"""A broken mirror never stops the fallback to the next; one that trickles is given up; secrets in URLs stay secret."""

import base64
import hashlib
import json
import tarfile

import fake_archives
import pytest
import yaml
from archive_server import CERTIFICATE, ArchiveServer

from benchmarks.cli import main
from benchmarks.datasets import transfer
from benchmarks.datasets.catalog import Archive, Downloads, ImageNetSource
from benchmarks.datasets.download import fetch, source_of
from benchmarks.datasets.prepare import prepare
from benchmarks.datasets.remote_tar import members
from benchmarks.datasets.transfer import plain

pytestmark = [pytest.mark.slow, pytest.mark.network]

FILE = "cifar-10-python.tar.gz"
DATA = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "offered").mkdir()
    (tmp_path / "offered" / FILE).write_bytes(DATA)
    with ArchiveServer(tmp_path / "offered") as server:
        yield server


def archive(*urls, size=len(DATA)):  # noqa: B008 a constant
    return Archive(FILE, urls, bytes=size, md5=hashlib.md5(DATA).hexdigest())


def get(archive, tmp_path, timeout=0.5):
    return fetch(archive, tmp_path / "archives", downloads=Downloads(timeout=timeout))


def prepare_imagenet(tmp_path, url):
    source = ImageNetSource(tar=url, accept_terms=True)
    downloads = Downloads(timeout=0.5, imagenet=source)
    prepare("imagenet10", dataset="imagenet10", folder=tmp_path / "d", archives=tmp_path / "a", downloads=downloads)


def with_secrets(url):
    return url.replace("://", "://user:s3cret@") + "?key=s3cret"


def answer(*headers, status="200 OK", body=b""):
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


def moved(to):
    return answer(f"Location: {to}", status="302 Found")


ANSWERS = {
    "length abc": answer("Content-Length: abc", body=DATA),
    "length below zero": answer("Content-Length: -5", body=DATA),
    "length of 5,000 digits": answer("Content-Length: " + "9" * 5000, body=DATA),
    "length twice": answer(f"Content-Length: {len(DATA)}, {len(DATA)}", body=DATA),
    "empty": answer("Content-Length: 0"),
    "no content": answer(status="204 No Content"),
    "no answer": b"",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an echo": b"GET /a/x?key=s3cret HTTP/1.1\r\nAuthorization: s3cret\r\n\r\n",
    "the URL as a reason": answer(status="404 no /a/x?key=s3cret"),
    "status of a thousand": answer(status="1000 Much"),
    "status abc": answer(status="abc OK"),
    "headers without end": answer(*[f"X-{i}: y" for i in range(300)]),
    "a header without end": answer("X: " + "y" * 70_000),
    "chunk size zz": answer("Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "chunk size below zero": answer("Transfer-Encoding: chunked", body=b"-5\r\nabc\r\n0\r\n\r\n"),
    "chunk cut": answer("Transfer-Encoding: chunked", body=b"ffff\r\nabc"),
    "chunk of another file": answer("Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "a part unasked": answer("Content-Range: bytes 0-2/3", status="206 Partial Content", body=b"abc"),
    "a part of nothing": answer("Content-Range: bytes x-y/z", status="206 Partial Content", body=b"abc"),
    "moved to half an address": moved("http://user:s3cret@[::1/x?key=s3cret"),
    "moved to a file": moved("file:///etc/hostname?key=s3cret"),
    "moved to FTP": moved("ftp://user:s3cret@127.0.0.1:9/x?key=s3cret"),
    "moved into the URL": moved("data:text/plain,s3cret"),
    "moved to a mail": moved("mailto:user@example.org"),
    "moved to port 99999": moved("http://user:s3cret@127.0.0.1:99999/x"),
    "moved to port abc": moved("http://user:s3cret@127.0.0.1:abc/x"),
    "moved to no host": moved("http:///x?key=s3cret"),
    "moved to an overlong host": moved(f"http://user:s3cret@{'a' * 70}.example/x"),
    "moved to a space": moved("http://127.0.0.1:9/a b?key=s3cret\tx"),
    "moved to nowhere": answer(status="302 Found"),
    "moved in a circle": moved("?key=s3cret"),
}
PARTIAL = [
    "bytes 5-9/10",
    "bytes 1000-1/abc",
    "bytes */10",
    f"bytes {'9' * 5000}-1/7",
    "bytes 1000-2000/" + "9" * 5000,
    "",
]
URLS = [
    "http://[::1/x",
    "http://127.0.0.1:9/ü",
    "http://ü" + "ü" * 70 + ".example/x",
    f"http://{'a' * 70}.example/x",
    f"http://{'a.' * 200}example/x",
    "http://127.0.0.1:abc/x",
    "http://127.0.0.1:99999/x",
    "http://127.0.0.1:9/a b",
    "http://127.0.0.1:9/a\nHost: b",
    "http://127.0.0.1\0/x",
    "http://127.0.0.1:9/\ud800",
    "http://",
    "http:///x",
]


@pytest.mark.parametrize("size", [len(DATA), None])
def test_whatever_a_mirror_answers_the_next_one_is_asked(server, tmp_path, capsys, size):
    for number, (name, raw) in enumerate(ANSWERS.items()):
        server.raw[f"a/{FILE}"] = raw
        path = get(archive(with_secrets(server.url(FILE)), server.url(FILE, "b"), size=size), tmp_path / str(number))
        assert path.read_bytes() == DATA and source_of(path) == server.url(FILE, "b"), name
        told = capsys.readouterr().err
        assert f"{FILE}: {server.url(FILE)}: " in told and "s3cret" not in told, name


def test_whatever_a_mirror_answers_it_is_one_message(server, tmp_path, capsys):
    for number, (name, raw) in enumerate(ANSWERS.items()):
        server.raw[f"a/{FILE}"] = raw
        with pytest.raises(ValueError) as caught:
            get(archive(with_secrets(server.url(FILE))), tmp_path / str(number))
        assert f"\n  {server.url(FILE)}: " in str(caught.value), name
        assert "s3cret" not in str(caught.value) + capsys.readouterr().err, name
        assert len(str(caught.value)) < 1000, name


@pytest.mark.parametrize("given", PARTIAL)
def test_a_range_that_was_not_asked_for_does_not_stop_the_next_mirror(server, tmp_path, given):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / f"{FILE}.part").write_bytes(DATA[:1000])
    server.raw[f"a/{FILE}"] = answer(f"Content-Range: {given}", status="206 Partial Content", body=DATA[1000:2001])
    path = get(archive(server.url(FILE), server.url(FILE, "b")), tmp_path)
    assert path.read_bytes() == DATA and source_of(path) == server.url(FILE, "b")


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_none_does_not_stop_the_next_mirror(server, tmp_path, capsys, url):
    path = get(archive(with_secrets(url), server.url(FILE)), tmp_path)
    assert path.read_bytes() == DATA
    assert "s3cret" not in capsys.readouterr().err
    with pytest.raises(ValueError, match="could not be downloaded from") as caught:
        get(archive(with_secrets(url)), tmp_path / "alone")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_none_is_refused_as_a_tar(tmp_path, url):
    with pytest.raises(ValueError, match="Check downloads.imagenet") as caught:
        prepare_imagenet(tmp_path, with_secrets(url))
    assert "s3cret" not in str(caught.value)


def test_a_damaged_note_of_the_source_does_not_stop_a_download(server, tmp_path):
    (tmp_path / "archives").mkdir()
    for note in (b"", b"\xff\xfe\n\xff\n", f"{server.url(FILE)}\n\x00tag\r\x85x\n".encode()):
        (tmp_path / "archives" / f"{FILE}.part").write_bytes(DATA[:1000])
        (tmp_path / "archives" / f"{FILE}.part.url").write_bytes(note)
        path = get(archive(server.url(FILE)), tmp_path)
        assert path.read_bytes() == DATA and source_of(path) == server.url(FILE)
        path.with_name(f"{FILE}.url").write_bytes(note)
        assert source_of(path) in (None, server.url(FILE))
        path.unlink()


@pytest.mark.parametrize("name", ["length abc", "no answer", "an echo", "moved to half an address", "moved to a file"])
def test_a_piece_of_a_tar_is_refused_in_one_message(server, tmp_path, name):
    server.raw[f"a/{FILE}"] = ANSWERS[name]
    with pytest.raises(ValueError, match="Check downloads.imagenet") as caught:
        prepare_imagenet(tmp_path, with_secrets(server.url(FILE)))
    assert "s3cret" not in str(caught.value)


def test_https_verifies_the_server_and_is_resumed_and_redirected(tmp_path, monkeypatch, capsys):
    (tmp_path / "offered").mkdir()
    (tmp_path / "offered" / FILE).write_bytes(DATA)
    with ArchiveServer(tmp_path / "offered", tls=True) as server:
        server.faults[f"b/{FILE}"] = {"cut"}
        server.raw[f"a/{FILE}"] = moved(server.url(FILE, "b"))
        with pytest.raises(ValueError, match="CERTIFICATE_VERIFY_FAILED"):
            get(archive(server.url(FILE)), tmp_path / "unknown")
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert get(archive(server.url(FILE)), tmp_path).read_bytes() == DATA
        assert [status for *_, status in server.requests] == [None, 200, None, 206]


# mirrors that trickle


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(transfer, "WINDOW", 0.2)
    monkeypatch.setattr(transfer, "MINIMUM_RATE", 1000)


def test_the_throttled_official_host_is_fast_enough():
    assert 10 * transfer.MINIMUM_RATE <= 50_000 and transfer.WINDOW >= 30


DRIPS = [None, answer("X: " + "y" * 4000), answer("Transfer-Encoding: chunked", body=b"1\r\na\r\n" * 999)]


@pytest.mark.parametrize("raw", DRIPS, ids=["body", "headers", "chunks"])
def test_a_source_that_sends_a_byte_now_and_then_is_given_up(server, tmp_path, capsys, impatient, raw):
    server.pace[f"a/{FILE}"] = (1, 0.02)
    if raw:
        server.raw[f"a/{FILE}"] = raw
    path = get(archive(server.url(FILE), server.url(FILE, "b")), tmp_path)
    assert path.read_bytes() == DATA and source_of(path) == server.url(FILE, "b")
    assert "kB/s" in capsys.readouterr().err and server.times[f"a/{FILE}"] == 1


def test_a_source_that_ends_after_each_byte_is_given_up(server, tmp_path, impatient):
    server.faults[f"a/{FILE}"] = {"one byte"}
    path = get(archive(server.url(FILE), server.url(FILE, "b")), tmp_path)
    assert path.read_bytes() == DATA and source_of(path) == server.url(FILE, "b")


def test_a_piece_that_comes_in_bytes_is_given_up(server, impatient):
    server.pace[f"a/{FILE}"] = (1, 0.02)
    with pytest.raises(transfer.TransferError, match="kB/s"):
        transfer.read_range(server.url(FILE), 0, 4096, timeout=0.4)


def test_a_slow_source_is_kept(server, tmp_path, impatient):
    server.pace[f"a/{FILE}"] = (len(DATA) // 20, 0.03)  # lasts three windows, far above the minimum rate
    path = get(archive(server.url(FILE), server.url(FILE, "b")), tmp_path)
    assert source_of(path) == server.url(FILE) and server.times[f"a/{FILE}"] == 1


# secrets


@pytest.mark.parametrize(
    "url, shown",
    [
        ("https://host/a/b.tar", "https://host/a/b.tar"),
        ("https://host:8080/a/b.tar?key=s3cret&x=a@b", "https://host:8080/a/b.tar"),
        ("https://host/a#s3cret", "https://host/a"),
        ("https://user:s3cret@host:80/a@b", "https://host:80/a@b"),
        ("https://s3cret@host", "https://host"),
        ("https://user:s3cret@[::1]:80/a", "https://[::1]:80/a"),
        ("http://user:s3cret@[::1/x", "http://[::1/x"),
        ("https://user:s3@s3cret@host/a", "https://host/a"),
        ("https://user:s3/cret@host/a", "https://host/a"),
        ("https://user:s3?cret@host/a", "https://host/a"),
        ("https://user:s3#cret@host/a?key=s3cret", "https://host/a"),
        ("htps://user:s3cret@host/a b?key=s3cret", "htps://host/a b"),
        ("user:s3cret@host/a", "host/a"),
    ],
)
def test_what_is_shown_of_a_url(url, shown):
    assert plain(url) == shown


def test_user_and_password_are_sent_and_recorded_nowhere(tmp_path, capsys):
    (tmp_path / "offered").mkdir()
    fake_archives.cifar10(tmp_path / "offered" / FILE, 2)
    md5 = hashlib.md5((tmp_path / "offered" / FILE).read_bytes()).hexdigest()
    with ArchiveServer(tmp_path / "offered") as server:
        url = server.url(FILE).replace("://", "://us%65r:s3cret%40x@") + "?key=s3cret"
        server.raw[f"a/{FILE}"] = moved(url.replace("/a/", "/b/"))
        downloads = Downloads(mirrors={FILE: [url]}, checksums={FILE: {"md5": md5}})
        made = tmp_path / "made"
        mark = prepare(
            "cifar10", dataset="cifar10", folder=made / "data", archives=made / "archives", downloads=downloads
        )
        sent = "Basic " + base64.b64encode(b"user:s3cret@x").decode()
        assert [headers.get("Authorization") for headers in server.headers] == [sent, sent]
        assert json.loads(mark.read_text())["sources"][0]["url"] == server.url(FILE)
    told = capsys.readouterr()
    assert "cifar-10-python.tar.gz from 127.0.0.1" in told.err and "s3cret" not in told.out + told.err
    assert all(b"s3cret" not in path.read_bytes() for path in made.rglob("*") if path.is_file())


def test_a_note_of_an_earlier_version_is_not_passed_on(server, tmp_path):
    path = get(archive(server.url(FILE)), tmp_path)
    path.with_name(f"{FILE}.url").write_text(f"{with_secrets(server.url(FILE))}\n\n")
    assert source_of(path) == server.url(FILE)


def test_a_header_that_cannot_be_sent_is_not_shown(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret\n")
    with pytest.raises(ValueError, match="downloads.imagenet.header: .*line break") as caught:
        members(server.url(FILE), tmp_path, timeout=1, header="Cookie: a\r\nb=${TOKEN}")
    assert "s3cret" not in str(caught.value) and not server.requests


@pytest.mark.parametrize(
    "downloads",
    [
        {"mirrors": {FILE: "https://user:s3cret@host/x?key=s3cret"}},
        {"mirrors": {FILE: ["htps://user:s3cret@host/x?key=s3cret"]}},
        {"mirrors": "https://user:s3cret@host/x?key=s3cret"},
        {"mirrors": {FILE: {"url": "https://user:s3cret@host/x?key=s3cret"}}},
        {"archives": ["https://user:s3cret@host/x?key=s3cret"]},
        {"imagenet": {"tar": ["https://user:s3cret@host/x?key=s3cret"]}},
        {"imagenet": {"tar": "ftp://user:s3cret@host/x?key=s3cret"}},
        {"imagenet": "https://user:s3cret@host/x?key=s3cret"},
    ],
)
def test_a_configuration_is_refused_without_its_secrets(tmp_path, capsys, downloads):
    study = {
        "results": str(tmp_path / "r"),
        "seeds": 1,
        "benchmarks": {"imagenet10": {}, "cifar10": {}},
        "methods": {"random": {"method": "baselines.controls.Random"}},
        "downloads": downloads,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["plan", str(tmp_path / "study.yaml")]) == 2
    told = capsys.readouterr()
    assert "downloads" in told.err and "s3cret" not in told.out + told.err
    assert "://host/x" in told.err or "ftp" in told.err


def test_a_tar_that_lacks_synsets_is_named_without_secrets(tmp_path):
    (tmp_path / "offered").mkdir()
    with tarfile.open(tmp_path / "offered" / "x.tar", "w") as tar:
        fake_archives.add(tar, "n01440764.tar", b"x")
    with ArchiveServer(tmp_path / "offered") as server:
        with pytest.raises(ValueError, match="x.tar: lacks 10 of the 10 synsets") as caught:
            prepare_imagenet(tmp_path, with_secrets(server.url("x.tar")))
    assert "s3cret" not in str(caught.value)
