"""`scl cluster` as a scikit-learn estimator: `from benchmarks import ImageClustering`."""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from benchmarks.assigner import assign_images
from benchmarks.cluster import Clustering, cluster_folder
from benchmarks.folder_study import ARRAY, Request
from scl.engine.provenance import cores

import torch  # isort: skip
from scl.util.text import expanded


class ImageClustering(ClusterMixin, BaseEstimator):
    """Clusters of images by one of the methods of this project. Does what `scl cluster` does, with its defaults.

    X is a uint8 array, N x H x W x 3, or a folder of images (str or Path). Labels are never used, including those of
    class sub-folders; y is ignored.

    Parameters: n_clusters (default: the number of class sub-folders), method ("scl", "scan", "selflabel", "simclr",
    "pica", "kmeans"), size (pixels per side), epochs (of each stage), random_state (the seed, an integer), weights (a
    pretrained ResNet: its name in timm, or a file), out (folder of the results, where an interrupted fit resumes;
    default: a temporary one), config (a file of settings), gpus (0: the CPU), threads (default: all cores), verbose
    (progress on stderr).

    Attributes: labels_ (N), confidence_ (N, in [0, 1]), files_ (N names, sorted, or rows of the array), summary_ (what
    the command prints), n_clusters_.
    """

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        method: str = "scl",
        size: int | None = None,
        epochs: int | None = None,
        random_state: int = 0,
        weights: str | None = None,
        out: str | Path | None = None,
        config: str | Path | None = None,
        gpus: int = 1,
        threads: int | None = None,
        verbose: bool = False,
    ):
        self.n_clusters = n_clusters
        self.method = method
        self.size = size
        self.epochs = epochs
        self.random_state = random_state
        self.weights = weights
        self.out = out
        self.config = config
        self.gpus = gpus
        self.threads = threads
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "ImageClustering":
        """Prepare, train and assign. Raises ValueError for bad input, and whatever training raises."""
        with tempfile.TemporaryDirectory(prefix=ARRAY) as temporary:
            out = Path(temporary) / "out" if self.out is None else expanded(self.out)
            folder = _as_path(X, Path(temporary))
            request = self._request(folder, out)
            try:
                with self._quiet():
                    found = cluster_folder(request, threads=self.threads)
            except SystemExit:  # the state is saved, but a session must not end with it
                raise KeyboardInterrupt("stopped; with `out`, the same fit resumes") from None
        if found.summary["unreadable"]:
            warnings.warn(f"{found.summary['unreadable']} unreadable image(s) of {X} were left out")
        return self._keep(found, by_name=folder.is_dir())

    def predict(self, X: Any) -> np.ndarray:
        """The clusters (N) of images given as to `fit`; for a folder, in the order of sorted names, without images that
        cannot be read. Raises NotFittedError before `fit`."""
        check_is_fitted(self)
        torch.set_num_threads(self.threads or cores())
        with tempfile.TemporaryDirectory(prefix="scl-predict-") as temporary:
            folder = _as_path(X, Path(temporary))
            with self._quiet():
                names, clusters, _, facts = assign_images(self._assigner, folder, Path(temporary) / "data")
        if facts["unreadable"]:
            warnings.warn(f"{len(facts['unreadable'])} unreadable image(s) of {X} were left out")
        return clusters[_order(names, by_name=folder.is_dir())]

    def _quiet(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.verbose else contextlib.redirect_stderr(io.StringIO())

    def _request(self, folder: Path, out: Path) -> Request:
        numbers = {}
        for name in ("n_clusters", "size", "epochs", "threads", "random_state", "gpus"):
            value = getattr(self, name)
            if value is None and name not in ("random_state", "gpus"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(f"{name}: {value!r} is not an integer of 0 or more")
            numbers[name] = int(value)
        return Request(
            folder,
            clusters=numbers.get("n_clusters"),
            method=self.method,
            size=numbers.get("size"),
            epochs=numbers.get("epochs"),
            seed=numbers["random_state"],
            out=out,
            weights=self.weights and str(self.weights),
            config=None if self.config is None else expanded(self.config),
            gpus=numbers["gpus"],
        )

    def _keep(self, found: Clustering, *, by_name: bool) -> "ImageClustering":
        order = _order(found.files, by_name=by_name)
        self.labels_, self.confidence_ = found.clusters[order], found.confidence[order]
        self.files_ = [found.files[row] for row in order]
        self.n_clusters_, self.summary_ = found.summary["clusters"], found.summary
        self._assigner = found.assigner
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True  # images; scikit-learn has no tag for four
        return tags


def _order(files: list[str], *, by_name: bool) -> np.ndarray:
    """Positions of the files by name, or of the rows of an array by number."""
    return np.asarray(sorted(range(len(files)), key=lambda i: files[i] if by_name else int(files[i])), dtype=np.int64)


def _as_path(X: Any, temporary: Path) -> Path:
    """The folder, or the array as a .npy file, which `scl cluster` also accepts. Raises ValueError for anything but
    images."""
    if isinstance(X, str | Path):
        return expanded(X)
    images = np.asarray(X)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise ValueError(f"X: {images.dtype} {images.shape}; images are uint8, N x H x W x 3, or a folder")
    np.save(temporary / "array.npy", images)
    return temporary / "array.npy"
