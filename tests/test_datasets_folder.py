"""A user's own images: with or without classes, with mixed sizes, modes, and formats."""

import builtins
import json
import os
import struct
import sys

import numpy as np
import pytest
from fake_archives import encoded, picture
from PIL import Image

from benchmarks.datasets import folder, pixels, slices
from benchmarks.datasets.catalog import Downloads, dataset_named
from benchmarks.datasets.pixels import to_square, write_images
from benchmarks.datasets.prepare import prepare, read_names, unlike
from benchmarks.datasets.slices import FileSlice, slice_images
from benchmarks.study import Benchmark
from scl.engine.io import Damaged


def write(root, names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        format = {"jpg": "JPEG", "JPEG": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP"}[name.rpartition(".")[2]]
        mode = ["RGB", "L", "P" if format in ("PNG", "BMP") else "RGB"][i % 3]
        path.write_bytes(encoded(picture(i % 4, i, 20 + 13 * i % 90, 30 + 7 * i % 90), format, mode))


def make(tmp_path, **changes):
    out = tmp_path / "data" / "mine"
    mark = prepare(
        "mine",
        dataset="folder",
        folder=out,
        archives=tmp_path / "archives",
        **{"size": 24, "path": tmp_path / "images", **changes},
    )
    labels = np.load(out / "labels.npy") if (out / "labels.npy").exists() else None
    return json.loads(mark.read_text()), np.load(out / "images.npy"), labels


def test_sub_folders_are_classes(tmp_path):
    names = [
        f"{kind}/{deep}{i}.{ending}"
        for kind in ("cat", "ant", "übel")
        for i, (deep, ending) in enumerate([("", "jpg"), ("deep/er/", "png"), ("", "JPEG"), ("", "webp"), ("", "bmp")])
    ]
    write(tmp_path / "images", names)
    (tmp_path / "images" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "images" / ".thumbs").mkdir()
    (tmp_path / "images" / ".thumbs" / "a.png").write_text("no image")
    (tmp_path / "images" / "README.md").write_text("no image")
    record, images, labels = make(tmp_path)
    assert images.shape == (15, 24, 24, 3) and np.bincount(labels).tolist() == [5, 5, 5]
    assert record["classes"] == ["ant", "cat", "übel"] and record["clusters"] == 3
    assert record["protocols"] == {"joint": {"fit": ["all"], "represent": ["all"], "assign": ["all"]}}
    assert record["splits"] == {"all": [0, 15]} and record["sources"] == []


def test_images_are_named_by_their_relative_paths(tmp_path):
    write(tmp_path / "images", ["ant/a\nb.png", "cat/deep/0.png"])
    make(tmp_path, size=20)
    names = json.loads((tmp_path / "data" / "mine" / "image_names.json").read_text())
    assert sorted(names) == ["ant/a\nb.png", "cat/deep/0.png"]
    for name, image in zip(names, np.load(tmp_path / "data" / "mine" / "images.npy")):
        assert np.array_equal(image, to_square(Image.open(tmp_path / "images" / name).convert("RGB"), 20))


def test_a_benchmark_prepared_without_names_is_still_valid(tmp_path):
    """Benchmarks prepared by earlier versions have no image_names.json."""
    images = tmp_path / "images"
    write(images, ["a/0.png", "b/1.png"])
    block = Benchmark(dataset="folder", path=str(images), size=24)
    record, *_ = make(tmp_path)
    (tmp_path / "data" / "mine" / "image_names.json").unlink()
    assert unlike(record, block, dataset_named("folder"), Downloads()) == ""


def test_without_classes_there_are_no_labels(tmp_path):
    write(tmp_path / "images", [f"{i}.png" for i in range(9)])
    with pytest.raises(ValueError, match="mine: clusters: is needed"):
        make(tmp_path)
    record, images, labels = make(tmp_path, clusters=3)
    assert labels is None and len(images) == 9 and record["clusters"] == 3 and record["classes"] == []
    assert record["labels_sha256"] is None


def test_labels_of_an_earlier_preparation_do_not_stay(tmp_path):
    write(tmp_path / "images", ["a/0.png", "b/1.png"])
    assert make(tmp_path)[2] is not None
    for name in ("a/0.png", "b/1.png"):
        (tmp_path / "images" / name).rename(tmp_path / "images" / name.partition("/")[2])
    assert make(tmp_path, clusters=2)[2] is None


def test_one_image_is_enough(tmp_path):
    write(tmp_path / "images", ["one.jpg"])
    record, images, _ = make(tmp_path, clusters=1)
    assert len(images) == record["count"] == 1


def test_clusters_may_differ_from_classes_and_subset_works(tmp_path):
    write(tmp_path / "images", [f"{kind}/{i}.png" for kind in "ab" for i in range(10)])
    record, images, labels = make(tmp_path, clusters=5, subset=7)
    assert record["clusters"] == 5 and record["classes"] == ["a", "b"]
    assert len(images) == len(labels) == 7 and record["splits"] == {"all": [0, 7]}


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        make(tmp_path, clusters=2)


def test_images_beside_sub_folders_mean_that_these_are_no_classes(tmp_path, capsys):
    """All images are used, and the message names one of the images that would have to move."""
    write(tmp_path / "images", ["a/0.png", "b/deep/1.png", "2.png"])
    with pytest.raises(ValueError, match="mine: clusters: is needed"):
        make(tmp_path)
    capsys.readouterr()
    record, images, labels = make(tmp_path, clusters=2)
    assert labels is None and len(images) == 3 and record["classes"] == [] and record["labels_sha256"] is None
    assert sorted(read_names(tmp_path / "data" / "mine")) == ["2.png", "a/0.png", "b/deep/1.png"]
    assert "mine: 1 of 3 images, such as 2.png, are in no sub-folder" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["DCIM/100APPLE/0.png", "DCIM/1.png"], ["a/0.png", "a/1.png", "b/2.dng"]])
