"""Data sets, labels, metrics, and the `scl` command. `from benchmarks import ImageClustering`: clusters from Python."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The estimator, imported when it is asked for: it needs torch, which the Snakefile must not import."""
    if name == "ImageClustering":
        from benchmarks.estimator import ImageClustering

        return ImageClustering
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
