"""ImageNet subsets from a tar, a folder, and a URL; and the messages for data sets that are mistaken for them."""

import io
import json
import shutil
import tarfile

import fake_archives
import numpy as np
import pytest
from archive_server import ArchiveServer
from PIL import Image

from benchmarks.datasets import transfer
from benchmarks.datasets.catalog import CATALOG, Downloads, ImageNetSource
from benchmarks.datasets.prepare import prepare, unlike
from benchmarks.datasets.remote_tar import cached_folders, download_member, members
from benchmarks.study import Benchmark

pytestmark = [pytest.mark.slow, pytest.mark.network]

TAR = "ILSVRC2012_img_train.tar"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.01)


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offered")
    fake_archives.ilsvrc(folder / TAR)
    for synset, files in fake_archives.ilsvrc_images(6, None).items():
        (folder / "extracted" / "train" / synset).mkdir(parents=True)
        for name, data in files.items():
            (folder / "extracted" / "train" / synset / name).write_bytes(data)
    return folder


@pytest.fixture
def server(offered):
    with ArchiveServer(offered) as server:
        yield server


def make(tmp_path, dataset="imagenet10", sizes=None, **source):
    source = ImageNetSource(**{"images_per_class": 6, **source})
    out = tmp_path / "data" / dataset
    mark = prepare(
        dataset,
        dataset=dataset,
        folder=out,
        archives=tmp_path / "archives",
        downloads=Downloads(timeout=0.5, imagenet=source),
        **{"size": 32, **(sizes or {})},
    )
    return json.loads(mark.read_text()), np.load(out / "images.npy"), np.load(out / "labels.npy")


def test_tar_folder_and_url_give_the_same_rows(offered, server, tmp_path):
    ways = [
        {"tar": str(offered / TAR)},
        {"folder": str(offered / "extracted")},
        {"folder": str(offered / "extracted" / "train")},
        {"tar": server.url(TAR), "accept_terms": True},
    ]
    made = [make(tmp_path, "imagenet-dogs", **way) for way in ways]
    assert len({(record["images_sha256"], record["labels_sha256"]) for record, *_ in made}) == 1
    record, images, labels = made[0]
    assert np.bincount(labels).tolist() == [6] * 15 and record["classes"][0] == "Maltese" and not record["official"]


def test_images_are_kept_at_a_larger_size_too(offered, tmp_path):
    """The usual images do not change, and the larger ones are made from the originals, not from the usual ones."""
    source = {"tar": str(offered / TAR)}
    alone, both, large = (
        make(tmp_path / name, sizes=sizes, **source)
        for name, sizes in (("a", {}), ("b", {"larger_size": 48}), ("c", {"size": 48}))
    )
    assert both[0]["images_sha256"] == alone[0]["images_sha256"] and alone[0]["larger"] is None
    assert both[0]["larger"] == {"size": 48, "sha256": large[0]["images_sha256"]}
    larger = np.load(tmp_path / "b" / "data" / "imagenet10" / "images-48.npy")
    np.testing.assert_array_equal(larger, large[1])


def test_both_subsets_share_what_was_fetched_and_only_synsets_are(server, tmp_path, offered):
    way = {"tar": server.url(TAR), "accept_terms": True}
    make(tmp_path, "imagenet10", **way)
    kept = {path.name for path in (tmp_path / "archives").glob("*/n*.tar")}
    assert kept == {f"{synset}.tar" for synset in fake_archives.IMAGENET_10}
    before = len(server.requests)
    assert all(status == 206 for *_, status in server.requests)
    record, *_ = make(tmp_path, "imagenet-dogs", **way)
    (folder,) = cached_folders(server.url(TAR), tmp_path / "archives")
    fetched = [wanted for _, wanted, _ in server.requests[before:]]
    assert len(fetched) == 1 + 14  # a query of the length; the index is kept, and Maltese is there already
    assert record["sources"][0] == {
        "file": "n02085936.tar",
        "url": server.url(TAR),
        "bytes": (folder / "n02085936.tar").stat().st_size,
    }