def test_one_sub_folder_is_nothing_to_compare_with(tmp_path, names, capsys):
    write(tmp_path / "images", [name for name in names if name.endswith(".png")])
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()
    record, images, labels = make(tmp_path, clusters=2)
    assert labels is None and record["classes"] == [] and len(images) == 2
    told = f"all images are in one sub-folder, {names[0].partition('/')[0]}, so there is nothing to compare with"
    assert told in capsys.readouterr().err


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="images: is not a folder of images"):
        make(tmp_path)


def test_a_broken_image_is_named_and_left_out(tmp_path, capsys):
    """Images, labels, and names of the others stay aligned, also at the larger size."""
    names = [f"{kind}/{i}.png" for kind in "ab" for i in range(8)]
    write(tmp_path / "images", names)
    whole = make(tmp_path, larger_size=32)
    stored = dict(zip(read_names(tmp_path / "data" / "mine"), zip(whole[1], whole[2])))
    for i in range(12):
        (tmp_path / "images" / "b" / f"broken{i:02}.jpg").write_bytes(b"\xff\xd8\xff")
    capsys.readouterr()
    record, images, labels = make(tmp_path, larger_size=32)
    assert record["count"] == 16 and record["splits"] == {"all": [0, 16]} and len(record["unreadable"]) == 12
    assert record["unreadable"]["b/broken00.jpg"] == "cannot be read as an image: no image of a known format"
    again = read_names(tmp_path / "data" / "mine")
    assert sorted(again) == sorted(names) and np.load(tmp_path / "data" / "mine" / "images-32.npy").shape[0] == 16
    for name, image, label in zip(again, images, labels):
        assert np.array_equal(image, stored[name][0]) and label == stored[name][1] == "ab".index(name[0])
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("  ")]
    assert "mine: 12 unreadable image(s) left out:" in lines and len(told) == 11
    assert told[0].startswith("  b/broken00.jpg: cannot be read as an image") and told[-1] == "  and 2 more"


def test_an_image_that_fails_at_the_larger_size_only_is_an_error(tmp_path, monkeypatch):
    def fail(data, size, *, name, upright, decode=pixels.from_bytes):
        if size == 32 and name == "a/0.png":
            raise ValueError(f"{name}: cannot be read as an image: no memory")
        return decode(data, size, name=name, upright=upright)

    write(tmp_path / "images", ["a/0.png", "b/1.png"])
    monkeypatch.setattr(pixels, "from_bytes", fail)
    with pytest.raises(ValueError, match="a/0.png: cannot be read as an image: no memory"):
        make(tmp_path, larger_size=32)


def test_too_few_readable_images_for_the_clusters(tmp_path):
    write(tmp_path / "images", ["0.png", "1.png"])
    (tmp_path / "images" / "2.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(
        ValueError, match="only 2 of 3 images can be read, too few for 3 clusters .2.jpg: cannot be read"
    ):
        make(tmp_path, clusters=3)
    assert not (tmp_path / "data" / "mine" / "benchmark.json").exists()


def test_names_survive_line_breaks_and_quotes(tmp_path):
    names = ["a\nb.png", 'quote".png', "back\\slash.png", "übel\u2028.png"]
    write(tmp_path / "images", names)
    record, _, _ = make(tmp_path, clusters=2)
    assert sorted(read_names(tmp_path / "data" / "mine")) == sorted(names)
    (tmp_path / "data" / "mine" / "image_names.json").unlink()
    with pytest.raises(Damaged, match="image_names.json: cannot be read"):
        read_names(tmp_path / "data" / "mine")


