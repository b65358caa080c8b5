"""scikit-learn's digits: needs no download."""

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.dataset import RawDataset, Sources


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """1,797 gray images of 8 x 8, as three equal channels; every second image of each class is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0 .. 16 in the file
    labels = digits.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[1::2]] = True
    order = np.argsort(test, kind="stable")

    names = [f"digits[{i}]" for i in order]
    splits = {"train": int((~test).sum()), "test": int(test.sum())}

    def images(rows):
        for row in rows:
            yield int(row), names[row], np.repeat(pixels[order[row]][:, :, None], 3, axis=2)

    return RawDataset(splits, labels[order], [str(digit) for digit in range(10)], images, names)
