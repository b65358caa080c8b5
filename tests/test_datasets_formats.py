"""From archives in the official layouts to arrays: every format, its order, its labels, and what is recorded."""

import hashlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import fake_archives
import numpy as np
import pytest
from PIL import Image

from benchmarks.datasets.catalog import CATALOG, Downloads, ImageNetSource
from benchmarks.datasets.dataset import hash_order
from benchmarks.datasets.prepare import prepare, unlike
from benchmarks.study import Benchmark

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offered")
    return folder, fake_archives.build(folder)


def make(offered, tmp_path, dataset, **changes):
    """(benchmark.json, images, labels or None) of one prepared benchmark."""
    folder, checksums = offered
    imagenet = ImageNetSource(tar=str(folder / "ILSVRC2012_img_train.tar"), images_per_class=6)
    downloads = Downloads(archives=str(folder), checksums=checksums, imagenet=imagenet)
    out = tmp_path / "data" / dataset
    mark = prepare("mine", dataset=dataset, folder=out, archives=tmp_path / "archives", downloads=downloads, **changes)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["benchmark.json", "image_names.json", "images.npy"] + ["labels.npy"] * (out / "labels.npy").exists()
    )
    labels = np.load(out / "labels.npy") if (out / "labels.npy").exists() else None
    return json.loads(mark.read_text()), np.load(out / "images.npy", mmap_mode="r"), labels


@pytest.mark.parametrize(
    "dataset, splits, clusters, size",
    [
        ("cifar10", {"train": 60, "test": 30}, 10, 32),
        ("cifar100-20", {"train": 120, "test": 60}, 20, 32),
        ("stl10", {"train": 60, "test": 120, "unlabeled": 40}, 10, 96),
        ("imagenet10", {"train": 60}, 10, 96),
        ("imagenet-dogs", {"train": 90}, 15, 96),
        ("tiny-imagenet", {"train": 48}, 8, 64),
        ("digits", {"train": 901, "test": 896}, 10, 16),
    ],
)
def test_every_data_set_keeps_the_contract(offered, tmp_path, dataset, splits, clusters, size):
    record, images, labels = make(offered, tmp_path, dataset)
    count = sum(splits.values())
    assert images.shape == (count, size, size, 3) and images.dtype == np.uint8 and images.flags.c_contiguous
    assert labels.shape == (count,) and labels.dtype == np.int64
    assert {name: stop - start for name, (start, stop) in record["splits"].items()} == splits
    assert (record["count"], record["size"], record["clusters"]) == (count, [size, size], clusters)
    assert (record["name"], record["dataset"], len(record["classes"])) == ("mine", dataset, clusters)
    labeled = slice(0, count - splits.get("unlabeled", 0))
    assert set(labels[labeled]) == set(range(clusters)) and set(labels[labeled.stop :]) <= {-1}
    assert set(record["protocols"]) == ({"joint", "heldout"} if len(splits) > 1 else {"joint"})
    for roles in record["protocols"].values():
        assert set(roles["fit"]) <= set(roles["represent"]) <= set(splits) and set(roles["assign"]) <= set(splits)
        assert "unlabeled" not in roles["fit"] + roles["assign"]
    written = tmp_path / "data" / dataset
    assert record["images_sha256"] == hashlib.sha256((written / "images.npy").read_bytes()).hexdigest()
    assert record["labels_sha256"] == hashlib.sha256((written / "labels.npy").read_bytes()).hexdigest()
    assert record["official"] is (dataset == "digits")


@pytest.mark.parametrize("subset", [None, 30])
def test_fewer_images_of_imagenet_are_prepared_again_for_more(subset, offered, tmp_path):
    facts, _, _ = make(offered, tmp_path, "imagenet10", subset=subset)

    def problem(images_per_class):
        downloads = Downloads(imagenet=ImageNetSource(tar="x.tar", images_per_class=images_per_class))
        return unlike(facts, Benchmark(subset=subset), CATALOG["imagenet10"], downloads)

    assert problem(6) == "" and "images_per_class" in problem(1300)


