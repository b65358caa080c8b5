"""What a data set and an archive are, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Protocols = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Archive:
    """One file to be downloaded. `official` = its checksum is that of the published file."""

    file: str
    urls: tuple[str, ...]  # tried in turn
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    official: bool = True


@dataclass(frozen=True)
class Dataset:
    """A data set: what it holds, and the function that reads it.

    `counts`: images per split, in row order, of the published data set (empty: any). `protocols`: for each,
    the splits the clustering is fitted on, those allowed for representation learning, and those evaluated.
    `read` is "module:function", called as read(dataset, sources) -> Contents; `options` are for it alone.
    """

    name: str
    title: str
    clusters: int | None
    size: int  # pixels a side, unless the configuration says otherwise
    read: str
    counts: Mapping[str, int]
    protocols: Protocols
    archives: tuple[Archive, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    imagenet: bool = False  # needs a source of ILSVRC-2012
    user_path: bool = False  # needs `path:` in the configuration