def test_header_is_sent_filled_in_and_recorded_nowhere(server, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGENET_TOKEN", "s3cret")
    way = {"tar": server.url(TAR) + "?key=s3cret", "accept_terms": True}
    make(tmp_path, **way, header="Cookie: id=${IMAGENET_TOKEN}")
    assert all(header["Cookie"] == "id=s3cret" for header in server.headers)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()


def test_url_survives_cuts_and_reports_what_it_cannot(server, tmp_path, offered):
    way = {"tar": server.url(TAR), "accept_terms": True}
    server.faults[f"a/{TAR}"] = {"503 twice"}
    make(tmp_path, **way)
    shutil.rmtree(tmp_path / "archives")
    for fault, words in (
        ("no ranges", "does not answer range requests.*set downloads.imagenet.tar to its path"),
        ("404", "HTTP status 404"),
        ("login", "19 bytes are not an uncompressed tar.*imagenet.header"),
    ):
        server.faults[f"a/{TAR}"] = {fault}
        with pytest.raises(ValueError, match=words):
            make(tmp_path, **way)
    assert not list((tmp_path / "archives").rglob("n*.tar"))


def test_a_synset_cut_short_is_gone_on_with(server, tmp_path):
    offset, size = members(server.url(TAR), tmp_path, timeout=1)["n02056570.tar"]
    (tmp_path / "n02056570.tar.part").write_bytes((server.folder / TAR).read_bytes()[offset : offset + 700])
    download_member(server.url(TAR), tmp_path / "n02056570.tar", (offset, size), timeout=1, header=None)
    assert server.requests[-1][1] == f"bytes={offset + 700}-{offset + size - 1}"
    with tarfile.open(tmp_path / "n02056570.tar") as tar:
        assert len(tar.getnames()) == 6


def test_a_full_disk_is_named_with_the_synset(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer, "_receive", full)
    with pytest.raises(OSError, match="no room for n02056570.tar in .*ilsvrc-.* .No space.*make room"):
        make(tmp_path, tar=server.url(TAR), accept_terms=True)


def test_terms_must_be_accepted_for_the_url(server, tmp_path):
    with pytest.raises(ValueError, match="terms of access are not accepted"):
        make(tmp_path, tar=server.url(TAR))
    with pytest.raises(ValueError, match="no ImageNet source. Get the training images"):
        make(tmp_path)
    assert not server.requests


def test_modes_are_mixed_in_the_source_and_rgb_in_the_arrays(offered, tmp_path):
    files = fake_archives.ilsvrc_images(6, None)["n02056570"].values()
    opened = [Image.open(io.BytesIO(data)) for data in files]
    assert {(image.format, image.mode) for image in opened} == {
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
    }
    _, images, labels = make(tmp_path, tar=str(offered / TAR))
    penguins = images[labels == 0].astype(int)
    grounds = [image.convert("RGB").crop((5, 5, 95, 95)) for image in opened]
    for ground in grounds:  # all six are present, and close to a plain conversion
        plain = np.asarray(ground.resize((32, 32)))
        assert min(abs(penguin.mean((0, 1)) - plain.mean((0, 1))).max() for penguin in penguins) < 25


def write_folder(root, synsets, name, count):
    for synset in synsets:
        (root / synset).mkdir(parents=True)
        for i in range(count):
            (root / synset / name.format(synset=synset[:9], i=i)).write_bytes(b"x")


@pytest.mark.parametrize(
    "name, count, expected, words",
    [
        ("{synset}_{i}.jpg", 15, 15, "names that ILSVRC-2012 does not have, such as 'n02085936_.*jpg'"),
        ("ILSVRC2012_val_0000{i}.JPEG", 5, 5, "names that ILSVRC-2012 does not have, such as 'ILSVRC2012_val_0000"),
        ("{synset}_{i}.JPEG", 15, 1300, "has 15 images where 1,300 are expected"),
        ("{synset}_{i}.JPEG", 7, 6, "has 7 images where 6 are expected"),
    ],
)
def test_other_data_sets_are_told_apart(tmp_path, name, count, expected, words):
    first, *others = fake_archives.IMAGENET_DOGS
    write_folder(tmp_path / "train", [first], name, count)
    write_folder(tmp_path / "train", others, name, 1)
    with pytest.raises(ValueError, match=f"train: n02085936 .*{words}") as caught:
        make(tmp_path, "imagenet-dogs", folder=str(tmp_path), images_per_class=expected)
    assert "19,500 for ImageNet-Dogs. Others are Stanford Dogs (148 to 252 images per breed" in str(caught.value)


@pytest.mark.parametrize("prepared_from", ["tar", "folder", "url"])
def test_images_of_another_kind_of_source_are_prepared_again(offered, server, tmp_path, prepared_from):
    ways = {
        "tar": {"tar": str(offered / TAR)},
        "folder": {"folder": str(offered / "extracted")},
        "url": {"tar": server.url(TAR), "accept_terms": True},
    }
    absent = [{"tar": "/absent/x.tar"}, {"folder": "/absent/train"}]
    facts, *_ = make(tmp_path, **ways[prepared_from])

    def problem(way):
        imagenet = ImageNetSource(images_per_class=6, **way)
        return unlike(facts, Benchmark(size=32), CATALOG["imagenet10"], Downloads(imagenet=imagenet))

    local = {"tar", "folder"} - {prepared_from}
    assert {name for name, way in ways.items() if problem(way).startswith("downloads.imagenet: ")} == local
    assert not any(map(problem, absent)) and not problem(ways[prepared_from])
    facts["sources"] = []
    assert not any(map(problem, ways.values()))


def test_stanford_dogs_as_it_unpacks(tmp_path):
    names = [f"{synset}-Maltese_dog" for synset in fake_archives.IMAGENET_DOGS]
    write_folder(tmp_path / "Images", names, "{synset}_{i}.jpg", 2)
    for folder in (tmp_path, tmp_path / "Images"):
        with pytest.raises(ValueError, match="lacks 15 of the 15 synsets.*Stanford Dogs"):
            make(tmp_path, "imagenet-dogs", folder=str(folder))


def test_tars_that_are_none_of_ilsvrc(offered, tmp_path):
    (tmp_path / "text.tar").write_bytes(b"<html>" * 1000)
    (tmp_path / "half.tar").write_bytes((offered / TAR).read_bytes()[:700_000])
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        fake_archives.add(tar, "train/a.JPEG", b"x")
    with tarfile.open(tmp_path / "none.tar", "w") as tar:
        fake_archives.add(tar, "train/a.tar", b"x")
    for file, words in (
        ("text.tar", "not a valid tar"),
        ("half.tar", "not a valid tar|lacks"),
        ("flat.tar", "holds a.JPEG, not the tars of the synsets"),
        ("none.tar", "lacks 10 of the 10"),
        ("gone.tar", "is not a file"),
    ):
        with pytest.raises(ValueError, match=words):
            make(tmp_path, tar=str(tmp_path / file))