@pytest.mark.parametrize("numpy_path", ["numpy.core.multiarray", "numpy._core.multiarray", "python 2"])
def test_cifar_pixels_and_labels_go_together(tmp_path, numpy_path):
    def python3(batch):
        return pickle.dumps(batch, protocol=2).replace(b"numpy._core.multiarray", numpy_path.encode())

    path = tmp_path / "cifar-10-python.tar.gz"
    fake_archives.cifar10(path, 4, pickler=fake_archives.python2_pickle if numpy_path == "python 2" else python3)
    checksums = {path.name: {"md5": hashlib.md5(path.read_bytes()).hexdigest()}}
    record, images, labels = make((tmp_path, checksums), tmp_path, "cifar10")
    made = {
        fake_archives.picture(label, i, 32).tobytes(): (label, i)
        for label in range(10)
        for i in [*range(4), 1000, 1001]
    }
    found = [made[image.tobytes()] for image in images]
    assert [label for label, _ in found] == labels.tolist()
    assert all(i < 1000 for _, i in found[:40]) and all(i >= 1000 for _, i in found[40:])
    assert record["classes"] == fake_archives.CIFAR_10


def test_cifar100_takes_the_superclasses(offered, tmp_path):
    record, images, labels = make(offered, tmp_path, "cifar100-20")
    assert record["classes"] == list(fake_archives.SUPERCLASSES)
    made = {fake_archives.picture(20 + label, i, 32).tobytes(): label for label in range(20) for i in range(6)}
    assert [made[image.tobytes()] for image in images[:120]] == labels[:120].tolist()


def test_stl10_axis_order(offered, tmp_path):
    """As officially described: reshape to N x 3 x 96 x 96, then swap the last two axes."""
    _, images, labels = make(offered, tmp_path, "stl10")
    assert np.array_equal(images[0], fake_archives.picture(40, 0, 96))
    assert np.array_equal(images[60], fake_archives.picture(40, 1000, 96)) and labels[60] == 0
    assert np.array_equal(images[180], fake_archives.picture(40, 2000, 96)) and labels[180] == -1
    assert labels[:10].tolist() == list(range(10))  # 1 .. 10 in the file


def test_stl10_rows_are_those_of_torchvision(offered, tmp_path):
    pytest.importorskip("torch")
    from scl.util.shim import torchvision  # noqa: F401

    raw = np.random.default_rng(0).integers(0, 256, 3 * 96 * 96 * 2, dtype=np.uint8).tobytes()
    (tmp_path / "train_X.bin").write_bytes(raw)
    from torchvision.datasets import STL10

    from benchmarks.datasets.stl10 import to_images

    loader = STL10.__new__(STL10)
    loader.root, loader.base_folder = str(tmp_path), ""
    theirs, _ = loader._STL10__loadfile("train_X.bin")  # N x 3 x H x W
    assert np.array_equal(to_images(raw), theirs.transpose(0, 2, 3, 1))


def test_file_order_is_by_hash_and_says_nothing_about_classes(offered, tmp_path):
    _, images, labels = make(offered, tmp_path, "tiny-imagenet")
    with zipfile.ZipFile(offered[0] / "tiny-imagenet-200.zip") as archive:
        names = [name.partition("train/")[2] for name in archive.namelist() if "/train/" in name]
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        synsets = sorted({name[:9] for name in names})
        assert labels.tolist() == [synsets.index(name[:9]) for name in names]
        first = archive.read(f"tiny-imagenet-200/train/{names[0]}")
    assert np.array_equal(images[0], np.asarray(Image.open(io.BytesIO(first)).convert("RGB")))
    assert labels.tolist() != sorted(labels.tolist())


def test_tiny_imagenet_names_and_gray_images(offered, tmp_path):
    record, images, _ = make(offered, tmp_path, "tiny-imagenet")
    assert record["classes"] == [f"thing {i}" for i in range(8)]
    assert sum((image == image[..., :1]).all() for image in images) == 8  # one gray image per class


