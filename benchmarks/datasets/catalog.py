"""The data sets as data: archives and their checksums, counts, classes, protocols, who reads them.

Nothing here opens a file or the network, and nothing here imports torch: the Snakefile reads this module
before any job starts. A data set is one `Dataset` in `CATALOG`; nothing else in the project knows its name.
"""

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from benchmarks.datasets.connection import plain
from benchmarks.datasets.dataset import Archive, Dataset, Protocols
from benchmarks.datasets.synsets import IMAGENET_10, IMAGENET_DOGS
from scl.config import Settings
from scl.util.text import did_you_mean

DIGEST_LENGTHS = {"md5": 32, "sha256": 64}
IMAGES_PER_CLASS = 1300  # of most classes of ILSVRC-2012


class ImageNetSource(Settings):
    """Where ILSVRC-2012's training images come from: the configuration's `downloads.imagenet`.

    `tar` is a local ILSVRC2012_img_train.tar or its URL (range requests; `accept_terms` must be true),
    `folder` an extracted train/WNID/*.JPEG. `header` ("Name: value"; ${VARIABLES} of the environment are
    filled in) is sent with each request for the URL and never recorded. `images_per_class` other than 1300 is
    for trying things out: the result is then marked as not official.
    """

    tar: str | None = None
    folder: str | None = None
    accept_terms: bool = False
    header: str | None = None
    images_per_class: int = Field(IMAGES_PER_CLASS, ge=1, le=IMAGES_PER_CLASS)

    @model_validator(mode="after")
    def _is_one_source(self):
        if self.tar and self.folder:
            raise ValueError("give either `tar` or `folder`, not both")
        if self.tar and "://" in self.tar and not is_url(self.tar):
            raise ValueError(f"tar: {plain(self.tar)} is neither a path nor an http(s) URL")
        if self.header and ":" not in self.header:
            raise ValueError("header: write it as 'Name: value'")
        return self

    @property
    def remote(self) -> bool:
        return is_url(self.tar or "")


def _known_file(file: str) -> str:
    if file not in known_files():
        raise ValueError(f"no file of the catalog{did_you_mean(file, known_files())}")
    return file


def _url(text: str) -> str:
    if not is_url(text):
        raise ValueError(f"{plain(text)!r} is no http(s) URL")
    return text


def _digests(digests: dict[str, str]) -> dict[str, str]:
    for kind, value in digests.items():
        if not re.fullmatch(f"[0-9a-fA-F]{{{DIGEST_LENGTHS.get(kind, 0)}}}", value):
            raise ValueError(f"{kind}: {value!r} is no md5 (32 hex digits) or sha256 (64 hex digits)")
    return digests


KnownFile = Annotated[str, AfterValidator(_known_file)]
Mirrors = Annotated[list[Annotated[str, AfterValidator(_url)]], Field(min_length=1)]


class Downloads(Settings):
    """The configuration's `downloads`.

    `archives` is a folder with archives placed there by hand; `mirrors` *replaces* the sources of a file;
    `checksums` replaces what the file is checked against, which makes it another file than the published one:
    its counts are then recorded, not enforced.
    """

    archives: str | None = None
    mirrors: dict[KnownFile, Mirrors] = {}
    checksums: dict[KnownFile, Annotated[dict[str, str], AfterValidator(_digests)]] = {}
    timeout: float = Field(30.0, ge=0.1, le=86_400)  # seconds
    imagenet: ImageNetSource = ImageNetSource()


def is_url(text: str) -> bool:
    return bool(re.match(r"https?://", str(text), re.IGNORECASE))


def known_files() -> list[str]:
    return sorted({archive.file for dataset in CATALOG.values() for archive in dataset.archives})


def dataset_named(name: str) -> Dataset:
    """The data set of this name; ValueError with the nearest known one."""
    if name not in CATALOG:
        raise ValueError(f"no data set is called {name!r}{did_you_mean(name, CATALOG)}")
    return CATALOG[name]


def archives_of(dataset: Dataset, downloads: Downloads) -> list[Archive]:
    """The files that `dataset` needs, with the configuration's mirrors and checksums in place of the
    published.

    Empty for data sets that download nothing as a whole (digits, folder, and the subsets of ImageNet, which
    read their synsets out of the big tar).
    """
    return [_configured(archive, downloads) for archive in dataset.archives]


def _configured(archive: Archive, downloads: Downloads) -> Archive:
    if archive.file in downloads.mirrors:
        archive = dataclasses.replace(archive, urls=tuple(downloads.mirrors[archive.file]))
    digests: dict[str, Any] = {kind: value.lower() for kind, value in downloads.checksums.get(archive.file, {}).items()}
    published = {"md5": archive.md5, "sha256": archive.sha256}
    if all(published[kind] in (None, value) for kind, value in digests.items()):
        return dataclasses.replace(archive, **digests)
    digests = {"md5": None, "sha256": None, **digests}
    return dataclasses.replace(archive, **digests, bytes=None, official=False)


