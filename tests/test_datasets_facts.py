"""Published facts about the data sets, pinned; and what is known before anything starts."""

import fake_archives
import pytest

from benchmarks.datasets.catalog import CATALOG, Downloads, ImageNetSource, dataset_named, missing_source


def test_the_catalog_says_what_is_published():
    facts = {name: (dataset.clusters, dict(dataset.counts)) for name, dataset in CATALOG.items()}
    assert facts == {
        "cifar10": (10, {"train": 50000, "test": 10000}),
        "cifar100-20": (20, {"train": 50000, "test": 10000}),
        "stl10": (10, {"train": 5000, "test": 8000, "unlabeled": 100000}),
        "imagenet10": (10, {"train": 13000}),
        "imagenet-dogs": (15, {"train": 19500}),
        "tiny-imagenet": (200, {"train": 100000}),
        "digits": (10, {"train": 901, "test": 896}),
        "folder": (None, {}),
    }
    files = {archive.file: (archive.bytes, archive.md5) for dataset in CATALOG.values() for archive in dataset.archives}
    assert files == {
        "cifar-10-python.tar.gz": (170498071, "c58f30108f718f92721af3b95e74349a"),
        "cifar-100-python.tar.gz": (169001437, "eb9058c3a382ffc7106e4002c42a8d85"),
        "stl10_binary.tar.gz": (2640397119, "91f7769df0f17e558f3565bffb0c7dfb"),
        "tiny-imagenet-200.zip": (248100043, "90528d7ca1a48142e341f4ef8d21d0de"),
    }
    stl = CATALOG["stl10"].protocols
    assert stl["joint"]["represent"] == ("train", "test", "unlabeled") and stl["joint"]["fit"] == ("train", "test")
    assert stl["heldout"] == {"fit": ("train",), "represent": ("train", "unlabeled"), "assign": ("test",)}


def test_checksums_agree_with_torchvision():
    pytest.importorskip("torch")
    from scl.util.shim import torchvision

    theirs = torchvision.datasets
    for name, loader in (("cifar10", theirs.CIFAR10), ("cifar100-20", theirs.CIFAR100), ("stl10", theirs.STL10)):
        assert CATALOG[name].archives[0].md5 == loader.tgz_md5
        assert CATALOG[name].archives[0].file == loader.filename


def test_the_synsets():
    ten, dogs = (CATALOG[name].options["synsets"] for name in ("imagenet10", "imagenet-dogs"))
    assert list(ten) == sorted(ten) and list(dogs) == sorted(dogs)
    assert " ".join(ten) == (
        "n02056570 n02085936 n02128757 n02690373 n02692877 n03095699 n04254680 n04285008 n04467665 n07747607"
    )
    assert " ".join(dogs) == (
        "n02085936 n02086646 n02088238 n02091467 n02097130 n02099601 n02101388 n02101556 "
        "n02102177 n02105056 n02105412 n02105855 n02107142 n02110958 n02112137"
    )


def test_the_superclasses_of_cifar100():
    assert len(fake_archives.SUPERCLASSES) == CATALOG["cifar100-20"].clusters == 20
    assert list(fake_archives.SUPERCLASSES) == sorted(fake_archives.SUPERCLASSES)
    fine = [name for names in fake_archives.SUPERCLASSES.values() for name in names.split()]
    assert len(fine) == len(set(fine)) == 100
    assert CATALOG["cifar100-20"].options["labels"] == "coarse_labels"
    assert CATALOG["cifar100-20"].options["classes"] == "coarse_label_names"


def test_missing_source_is_known_without_looking():
    ready = {"imagenet10": ImageNetSource(tar="/x.tar"), "imagenet-dogs": ImageNetSource(folder="/train")}
    for name, source in ready.items():
        dataset = dataset_named(name)
        assert missing_source(dataset, Downloads()) == "no ImageNet source"
        assert missing_source(dataset, Downloads(imagenet=source)) is None
        url = ImageNetSource(tar="https://image-net.org/x.tar")
        assert "accept_terms" in missing_source(dataset, Downloads(imagenet=url))
        accepted = ImageNetSource(tar=url.tar, accept_terms=True)
        assert missing_source(dataset, Downloads(imagenet=accepted)) is None
    for name in set(CATALOG) - set(ready):
        assert missing_source(CATALOG[name], Downloads()) is None
