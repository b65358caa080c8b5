"""Small archives of the six data sets in the official layouts.

    checksums = build(folder)                        # synthetic images
    checksums = build(folder, images="../shared/data")   # real ones, as far as available

`build` returns {file: {"md5": ...}}, ready for the configuration's `downloads.checksums`. The ILSVRC tar is
not among them, as that one is never checked as a whole; its synsets have `ilsvrc_per_class` images each.
"""

import functools
import hashlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.datasets.catalog import CATALOG

CIFAR_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL_10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
SUPERCLASSES = {  # of CIFAR-100, in the order of their numbers, with their classes
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
IMAGENET_10, IMAGENET_DOGS = (CATALOG[name].options["synsets"] for name in ("imagenet10", "imagenet-dogs"))
SYNSETS = sorted({**IMAGENET_10, **IMAGENET_DOGS})


def build(out, *, per_class=6, images=None, tiny_classes=8, ilsvrc_per_class=6, unlabeled=40):
    """Write all five downloads and the ILSVRC tar to `out`; return {file: {"md5": ...}} of the five. Takes a second."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    cifar10(out / "cifar-10-python.tar.gz", per_class, images=images)
    cifar100(out / "cifar-100-python.tar.gz", per_class)
    stl10(out / "stl10_binary.tar.gz", per_class, unlabeled)
    tiny_imagenet(out / "tiny-imagenet-200.zip", tiny_classes, per_class, images=images)
    ilsvrc(out / "ILSVRC2012_img_train.tar", ilsvrc_per_class, images=images)
    return {
        path.name: {"md5": hashlib.md5(path.read_bytes()).hexdigest()}
        for path in sorted(out.iterdir())
        if path.name.endswith((".tar.gz", ".zip"))
    }


def picture(label, number, height, width=None):
    """Return uint8 H x W x 3: a disk or a bar on a background, both in the colors of the class, with noise."""
    width = width or height
    rng = np.random.default_rng([label, number])
    colors = np.random.default_rng(label).integers(0, 256, (2, 3))
    y, x = np.mgrid[:height, :width] / max(height, width) - rng.uniform(0.3, 0.7, 2)[:, None, None]
    inside = x**2 + y**2 < 0.06 if label % 2 else abs(x + y * (label % 5 - 2)) < 0.15
    noise = rng.normal(0, 12, (height, width, 3))
    return np.clip(np.where(inside[..., None], colors[0], colors[1]) + noise, 0, 255).astype(np.uint8)


def encoded(pixels, format="JPEG", mode="RGB"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


def add(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def real(images, archive, limit, folders=None):
    """Yield (parts of the name, bytes) from a tar of real images: `limit` per folder, from the first `folders`."""
    seen = {}
    with tarfile.open(Path(images) / archive) as tar:
        for entry in tar:
            parts = tuple(entry.name.split("/"))
            if not (entry.isfile() and entry.name.lower().endswith((".jpg", ".jpeg"))):  # bounding boxes and lists
                continue
            seen[parts[:-1]] = seen.get(parts[:-1], 0) + 1
            if folders and len(seen) > folders:
                return
            if limit is None or seen[parts[:-1]] <= limit:
                yield parts, tar.extractfile(entry).read()


# CIFAR


def python2_pickle(batch):
    """Return bytes as Python 2's pickle and numpy 1 wrote them (protocol 2), as in the official files."""
    return b"\x80\x02" + _opcodes(batch) + b"."


def _opcodes(value):
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, (str, bytes)):
        value = value.encode("latin1") if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(map(_opcodes, value.shape)) + b"t"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _opcodes(value.tobytes()) + b"tb"


def planes(pixels):
    """uint8 H x W x 3 -> the row of a CIFAR batch: red, green, and blue plane, each in row-major order."""
    return pixels.transpose(2, 0, 1).reshape(-1)