def missing_source(dataset: Dataset, downloads: Downloads) -> str | None:
    """Why `dataset` cannot be had with this configuration, or None. Looks at no file and no network."""
    if not dataset.imagenet:
        return None
    source = downloads.imagenet
    if not (source.tar or source.folder):
        return "no ImageNet source"
    if source.remote and not source.accept_terms:
        return "no ImageNet source: its terms of access are not accepted (downloads.imagenet.accept_terms)"
    return None


ONE_SPLIT: Protocols = {"joint": {"fit": ("train",), "represent": ("train",), "assign": ("train",)}}
WHOLE_FOLDER: Protocols = {"joint": {"fit": ("all",), "represent": ("all",), "assign": ("all",)}}
TWO_SPLITS: Protocols = {
    "joint": {"fit": ("train", "test"), "represent": ("train", "test"), "assign": ("train", "test")},
    "heldout": {"fit": ("train",), "represent": ("train",), "assign": ("test",)},
}
WITH_UNLABELED: Protocols = {
    "joint": {**TWO_SPLITS["joint"], "represent": ("train", "test", "unlabeled")},
    "heldout": {**TWO_SPLITS["heldout"], "represent": ("train", "unlabeled")},
}

# The last source of each is the official address. A mirror stands before it where that host is slow:
# www.cs.toronto.edu has been throttled since June 2026.
_ALL = (
    Dataset(
        name="cifar10",
        title="CIFAR-10",
        clusters=10,
        size=32,
        read="benchmarks.datasets.cifar:read",
        counts={"train": 50_000, "test": 10_000},
        protocols=TWO_SPLITS,
        archives=(
            Archive(
                file="cifar-10-python.tar.gz",
                urls=(
                    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                ),
                bytes=170_498_071,
                md5="c58f30108f718f92721af3b95e74349a",
                sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
        options={
            "folder": "cifar-10-batches-py",
            "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
            "test": ("test_batch",),
            "labels": "labels",
            "meta": "batches.meta",
            "names": "label_names",
        },
    ),
    Dataset(
        name="cifar100-20",
        title="CIFAR-100-20",
        clusters=20,
        size=32,
        read="benchmarks.datasets.cifar:read",
        counts={"train": 50_000, "test": 10_000},
        protocols=TWO_SPLITS,
        archives=(
            Archive(
                file="cifar-100-python.tar.gz",
                urls=("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
                bytes=169_001_437,
                md5="eb9058c3a382ffc7106e4002c42a8d85",
                sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        options={
            "folder": "cifar-100-python",
            "train": ("train",),
            "test": ("test",),
            "labels": "coarse_labels",
            "meta": "meta",
            "names": "coarse_label_names",
        },
    ),
    Dataset(
        name="stl10",
        title="STL-10",
        clusters=10,
        size=96,
        read="benchmarks.datasets.stl10:read",
        counts={"train": 5_000, "test": 8_000, "unlabeled": 100_000},
        protocols=WITH_UNLABELED,
        archives=(
            Archive(
                file="stl10_binary.tar.gz",
                urls=("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
                bytes=2_640_397_119,
                md5="91f7769df0f17e558f3565bffb0c7dfb",
            ),
        ),
    ),
    Dataset(
        name="imagenet10",
        title="ImageNet-10",
        clusters=10,
        size=96,
        read="benchmarks.datasets.ilsvrc:read",
        counts={"train": 13_000},
        protocols=ONE_SPLIT,
        options={"synsets": IMAGENET_10},
        imagenet=True,
    ),
    Dataset(
        name="imagenet-dogs",
        title="ImageNet-Dogs",
        clusters=15,
        size=96,
        read="benchmarks.datasets.ilsvrc:read",
        counts={"train": 19_500},
        protocols=ONE_SPLIT,
        options={"synsets": IMAGENET_DOGS},
        imagenet=True,
    ),
    Dataset(
        name="tiny-imagenet",
        title="Tiny-ImageNet",
        clusters=200,
        size=64,
        read="benchmarks.datasets.tiny_imagenet:read",
        counts={"train": 100_000},
        protocols=ONE_SPLIT,
        archives=(
            Archive(
                file="tiny-imagenet-200.zip",
                urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
                bytes=248_100_043,
                md5="90528d7ca1a48142e341f4ef8d21d0de",
                sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            ),
        ),
    ),
    Dataset(
        name="digits",
        title="Digits",
        clusters=10,
        size=16,
        read="benchmarks.datasets.digits:read",
        counts={"train": 901, "test": 896},
        protocols=TWO_SPLITS,
    ),
    Dataset(
        name="folder",
        title="Folder",
        clusters=None,
        size=64,
        read="benchmarks.datasets.folder:read",
        counts={},
        protocols=WHOLE_FOLDER,
        user_path=True,
    ),
)
CATALOG: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})