def test_digits_are_the_published_ones(offered, tmp_path):
    from sklearn.datasets import load_digits

    record, images, labels = make(offered, tmp_path, "digits", size=8)
    digits = load_digits()
    assert (images == images[..., :1]).all()
    seen = {tuple(image.ravel()) for image in np.round(digits.images * 255 / 16).astype(int)}
    assert {tuple(image[..., 0].ravel().astype(int)) for image in images} == seen
    assert sorted(labels) == sorted(digits.target)
    counts = np.bincount(labels[:901]) - np.bincount(labels[901:])
    assert set(counts) <= {0, 1}
    assert CATALOG["digits"].size == 16


def test_resize_is_antialiased_and_the_size_configured(offered, tmp_path):
    record, images, _ = make(offered, tmp_path, "stl10", size=24)
    assert images.shape[1:] == (24, 24, 3) and "antialiasing" in record["resize"]
    original = Image.fromarray(fake_archives.picture(40, 0, 96))
    assert np.array_equal(images[0], np.asarray(original.resize((24, 24), Image.Resampling.BICUBIC)))


def test_several_threads_write_what_one_does(offered, tmp_path, monkeypatch):
    for dataset, changes in (("stl10", {"size": 32}), ("tiny-imagenet", {}), ("cifar10", {})):
        written = []
        for threads in (1, 3):
            monkeypatch.setattr("benchmarks.datasets.pixels.cores", lambda threads=threads: threads)
            written.append(make(offered, tmp_path, dataset, **changes)[0]["images_sha256"])
        assert written[0] == written[1]


def test_subset_is_label_blind_proportional_and_nested(offered, tmp_path):
    record, images, labels = make(offered, tmp_path, "stl10", subset=110)
    assert record["splits"] == {"train": [0, 30], "test": [30, 90], "unlabeled": [90, 110]}
    assert record["count"] == len(images) == len(labels) == 110 and record["subset"] == 110
    _, whole, whole_labels = make(offered, tmp_path, "stl10")
    rows = {image.tobytes(): row for row, image in enumerate(whole)}
    chosen = [rows[image.tobytes()] for image in images]
    assert chosen == sorted(chosen) and (whole_labels[chosen] == labels).all()
    _, fewer, _ = make(offered, tmp_path, "stl10", subset=55)
    assert {image.tobytes() for image in fewer} <= {image.tobytes() for image in images}
    for bad in (221, 2, -1):
        with pytest.raises(ValueError, match=f"subset: {bad} images cannot be drawn"):
            make(offered, tmp_path, "stl10", subset=bad)


@pytest.mark.parametrize(
    "dataset, first, last",
    [
        ("stl10", "train_X.bin[0]", "unlabeled_X.bin[39]"),
        ("digits", "digits[0]", "digits[1796]"),
        ("imagenet10", None, None),
        ("tiny-imagenet", None, None),
        ("cifar10", None, None),
    ],
)
def test_each_image_has_its_name(offered, tmp_path, dataset, first, last):
    """Names follow the rows, even in a subset: a name refers to the same image in both."""
    _, images, labels = make(offered, tmp_path, dataset)
    names = json.loads((tmp_path / "data" / dataset / "image_names.json").read_text())
    assert len(names) == len(images)
    if first:
        assert len(set(names)) == len(names) and (names[0], names[-1]) == (first, last)
    if dataset in ("imagenet10", "tiny-imagenet"):
        synsets = sorted({name.partition("/")[0] for name in names})
        assert [synsets.index(name.partition("/")[0]) for name in names] == labels.tolist()
    pairs = {(name, image.tobytes()) for name, image in zip(names, images)}
    _, fewer, _ = make(offered, tmp_path, dataset, subset=40)
    chosen = json.loads((tmp_path / "data" / dataset / "image_names.json").read_text())
    assert len(chosen) == 40 and {(name, image.tobytes()) for name, image in zip(chosen, fewer)} <= pairs