def test_an_array_is_a_folder_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 30, 24, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    record, stored, labels = make(tmp_path, clusters=2, path=tmp_path / "images.npy", size=24)
    assert labels is None and np.array_equal(stored, images[:, 3:27])
    assert read_names(tmp_path / "data" / "mine") == list("01234")
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    with pytest.raises(ValueError, match=r"images.npy: float32 \(5, 30, 24, 3\); images are uint8"):
        make(tmp_path, clusters=2, path=tmp_path / "images.npy")
    with open(tmp_path / "images.npy", "wb") as file:
        np.savez(file, images=images)
    with pytest.raises(ValueError, match=r"images.npy: not a readable .npy array: .* several"):
        make(tmp_path, clusters=2, path=tmp_path / "images.npy")


def test_photographs_stand_upright(tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:12] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "images" / "a.jpg", exif=exif, quality=95)
    _, images, _ = make(tmp_path, clusters=1)
    assert images[0, :10].mean() < 20 and images[0, 14:].mean() > 235


def test_odd_exif_tags_do_not_cost_a_photograph(tmp_path):
    """Only the orientation matters; Pillow's exif_transpose also rewrites all tags, which fails on malformed ones."""
    (tmp_path / "images").mkdir()
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:12] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "a maker of cameras"
    for kind in (5, 10, 12):  # types of the Make tag: rational, signed rational, double
        odd = exif.tobytes()  # big-endian
        odd = odd.replace(struct.pack(">HHL", 0x010F, 2, 19), struct.pack(">HHL", 0x010F, kind, 1))
        Image.fromarray(pixels).save(tmp_path / "images" / f"{kind}.jpg", exif=odd, quality=95)
    record, images, _ = make(tmp_path, clusters=1)
    assert record["unreadable"] == {} and len(images) == 3
    assert images[:, :10].mean() < 20 and images[:, 14:].mean() > 235


# other formats


def test_all_names_of_jpeg_are_read(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.jfif", "b.JPE", "c.jpg"):
        (tmp_path / "images" / name).write_bytes(encoded(picture(0, 0, 20), "JPEG"))
    record, images, _ = make(tmp_path, clusters=1)
    assert len(images) == 3 and record["unreadable"] == {}


def test_photographs_in_formats_that_are_not_read_are_listed(tmp_path):
    write(tmp_path / "images", ["0.png", "1.png"])
    kinds = ["avif", "jxl", "jp2", "dng", "cr2", "cr3", "nef", "arw", "orf", "raf", "rw2", "psd", "tga"]
    for kind in kinds:
        (tmp_path / "images" / f"x.{kind.upper()}").write_bytes(b"any")
    (tmp_path / "images" / "film.mov").write_bytes(b"any")
    record, images, _ = make(tmp_path, clusters=1)
    told = {f"x.{kind.upper()}": f"{kind.upper()} is not read here; convert it to JPEG" for kind in kinds}
    assert record["unreadable"] == told and len(images) == 2
    before = record["fingerprint"]
    (tmp_path / "images" / "y.dng").write_bytes(b"any")
    assert folder.fingerprint(tmp_path / "images") != before


def test_raw_files_beside_photographs_in_a_flat_folder_are_in_no_sub_folder_either(tmp_path, capsys):
    write(tmp_path / "images", ["0.jpg", "1.jpg"])
    (tmp_path / "images" / "0.CR2").write_bytes(b"any")
    make(tmp_path, clusters=2)
    assert "sub-folder" not in capsys.readouterr().err


def test_a_format_that_is_not_read_beside_the_classes_leaves_them_classes(tmp_path):
    write(tmp_path / "images", ["ant/0.png", "bee/1.png"])
    (tmp_path / "images" / "cover.psd").write_bytes(b"any")
    record, _, labels = make(tmp_path)
    assert record["classes"] == ["ant", "bee"] and labels is not None and list(record["unreadable"]) == ["cover.psd"]


def test_a_photograph_that_a_passing_error_left_out_is_taken_up_again(tmp_path):
    write(tmp_path / "images", ["0.png", "1.png"])
    record, *_ = make(tmp_path, clusters=2)
    block = Benchmark(dataset="folder", path=str(tmp_path / "images"), size=24, clusters=2)
    for why, told in (("Stale file handle (0.png)", "images that were left out can be read now"), ("", "")):
        record["unreadable"] = (
            {"0.png": f"cannot be read: {why}"} if why else {"x.png": "cannot be read as an image: x"}
        )
        assert unlike(record, block, dataset_named("folder"), Downloads()) == told
    record["unreadable"] = {"gone.png": "cannot be read: Input/output error (gone.png)"}
    assert unlike(record, block, dataset_named("folder"), Downloads()) == ""


def test_heic_without_the_library_is_left_out_until_it_is_there(tmp_path, monkeypatch):
    write(tmp_path / "images", ["0.png", "2.png"])
    (tmp_path / "images" / "1.HEIC").write_bytes(encoded(picture(0, 1, 20), "PNG"))  # as if the library decoded it
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    record, images, _ = make(tmp_path, clusters=2)
    assert len(images) == 2 and record["unreadable"] == {
        "1.HEIC": "HEIC needs pillow-heif (pip install pillow-heif), or convert it to JPEG"
    }
    block = Benchmark(dataset="folder", path=str(tmp_path / "images"), size=24, clusters=2)
    assert unlike(record, block, dataset_named("folder"), Downloads()) == ""
    (tmp_path / "images" / "1.HEIC").touch()
    monkeypatch.setattr(folder, "reads_heif", lambda: True)
    record["fingerprint"] = folder.fingerprint(tmp_path / "images")
    told = unlike(record, block, dataset_named("folder"), Downloads())
    assert told == "images that were left out can be read now"


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_damaged_exif_data_do_not_cost_a_photograph(tmp_path, kind):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / f"a.{kind}", exif=b"Exif\0\0not a TIFF header")
    record, images, _ = make(tmp_path, clusters=1)
    assert record["unreadable"] == {} and abs(images[0].mean((0, 1)) - (255, 0, 0)).max() < 5


