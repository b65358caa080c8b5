"""The data sets in catalog.yaml, and the settings of their downloads.

Nothing here reads an archive, uses the network, or imports torch: the Snakefile imports this module before any job
starts. Only catalog.yaml and the readers that it names refer to data sets by name.
"""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from benchmarks.datasets.connection import plain
from scl.config import Settings
from scl.util.text import did_you_mean
from scl.util.yaml_file import load_yaml

IMAGES_PER_CLASS = 1300  # of most classes of ILSVRC-2012
_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class Archive:
    """A file to download. urls: tried in turn. official: whether its checksums are those of the published file."""

    file: str
    urls: tuple[str, ...]
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    official: bool = True

    @property
    def digests(self) -> dict[str, str]:
        """{"md5" or "sha256": hex digits}, those that are known."""
        return {kind: value for kind in ("md5", "sha256") if (value := getattr(self, kind))}


@dataclass(frozen=True, config=_CONFIG)
class Dataset:
    """A data set.

    clusters: None if the configuration must give it. size: default pixels per side. reader: module of this package
    whose `read(dataset, sources)` returns a RawDataset. counts: images per split in row order, as published (empty:
    any). protocols: {protocol: {role: splits}}; clustering is fitted on `fit`, representation learning may also use
    `represent`, and `assign` is evaluated. options: passed to the reader. imagenet: needs a source of ILSVRC-2012.
    user_path: needs `path` in the configuration. tuned: hyper-parameters of this project were chosen on it with its
    labels, so that it is excluded from the verdicts of a study.
    """

    name: str
    title: str
    clusters: int | None
    size: int
    reader: str
    counts: dict[str, int]
    protocols: dict[str, dict[str, tuple[str, ...]]]
    archives: tuple[Archive, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    imagenet: bool = False
    user_path: bool = False
    tuned: bool = False


CATALOG = {
    name: Dataset(name=name, **facts) for name, facts in load_yaml(Path(__file__).with_name("catalog.yaml")).items()
}
FILES = sorted({archive.file for dataset in CATALOG.values() for archive in dataset.archives})


class ImageNetSource(Settings):
    """Where to get the training images of ILSVRC-2012."""

    tar: str | None = None
    """A local ILSVRC2012_img_train.tar, or its URL, of which only the needed byte ranges are downloaded."""
    folder: str | None = None
    """The extracted images, train/WNID/*.JPEG. Give either this or `tar`."""
    accept_terms: bool = False
    """Must be true to download from a URL: ImageNet has terms of access."""
    header: str | None = None
    """A header "Name: value" for requests to the URL; ${VARIABLES} of the environment are expanded. Never recorded."""
    images_per_class: int = Field(IMAGES_PER_CLASS, ge=1, le=IMAGES_PER_CLASS)
    """Images per class in the source. Less than 1300 is for trials; the result is then marked as not official."""

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
    if file not in FILES:
        raise ValueError(f"no file of the catalog{did_you_mean(file, FILES)}")
    return file


def _url(text: str) -> str:
    if not is_url(text):
        raise ValueError(f"{plain(text)!r} is not an http(s) URL")
    return text


KnownFile = Annotated[str, AfterValidator(_known_file)]
Mirrors = Annotated[list[Annotated[str, AfterValidator(_url)]], Field(min_length=1)]


class Checksums(Settings):
    """Checksums of one file; each one given must match."""

    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$")
    """32 hex digits."""
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$")
    """64 hex digits."""


class Downloads(Settings):
    """Where archives come from and how they are verified."""

    archives: str | None = None
    """A folder with archives placed there by hand; searched before anything is downloaded."""
    mirrors: dict[KnownFile, Mirrors] = {}
    """{file: URLs}, tried in turn instead of the built-in ones."""
    checksums: dict[KnownFile, Checksums] = {}
    """{file: checksums} for a file that is not the published one; its counts may then differ."""
    timeout: float = Field(30.0, ge=0.1, le=86_400)
    """Seconds to wait for a server that sends nothing."""
    imagenet: ImageNetSource = ImageNetSource()
    """Where to get the training images of ILSVRC-2012."""


def is_url(text: str) -> bool:
    return bool(re.match(r"https?://", str(text), re.IGNORECASE))


def dataset_named(name: str) -> Dataset:
    if name not in CATALOG:
        raise ValueError(f"no data set is called {name!r}{did_you_mean(name, CATALOG)}")
    return CATALOG[name]


def archives_of(dataset: Dataset, downloads: Downloads) -> list[Archive]:
    """The archives of `dataset`, with the mirrors and checksums of the configuration instead of the published ones.

    Empty for digits, folder, and the subsets of ImageNet, whose synsets are read from the big tar.
    """
    return [_configured(archive, downloads) for archive in dataset.archives]


def is_published(dataset: Dataset, downloads: Downloads) -> bool:
    """Whether the archives of `dataset` are the published ones, whose counts are known."""
    return all(archive.official for archive in archives_of(dataset, downloads))


def _configured(archive: Archive, downloads: Downloads) -> Archive:
    urls = tuple(downloads.mirrors.get(archive.file, archive.urls))
    given = downloads.checksums.get(archive.file, Checksums()).model_dump(exclude_none=True)
    digests: dict[str, Any] = {kind: value.lower() for kind, value in given.items()}
    same = [archive.digests[kind] == value for kind, value in digests.items() if kind in archive.digests]
    if not digests or (same and all(same)):
        return dataclasses.replace(archive, urls=urls, **digests)
    return Archive(archive.file, urls, official=False, **digests)


def count_of(dataset: Dataset, downloads: Downloads) -> int | None:
    """Number of images of `dataset` with this configuration; None if only the archives contain it."""
    if not is_published(dataset, downloads):
        return None
    count = sum(dataset.counts.values())
    return count // IMAGES_PER_CLASS * downloads.imagenet.images_per_class if dataset.imagenet else count or None


def missing_source(dataset: Dataset, downloads: Downloads) -> str | None:
    """Why `dataset` is not available with this configuration, or None. Accesses no file and no network."""
    source = downloads.imagenet
    if dataset.imagenet and not (source.tar or source.folder):
        return "no ImageNet source"
    if dataset.imagenet and source.remote and not source.accept_terms:
        return "no ImageNet source: its terms of access are not accepted (downloads.imagenet.accept_terms)"
    return None