def test_cifar_images_have_the_names_of_their_batches(tmp_path):
    def nameless(batch):
        return fake_archives.python2_pickle({key: value for key, value in batch.items() if key != "filenames"})

    path = tmp_path / "cifar-10-python.tar.gz"
    for pickler in (fake_archives.python2_pickle, nameless):
        fake_archives.cifar10(path, 2, pickler=pickler)
        checksums = {path.name: {"md5": hashlib.md5(path.read_bytes()).hexdigest()}}
        make((tmp_path, checksums), tmp_path / pickler.__name__, "cifar10")
        names = json.loads((tmp_path / pickler.__name__ / "data" / "cifar10" / "image_names.json").read_text())
        order = [int(i) for i in np.random.default_rng(0).permutation(20)]
        if pickler is nameless:
            assert names[:5] == [*(f"data_batch_1[{i}]" for i in range(4)), "data_batch_2[0]"]
        else:
            assert names[:20] == [f"{i}.png" for i in order]


def test_preparing_twice_gives_the_same_bytes(offered, tmp_path):
    first, _, _ = make(offered, tmp_path, "imagenet10")
    again, _, _ = make(offered, tmp_path, "imagenet10")
    assert first == again


def test_sources_are_recorded(offered, tmp_path):
    folder, checksums = offered
    record, _, _ = make(offered, tmp_path, "cifar10")
    path = folder / "cifar-10-python.tar.gz"
    assert record["sources"] == [{"file": path.name, "bytes": path.stat().st_size, "url": None, **checksums[path.name]}]
    assert {"python", "numpy", "pillow"} <= set(record["versions"])


def test_counts_of_an_official_archive_are_enforced(offered, tmp_path, monkeypatch):
    import dataclasses

    from benchmarks.datasets import catalog

    folder, checksums = offered
    (archive,) = CATALOG["cifar10"].archives
    official = dataclasses.replace(archive, bytes=None, sha256=None, **checksums[archive.file])
    changed = {**CATALOG, "cifar10": dataclasses.replace(CATALOG["cifar10"], archives=(official,))}
    monkeypatch.setattr(catalog, "CATALOG", changed)
    with pytest.raises(ValueError, match="'train': 60.*CIFAR-10 has .*50000"):
        make(offered, tmp_path, "cifar10")
    assert not (tmp_path / "data" / "cifar10" / "benchmark.json").exists()


@pytest.mark.parametrize(
    "dataset, changes, message",
    [
        ("cifar", {}, "did you mean 'cifar10'"),
        ("cifar10", {"clusters": 91}, "not within 1 .. 90"),
        ("folder", {}, "give the benchmark a `path:`"),
    ],
)
def test_wrong_requests_name_what_is_wrong(offered, tmp_path, dataset, changes, message):
    with pytest.raises(ValueError, match=message):
        make(offered, tmp_path, dataset, **changes)


def real_images():
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCL_REAL_IMAGES", beside))
    if not (folder / "cifar10-jpeg.tar.xz").is_file():
        pytest.skip("no real images (SCL_REAL_IMAGES, or ../shared/data beside the checkout)")
    return folder


def test_real_images(tmp_path):
    images = real_images()
    fake_archives.cifar10(tmp_path / "cifar-10-python.tar.gz", 3, images=images)
    fake_archives.ilsvrc(tmp_path / "ILSVRC2012_img_train.tar", 6, images=images)
    fake_archives.tiny_imagenet(tmp_path / "tiny-imagenet-200.zip", 3, 4, images=images)
    checksums = {path.name: {"md5": hashlib.md5(path.read_bytes()).hexdigest()} for path in tmp_path.glob("*-*")}
    for dataset, count in (("cifar10", 60), ("imagenet10", 60), ("imagenet-dogs", 90), ("tiny-imagenet", 12)):
        record, pixels, labels = make((tmp_path, checksums), tmp_path, dataset)
        assert record["count"] == count
        assert np.bincount(labels).min() == np.bincount(labels).max()
        assert all(pixels[row].std() > 5 for row in range(count))  # real content, not uniform color


def test_hash_order_does_not_depend_on_the_order_given():
    names = [f"a/{i}.png" for i in range(50)]
    assert hash_order(names) == hash_order(names[::-1]) != names
