"""Links, pipes, and odd names in a user's folder; names and members in archives: refused by name before the work."""

import hashlib
import json
import os
import socket
import tarfile
import zipfile

import fake_archives
import numpy as np
import pytest
from archive_server import ArchiveServer

from benchmarks.datasets.catalog import Downloads, ImageNetSource
from benchmarks.datasets.prepare import prepare

pytestmark = [pytest.mark.slow, pytest.mark.network]

PNG = fake_archives.encoded(fake_archives.picture(0, 0, 20), "PNG")


@pytest.fixture(autouse=True)
def no_pixel_is_read(monkeypatch, request):
    """No pixel may be read, as refusals come before the work, unless the test is about the result."""
    if "made" not in request.node.name:
        monkeypatch.setattr("benchmarks.datasets.prepare.write_images", None)


def write(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(PNG)


def make(tmp_path, **changes):
    mark = prepare(
        "mine",
        dataset="folder",
        path=tmp_path / "images",
        folder=tmp_path / "out",
        archives=tmp_path / "archives",
        **{"size": 8, **changes},
    )
    return json.loads(mark.read_text())


def refused(tmp_path, *words, **changes):
    with pytest.raises(ValueError) as caught:
        make(tmp_path, **changes)
    for word in words:
        assert word in str(caught.value)
    assert str(caught.value).isprintable() and not (tmp_path / "out").exists()


# links


def test_linked_classes_and_images_are_made(tmp_path):
    write(tmp_path / "images", "ant/0.png", "ant/1.png")
    write(tmp_path / "elsewhere", "bees/0.png", "bees/deep/1.png", "2.png", "more/3.png")
    (tmp_path / "images" / "bee").symlink_to(tmp_path / "elsewhere" / "bees")
    (tmp_path / "images" / "ant" / "2.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "images" / "ant" / "more").symlink_to("../../elsewhere/more")
    record = make(tmp_path)
    assert record["classes"] == ["ant", "bee"] and record["count"] == 6
    assert np.bincount(np.load(tmp_path / "out" / "labels.npy")).tolist() == [4, 2]


@pytest.mark.parametrize("target", [".", "..", "../../images", "deep/..", "../ant/deep"])
def test_a_circle_of_links_is_refused(tmp_path, target):
    write(tmp_path / "images", "ant/0.png", "bee/1.png", "ant/deep/2.png")
    (tmp_path / "images" / "ant" / "again").symlink_to(target)
    refused(tmp_path, str(tmp_path / "images"), "again", "the same folder")


def test_one_folder_under_two_classes_is_refused(tmp_path):
    write(tmp_path / "images", "ant/0.png", "bee/1.png")
    (tmp_path / "images" / "cat").symlink_to("ant")
    refused(tmp_path, "ant", "cat", "the same folder")


@pytest.mark.parametrize("name", ["bee", "ant/2.png", "ant/deep"])
def test_a_link_to_nothing_is_refused(tmp_path, name):
    write(tmp_path / "images", "ant/0.png", "cat/1.png")
    (tmp_path / "images" / name).symlink_to(tmp_path / "not mounted")
    refused(tmp_path, name, "broken link")


def test_a_link_to_itself_is_refused(tmp_path):
    write(tmp_path / "images", "ant/0.png")
    (tmp_path / "images" / "ant" / "x.png").symlink_to("x.png")
    refused(tmp_path, "ant/x.png", "broken link")


def test_hidden_links_are_passed_over_and_the_rest_is_made(tmp_path):
    write(tmp_path / "images", "ant/0.png", "bee/1.png")
    (tmp_path / "images" / ".cache").symlink_to("nowhere")
    (tmp_path / "images" / "ant" / ".again").symlink_to("..")
    assert make(tmp_path)["count"] == 2


def test_a_folder_that_cannot_be_read_is_no_folder_without_images(tmp_path, monkeypatch):
    write(tmp_path / "images", "ant/0.png", "bee/1.png")

    def scandir(path, real=os.scandir):
        if os.fspath(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    refused(tmp_path, f"{tmp_path}/images/bee: no permission to read this folder; ")


def test_a_class_without_images_is_named_and_the_rest_is_made(tmp_path, capsys):
    write(tmp_path / "images", "ant/0.png", "bee/1.png", "cat/deep/2.txt", "dog/deep/3.dng")
    assert make(tmp_path)["classes"] == ["ant", "bee"]
    told = capsys.readouterr().err
    assert "cat: holds no images, so it is not a class" in told
    assert "dog: holds no readable images, so it is not a class" in told


def test_a_class_of_which_no_image_can_be_decoded_is_none_and_the_rest_is_made(tmp_path, capsys):
    write(tmp_path / "images", "ant/0.png", "bee/1.png", "cat/2.png", "cat/deep/3.png")
    for broken in ("bee/0.png", "cat/2.png", "cat/deep/3.png"):
        (tmp_path / "images" / broken).write_bytes(PNG[:40])
    made = make(tmp_path)
    assert (made["classes"], made["clusters"], made["count"]) == (["ant", "bee"], 2, 2)
    assert sorted(made["unreadable"]) == ["bee/0.png", "cat/2.png", "cat/deep/3.png"]
    assert {why.partition(":")[0] for why in made["unreadable"].values()} == {"cannot be read as an image"}
    assert "cat: holds no readable images, so it is not a class" in capsys.readouterr().err


# not regular files


def test_pipes_sockets_and_devices_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "images", "ant/0.png")
    place = tmp_path / "images" / "ant" / "x.png"
    os.mkfifo(place)
    refused(tmp_path, "ant/x.png", "a pipe", clusters=1)
    place.unlink()
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "x")
    place.symlink_to(tmp_path / "pipe" / "x")
    refused(tmp_path, "ant/x.png", "a pipe", clusters=1)
    place.unlink()
    place.symlink_to("/dev/zero")
    refused(tmp_path, "ant/x.png", "a device", clusters=1)
    place.unlink()
    monkeypatch.chdir(place.parent)  # paths of sockets must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("x.png")
        refused(tmp_path, "ant/x.png", "a socket", clusters=1)


def test_a_pipe_among_the_images_of_imagenet_is_not_waited_for(tmp_path):
    for synset in fake_archives.IMAGENET_10:
        write(tmp_path / "train", f"{synset}/{synset}_1.JPEG", f"{synset}/{synset}_2.JPEG")
    os.mkfifo(tmp_path / "train" / "n02056570" / "n02056570_3.JPEG")
    downloads = Downloads(imagenet=ImageNetSource(folder=str(tmp_path), images_per_class=3))
    with pytest.raises(ValueError, match="n02056570_3.JPEG.*a pipe"):
        prepare(
            "imagenet10", dataset="imagenet10", folder=tmp_path / "out", archives=tmp_path / "a", downloads=downloads
        )


# names


@pytest.mark.parametrize(
    "name, shown",
    [
        (b"caf\xe9/0.png", r"caf\xe9/0.png"),
        (b"ant/\xff\n.png", r"ant/\xff\n.png"),
        (b"ant/\xe9/0.png", r"ant/\xe9/0.png"),
    ],
)
def test_a_name_that_is_not_utf8_is_refused_escaped(tmp_path, name, shown):
    write(tmp_path / "images", b"bee/0.png", name)
    refused(tmp_path, f"{tmp_path / 'images'}: ", shown, "not UTF-8")


def test_names_that_are_utf8_and_other_files_that_are_not_are_made(tmp_path):
    write(tmp_path / "images", "ä\u0308 | <b>\n/0.png", b"bee/1.png", b"bee/\xe9.txt", b"\xe9\xe9/x.txt")
    assert make(tmp_path)["classes"] == ["bee", "ä\u0308 | <b>\n"]


# archives


def use(tmp_path, dataset, archive):
    checksums = {archive.name: {"md5": hashlib.md5(archive.read_bytes()).hexdigest()}}
    return prepare(
        dataset,
        dataset=dataset,
        folder=tmp_path / "data",
        archives=tmp_path / "archives",
        downloads=Downloads(archives=str(tmp_path), checksums=checksums),
    )


def tar_with(sound, path, **changed):
    """A copy of the tar `sound`; changed: {member's base name without suffix: bytes, or None to write it twice}."""
    with tarfile.open(sound) as old, tarfile.open(path, "w:gz", compresslevel=1) as new:
        for entry in old:
            data, key = old.extractfile(entry).read(), entry.name.rpartition("/")[2].partition(".")[0]
            for copy in [data, data] if changed.get(key, b"") is None else [changed.get(key, data)]:
                fake_archives.add(new, entry.name, copy)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"class_names": b"airplane\nb\xefrd\n"}, r"class_names.txt .*not UTF-8"),
        ({"class_names": None}, "class_names.txt twice"),
        ({"train_X": None}, "train_X.bin twice"),
        ({"test_y": None}, "test_y.bin twice"),
    ],
)
def test_stl10_is_refused_by_file_and_member(tmp_path, changed, words):
    fake_archives.stl10(tmp_path / "sound.tar.gz", 1, 2)
    tar_with(tmp_path / "sound.tar.gz", tmp_path / "stl10_binary.tar.gz", **changed)
    with pytest.raises(ValueError, match=f"stl10_binary.tar.gz: .*{words}"):
        use(tmp_path, "stl10", tmp_path / "stl10_binary.tar.gz")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("member", ["data_batch_2", "batches"])