def test_heic_is_read_upright_with_the_library(tmp_path):
    """Its rotation is applied once, by the library."""
    heif = pytest.importorskip("pillow_heif")
    (tmp_path / "images").mkdir()
    bright = np.zeros((64, 48, 3), np.uint8)
    bright[:16] = 255  # at the top once upright
    image, exif = Image.fromarray(bright), Image.Exif()
    heif.from_pillow(image).save(tmp_path / "images" / "plain.heic", quality=90)
    exif[0x0112] = 6  # stored sideways, to be rotated clockwise
    heif.register_heif_opener()
    lying = image.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "images" / "turned.HEIF", exif=exif.tobytes(), quality=90)
    whole = (tmp_path / "images" / "plain.heic").read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 12)):
        (tmp_path / "images" / f"cut{cut}.heic").write_bytes(whole[:cut])
    record, images, _ = make(tmp_path, clusters=1)
    found = dict(zip(read_names(tmp_path / "data" / "mine"), images))
    assert {"plain.heic", "turned.HEIF"} <= found.keys() and len(record["unreadable"]) >= 10
    for name in ("plain.heic", "turned.HEIF"):
        assert found[name][:3].mean() > 200 and found[name][8:].mean() < 40, name
    assert record["versions"]["pillow-heif"]


# failing disks


class Failing:
    """An open file whose disk then fails."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def seek(self, offset):
        pass

    def read(self, size):
        raise OSError(5, os.strerror(5))


def disk(path, mode):
    """`open` on a disk with one stale file and one that cannot be read."""
    if path.name.startswith("stale"):
        raise OSError(116, os.strerror(116), str(path))
    file = builtins.open(path, mode)
    return Failing(file) if path.name.startswith("broken") else file


def test_a_file_that_cannot_be_read_costs_that_image(tmp_path, monkeypatch):
    write(tmp_path / "images", ["0.png", "1.png", "stale.png", "broken.png", "shorter.png"])

    def cut(found, rows):
        with open(tmp_path / "images" / "shorter.png", "r+b") as file:
            file.truncate(20)
        return slice_images(found, rows)

    monkeypatch.setattr(slices, "open", disk, raising=False)
    monkeypatch.setattr(folder, "slice_images", cut)
    record, images, _ = make(tmp_path, clusters=2)
    assert sorted(read_names(tmp_path / "data" / "mine")) == ["0.png", "1.png"] and images.any(axis=(1, 2, 3)).all()
    reasons = record["unreadable"]
    assert reasons["stale.png"] == f"cannot be read: Stale file handle ({tmp_path}/images/stale.png)"
    assert reasons["broken.png"] == f"cannot be read: Input/output error ({tmp_path}/images/broken.png)"
    assert reasons["shorter.png"].startswith("is cut off after 20 of ")


@pytest.mark.parametrize("archive", ["stale.tar", "broken.tar"])
def test_an_archive_that_cannot_be_read_is_named_with_the_image(tmp_path, archive, monkeypatch):
    (tmp_path / archive).write_bytes(bytes(100))
    monkeypatch.setattr(slices, "open", disk, raising=False)
    members = [FileSlice(f"n/{i}.JPEG", tmp_path / archive, 10 * i, 10) for i in range(3)]
    with pytest.raises(ValueError, match=rf"^{archive}: n/0.JPEG: cannot be read: .* \({tmp_path}/{archive}\)$"):
        write_images(
            tmp_path / "images.npy",
            slice_images(members, np.arange(3)),
            count=3,
            size=8,
            upright=False,
            label="x",
            unreadable=None,
        )