def cifar10(path, per_class=6, *, images=None, pickler=python2_pickle):
    """`per_class` training images per class over five batches, and half as many test images."""
    rows = {"train": [], "test": []}
    if images:
        for (split, name, _), data in real(images, "cifar10-jpeg.tar.xz", per_class):
            rows[split].append((CIFAR_10.index(name), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))))
    else:
        for label in range(10):
            rows["train"] += [(label, picture(label, i, 32)) for i in range(per_class)]
            rows["test"] += [(label, picture(label, 1000 + i, 32)) for i in range(max(1, per_class // 2))]
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for split, names in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
            order = np.random.default_rng(0).permutation(len(rows[split]))
            for name, part in zip(names, np.array_split(order, len(names))):
                chosen = [rows[split][i] for i in part]
                batch = {
                    "batch_label": name,
                    "labels": [label for label, _ in chosen],
                    "data": np.stack([planes(pixels) for _, pixels in chosen]),
                    "filenames": [f"{i}.png" for i in part],
                }
                add(tar, f"cifar-10-batches-py/{name}", pickler(batch))
        add(tar, "cifar-10-batches-py/batches.meta", pickler({"label_names": CIFAR_10, "num_vis": 3072}))


def cifar100(path, per_class=6):
    """`per_class` training images per superclass, and half as many test images; includes the fine labels."""
    fine = sorted(name for names in SUPERCLASSES.values() for name in names.split())
    members = [fine.index(names.split()[i % 5]) for names in SUPERCLASSES.values() for i in range(per_class)]
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for split, count in (("train", per_class), ("test", max(1, per_class // 2))):
            rows = [(label, i) for label in range(20) for i in range(count)]
            rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
            first = 0 if split == "train" else 1000
            batch = {
                "filenames": [f"{label}_{i}.png" for label, i in rows],
                "batch_label": split,
                "fine_labels": [members[label * per_class + i] for label, i in rows],
                "coarse_labels": [label for label, _ in rows],
                "data": np.stack([planes(picture(20 + label, first + i, 32)) for label, i in rows]),
            }
            add(tar, f"cifar-100-python/{split}", python2_pickle(batch))
        meta = {"fine_label_names": fine, "coarse_label_names": list(SUPERCLASSES)}
        add(tar, "cifar-100-python/meta", python2_pickle(meta))


# STL-10


def stl10(path, per_class=6, unlabeled=40):
    """`per_class` training images, twice as many test images, and `unlabeled` ones; pixels before labels."""

    def columns(label, i):  # each plane in column-major order
        return picture(40 + label, i, 96).transpose(2, 1, 0).tobytes()

    train = [(label, i) for i in range(per_class) for label in range(10)]
    test = [(label, 1000 + i) for i in range(2 * per_class) for label in range(10)]
    files = {
        "test_X.bin": b"".join(columns(*row) for row in test),
        "test_y.bin": bytes(label + 1 for label, _ in test),
        "train_X.bin": b"".join(columns(*row) for row in train),
        "train_y.bin": bytes(label + 1 for label, _ in train),
        "unlabeled_X.bin": b"".join(columns(i % 12, 2000 + i) for i in range(unlabeled)),
        "class_names.txt": "".join(name + "\n" for name in STL_10).encode(),
        "fold_indices.txt": b"0 1 2\n",
    }
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            add(tar, f"stl10_binary/{name}", data)


# Tiny-ImageNet and ILSVRC


def tiny_imagenet(path, classes=8, per_class=6, *, images=None):
    """`per_class` images of each of the first `classes` synsets, one of them gray; with the lists and a val folder."""
    members = {}
    if images:
        for parts, data in real(images, "tiny-imagenet-200-train.tar.xz", per_class, folders=classes):
            members["/".join(parts)] = data
    else:
        for label in range(classes):
            for i in range(per_class):
                name = f"train/n{1443537 + label:08d}/images/n{1443537 + label:08d}_{i}.JPEG"
                members[name] = encoded(picture(60 + label, i, 64), mode="L" if i == 1 else "RGB")
    synsets = sorted({name.split("/")[1] for name in members})
    members["val/images/val_0.JPEG"] = encoded(picture(0, 0, 64))
    members["wnids.txt"] = "".join(f"{synset}\n" for synset in synsets).encode()
    members["words.txt"] = "".join(f"{synset}\tthing {i}, stuff\n" for i, synset in enumerate(synsets)).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"tiny-imagenet-200/{name}", data)


@functools.cache
def ilsvrc_images(per_class, images):
    """{WNID: {file name: bytes}} of the 24 synsets and another one: mixed sizes and modes, one a PNG named .JPEG."""
    bases = {}
    if images:
        bases = {
            name.split("_")[0]: Image.open(io.BytesIO(data)).convert("RGB")
            for (name,), data in real(images, "ilsvrc-sample.tar", None)
        }
    modes = {1: ("JPEG", "L"), 2: ("JPEG", "CMYK"), 3: ("PNG", "RGB")}
    found = {}
    for label, synset in enumerate(["n01440764", *SYNSETS]):
        found[synset] = {}
        for i in range(per_class):
            height, width = 100 + 10 * (i % 3), 130 - 7 * (i % 5)
            pixels = picture(80 + label, i, height, width)
            if synset in bases:
                left = 5 * i
                pixels = np.asarray(bases[synset].resize((width + left, height)))[:, left:]
            found[synset][f"{synset}_{17 * i + label}.JPEG"] = encoded(pixels, *modes.get(i, ("JPEG", "RGB")))
    return found


def ilsvrc(path, per_class=6, *, images=None):
    """ILSVRC2012_img_train.tar: a tar that contains one tar per synset."""
    with tarfile.open(path, "w") as tar:
        for synset, files in ilsvrc_images(per_class, images).items():
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for name, data in files.items():
                    add(inner, name, data)
            add(tar, f"{synset}.tar", buffer.getvalue())