def test_cifar_with_a_member_twice_is_refused(tmp_path, member):
    fake_archives.cifar10(tmp_path / "sound.tar.gz", 1)
    tar_with(tmp_path / "sound.tar.gz", tmp_path / "cifar-10-python.tar.gz", **{member: None})
    with pytest.raises(ValueError, match=f"cifar-10-python.tar.gz: .*{member}.* twice"):
        use(tmp_path, "cifar10", tmp_path / "cifar-10-python.tar.gz")


def test_cifar_with_a_name_that_cannot_be_written_is_refused(tmp_path):
    fake_archives.cifar10(tmp_path / "sound.tar.gz", 1)
    names = b"\x80\x04}\x8c\x0blabel_names](" + b"\x8c\x03\xed\xa0\x80" * 10 + b"es."  # lone surrogates
    tar_with(tmp_path / "sound.tar.gz", tmp_path / "cifar-10-python.tar.gz", batches=names)
    with pytest.raises(ValueError, match="batches.meta: `label_names` is not a list of printable names"):
        use(tmp_path, "cifar10", tmp_path / "cifar-10-python.tar.gz")


def zip_with(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, PNG)


IMAGE = "tiny-imagenet-200/train/n00000001/images/a.JPEG"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_tiny_imagenet_with_a_member_twice_is_refused(tmp_path):
    zip_with(tmp_path / "tiny-imagenet-200.zip", IMAGE, IMAGE)
    with pytest.raises(ValueError, match=f"tiny-imagenet-200.zip: .*{IMAGE} twice"):
        use(tmp_path, "tiny-imagenet", tmp_path / "tiny-imagenet-200.zip")


