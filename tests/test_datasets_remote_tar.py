"""ILSVRC-2012's tar behind a URL: what is kept for each source, and the messages for sources that are not that tar."""

import json
import tarfile

import fake_archives
import pytest
from archive_server import ArchiveServer

from benchmarks.datasets import transfer
from benchmarks.datasets.catalog import Downloads, ImageNetSource
from benchmarks.datasets.prepare import prepare
from benchmarks.datasets.remote_tar import cached_folders, members

pytestmark = [pytest.mark.slow, pytest.mark.network]

FLAT = "holds n02056570_{}.JPEG, not the tars of the synsets; needed is ILSVRC2012_img_train.tar as published"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.001)


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offered")
    fake_archives.ilsvrc(folder / "small.tar", 2)
    fake_archives.ilsvrc(folder / "train.tar", 6)
    with tarfile.open(folder / "flat.tar", "w") as tar:
        for i in range(50):
            fake_archives.add(tar, f"train/n02056570/n02056570_{i}.JPEG", b"x")
    return folder


@pytest.fixture
def server(offered):
    with ArchiveServer(offered) as server:
        yield server


def make(tmp_path, url, images_per_class, **source):
    source = ImageNetSource(tar=url, accept_terms=True, images_per_class=images_per_class, **source)
    mark = prepare(
        "imagenet10",
        dataset="imagenet10",
        folder=tmp_path / "data",
        archives=tmp_path / "archives",
        downloads=Downloads(timeout=0.5, imagenet=source),
        size=16,
    )
    return json.loads(mark.read_text())


# what is kept


def test_a_damaged_index_is_read_again(server, tmp_path):
    sound = members(server.url("small.tar"), tmp_path, timeout=1)
    index = tmp_path / "index.json"
    kept = json.loads(index.read_text())
    broken = [[], {"n.tar": [1]}, {"n.tar": 3}, {"n.tar": ["a", "b"]}]
    texts = ["", "[]", "3", "{", '{"url": 3}', "\xff"]
    for text in [*texts, *(json.dumps(kept | {"members": found}) for found in broken)]:
        index.write_text(text, encoding="latin-1")
        assert members(server.url("small.tar"), tmp_path, timeout=1) == sound, text


def test_the_synsets_of_another_url_are_not_used(server, tmp_path):
    small, large = make(tmp_path, server.url("small.tar"), 2), make(tmp_path, server.url("train.tar"), 6)
    assert (small["count"], large["count"]) == (20, 60)
    for record, url in ((small, server.url("small.tar")), (large, server.url("train.tar"))):
        assert {source["url"] for source in record["sources"]} == {url}


def test_the_synsets_of_another_file_at_the_same_url_are_not_used(offered, tmp_path):
    (tmp_path / "offered").mkdir()
    with ArchiveServer(tmp_path / "offered") as server:
        for file, count in (("small.tar", 2), ("train.tar", 6)):
            (tmp_path / "offered" / "x.tar").write_bytes((offered / file).read_bytes())
            assert make(tmp_path, server.url("x.tar") + f"?key={count}", count)["count"] == 10 * count
        assert len(cached_folders(server.url("x.tar"), tmp_path / "archives")) == 2


def test_what_is_kept_is_used_without_a_network(server, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("IMAGENET_TOKEN", raising=False)
    url = server.url("small.tar")
    first = make(tmp_path, url, 2)
    assert make(tmp_path, url, 2, header="Cookie: ${IMAGENET_TOKEN}") == first  # nothing is left to request
    server.faults["a/small.tar"] = {"404"}
    assert make(tmp_path, url, 2) == first and "HTTP status 404" in capsys.readouterr().err
    (folder,) = cached_folders(url, tmp_path / "archives")
    (folder / "n02056570.tar").unlink()
    with pytest.raises(ValueError, match="HTTP status 404"):
        make(tmp_path, url, 2)


def test_a_wrong_count_names_the_folder_of_what_is_kept(server, tmp_path):
    with pytest.raises(ValueError, match="n02056570 has 2 images where 6 are expected") as caught:
        make(tmp_path, server.url("small.tar"), 6)
    (folder,) = cached_folders(server.url("small.tar"), tmp_path / "archives")
    assert str(folder) in str(caught.value)


# messages


def test_a_tar_of_images_is_refused_at_its_first_image(server, offered, tmp_path):
    url = server.url("flat.tar")
    with pytest.raises(ValueError, match=f"{url}: " + FLAT.format(0)):
        make(tmp_path, url, 6)
    assert len(server.requests) < 10
    with pytest.raises(ValueError, match="flat.tar: " + FLAT.format(0)):
        prepare(
            "imagenet10",
            dataset="imagenet10",
            folder=tmp_path / "data",
            archives=tmp_path / "archives",
            downloads=Downloads(imagenet=ImageNetSource(tar=str(offered / "flat.tar"))),
        )


def test_an_unset_variable_of_the_header_is_not_sent(server, tmp_path, monkeypatch):
    monkeypatch.delenv("IMAGENET_TOKEN", raising=False)
    with pytest.raises(ValueError, match="downloads.imagenet.header: .*IMAGENET_TOKEN is not set; "):
        make(tmp_path, server.url("small.tar"), 2, header="Cookie: id=${IMAGENET_TOKEN}")
    assert not server.requests


def test_a_dollar_sign_that_names_no_variable_is_sent(server, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGENET_TOKEN", "${x}")  # the value of a variable is not expanded again
    members(server.url("small.tar"), tmp_path, timeout=1, header="Cookie: $=1; id=${IMAGENET_TOKEN}")
    assert server.headers[0]["Cookie"] == "$=1; id=${x}"


def test_a_login_page_instead_of_a_range_points_to_the_header(server, tmp_path):
    server.raw["a/small.tar"] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>log in</html>"
    with pytest.raises(ValueError, match="answers with a web page .a login page.*Check downloads.imagenet .*header"):
        make(tmp_path, server.url("small.tar"), 2)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_after_a_redirection_says_that_the_header_is_not_sent(server, tmp_path, status):
    elsewhere = server.url("small.tar", "b").replace("127.0.0.1", "localhost")
    server.raw["a/small.tar"] = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}?key=s3cret\r\n\r\n".encode()
    server.raw["b/small.tar"] = f"HTTP/1.1 {status} No\r\n\r\n".encode()
    words = f"HTTP status {status} .* after a redirection to localhost:[0-9]+, to which the header is not sent"
    with pytest.raises(ValueError, match=words) as caught:
        make(tmp_path, server.url("small.tar"), 2, header="Cookie: id=s3cret")
    assert "s3cret" not in str(caught.value) and "Cookie" not in server.headers[1]
    with pytest.raises(ValueError, match=f"HTTP status {status} .[A-Za-z]+.\\. Check"):
        make(tmp_path, server.url("small.tar", "b"), 2, header="Cookie: id=s3cret")
