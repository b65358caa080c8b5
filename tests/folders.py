"""Folders of images for the tests of `scl cluster`: digits and random images, in every format, valid and broken."""

import csv
import io

import numpy as np
import yaml
from conftest import TINY_METHODS
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.cli import main

STAGES = ("kmeans", "simclr", "scan", "selflabel", "pica", "scl")


def tiny_settings(path, **training):
    """A file for `--config`: all methods, a network of a few channels, one thread."""
    study = {
        "results": "results",
        "benchmarks": {"images": {"dataset": "folder", "path": "images", "clusters": 10, "size": 8}},
        "network": {"width": 8, "layers": [1, 1, 1]},
        "training": {"batch_size": 32, "curve_points": 1, "precision": "fp32"} | training,
        "machine": {"threads": 1},
        "methods": {stage: TINY_METHODS[stage] for stage in STAGES},
    }
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def digits(root, count=60, *, classes=True):
    """`count` digits as PNG files: <class>/<number>.png, or <number>.png without classes."""
    data = load_digits()
    for i in range(count):
        path = root / str(data.target[i]) / f"{i:03}.png" if classes else root / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[i] * 15.9).astype(np.uint8)).save(path)
    return root


def mixed(root):
    """Write twelve valid images of all formats and modes, and three broken files; return the names of the latter."""
    root.mkdir()
    rng = np.random.default_rng(0)
    color = [Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(12)]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    for i, (name, change) in enumerate(
        {
            "rgb.jpg": {},
            "rotated.JPG": {"exif": exif},
            "gray.jpg": {"mode": "L"},
            "cmyk.jpeg": {"mode": "CMYK"},
            "rgb.png": {},
            "clear.png": {"mode": "RGBA"},
            "palette.png": {"mode": "P"},
            "bits.png": {"mode": "1"},
            "moving.gif": {"mode": "P", "save_all": True, "append_images": color[:2]},
            "still.gif": {"mode": "L"},
            "page.tiff": {},
            "web.webp": {},
        }.items()
    ):
        color[i].convert(change.pop("mode", "RGB")).save(root / name, **change)
    whole = io.BytesIO()
    color[0].resize((200, 200)).save(whole, "JPEG")
    (root / "cut.jpg").write_bytes(whole.getvalue()[:1500])
    (root / "text.png").write_text("not an image")
    (root / "empty.gif").write_bytes(b"")
    return ["cut.jpg", "empty.gif", "text.png"]


def cluster(*arguments, epochs=1):
    return main(["cluster", *map(str, arguments), "--config", "tiny.yaml", "--epochs", str(epochs), "--threads", "1"])


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