def test_tiny_imagenet_with_a_name_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "tiny-imagenet-200.zip"
    zip_with(path, IMAGE, "tiny-imagenet-200/train/n00000001/images/ä.JPEG")
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xff"))
    with pytest.raises(ValueError, match="tiny-imagenet-200.zip: is not a valid zip archive"):
        use(tmp_path, "tiny-imagenet", path)


@pytest.mark.parametrize("flag", [0x1, 0x20])  # encrypted, a patch
@pytest.mark.parametrize("member", [IMAGE, "tiny-imagenet-200/words.txt"])
def test_tiny_imagenet_encrypted_is_refused_though_made(tmp_path, flag, member):
    path = tmp_path / "tiny-imagenet-200.zip"
    zip_with(path, IMAGE, "tiny-imagenet-200/words.txt")
    data = bytearray(path.read_bytes())
    place = data.rindex(member.encode())  # in the central directory
    data[place - 46 + 8] |= flag
    path.write_bytes(data)
    with pytest.raises(ValueError, match="tiny-imagenet-200.zip: (.*a.JPEG: cannot be unpacked|is not a valid zip)"):
        use(tmp_path, "tiny-imagenet", path)


def ilsvrc_with_a_synset_twice(path):
    fake_archives.ilsvrc(path, 1)
    with tarfile.open(path, "a") as tar:
        fake_archives.add(tar, "n02056570.tar", b"")


def test_ilsvrc_with_a_synset_twice_is_refused(tmp_path):
    (tmp_path / "offered").mkdir()
    ilsvrc_with_a_synset_twice(tmp_path / "offered" / "x.tar")
    with ArchiveServer(tmp_path / "offered") as server:
        by_url = {"tar": server.url("x.tar"), "accept_terms": True}
        for source in ({"tar": str(tmp_path / "offered" / "x.tar")}, by_url):
            downloads = Downloads(imagenet=ImageNetSource(images_per_class=1, **source))
            with pytest.raises(ValueError, match="x.tar: holds n02056570.tar twice"):
                prepare(
                    "imagenet10",
                    dataset="imagenet10",
                    folder=tmp_path / "out",
                    archives=tmp_path / "archives",
                    downloads=downloads,
                )
