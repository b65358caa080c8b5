"""Malicious archives and broken images."""

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import fake_archives
import numpy as np
import pytest
from PIL import Image

from benchmarks.datasets import pixels
from benchmarks.datasets.catalog import Downloads
from benchmarks.datasets.cifar import load_pickle
from benchmarks.datasets.pixels import from_bytes
from benchmarks.datasets.prepare import prepare

pytestmark = pytest.mark.slow


def make(tmp_path, dataset, archive=None, **changes):
    checksums = {archive.name: {"md5": hashlib.md5(archive.read_bytes()).hexdigest()}} if archive else {}
    downloads = Downloads(archives=str(tmp_path), checksums=checksums)
    return prepare(
        dataset,
        dataset=dataset,
        folder=tmp_path / "data" / dataset,
        archives=tmp_path / "archives",
        downloads=downloads,
        **changes,
    )


def files_under(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# pickles


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "touch {}"),
        Evil(eval, "1"),
        Evil(np.fromfile, "/etc/hostname"),
        Evil(np.load, "x"),
        Evil(bytearray, 10),
        Evil(np.ndarray, (2,)),
        Evil(np.dtype, "O"),
        np.zeros(3),
        np.array([None]),
        np.array(["text"]),
    ],
    ids=lambda evil: evil.call[0].__name__ if isinstance(evil, Evil) else str(evil.dtype),
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_build_data_and_nothing_else(tmp_path, evil, protocol):
    path = tmp_path / "touched"
    if isinstance(evil, Evil) and evil.call[0] is os.system:
        evil = Evil(os.system, f"touch {path}")
    with pytest.raises(ValueError, match="a.tar: data: refused"):
        load_pickle(pickle.dumps({"data": evil, "labels": []}, protocol=protocol), "a.tar: data")
    assert not path.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}",
        b"garbage",
        pickle.dumps([1]),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    ],
)
def test_broken_and_foreign_pickles_are_refused_by_name(data):
    with pytest.raises(ValueError, match="a.tar: batch: refused"):
        load_pickle(data, "a.tar: batch")


def test_arrays_in_columns_keep_their_order():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array in (pixels, np.asfortranarray(pixels)):
        found = load_pickle(pickle.dumps({"data": array}, protocol=2), "x")
        assert np.array_equal(found["data"].pixels, pixels)


def test_array_of_a_false_shape_is_refused():
    sound = fake_archives.python2_pickle({"data": np.zeros((2, 5), np.uint8)})
    assert load_pickle(sound, "x")["data"].pixels.shape == (2, 5)
    with pytest.raises(ValueError, match="refused"):
        load_pickle(sound.replace(struct.pack("<i", 5), struct.pack("<i", 2**30), 1), "x")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"labels": [0] * 5}, "`labels` is not a list of 6 integers"),
        ({"labels": [0] * 5 + [10]}, "values beyond the 10 classes"),
        ({"labels": ["0"] * 6}, "not a list of 6 integers"),
        ({"data": np.zeros((6, 99), np.uint8)}, "N x 3072"),
        ({"data": "text"}, "N x 3072"),
    ],
)
def test_cifar_batches_are_checked(tmp_path, change, words):
    path = tmp_path / "cifar-10-python.tar.gz"
    sound = {"labels": [0] * 6, "data": np.zeros((6, 3072), np.uint8)}
    with tarfile.open(path, "w:gz") as tar:
        for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
            batch = {**sound, **(change if name == "data_batch_3" else {})}
            fake_archives.add(tar, f"cifar-10-batches-py/{name}", fake_archives.python2_pickle(batch))
        meta = {"label_names": fake_archives.CIFAR_10}
        fake_archives.add(tar, "cifar-10-batches-py/batches.meta", fake_archives.python2_pickle(meta))
    with pytest.raises(ValueError, match="cifar-10-python.tar.gz: data_batch_3: .*" + words):
        make(tmp_path, "cifar10", path)


# members that point elsewhere


def test_members_that_leave_their_folder_are_never_written(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    fake_archives.cifar10(tmp_path / "sound.tar.gz", 2)
    with tarfile.open(tmp_path / "sound.tar.gz") as sound, tarfile.open(path, "w:gz") as tar:
        for name in ("../evil", str(tmp_path / "evil-absolute"), "cifar-10-batches-py/../../evil"):
            fake_archives.add(tar, name, b"evil")
        link = tarfile.TarInfo("cifar-10-batches-py/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        fake_archives.add(tar, "cifar-10-batches-py/link/evil", b"evil")
        for entry in sound:
            tar.addfile(entry, sound.extractfile(entry))
    make(tmp_path, "cifar10", path)
    written = files_under(tmp_path)
    assert not any("evil" in name for name in written)


def test_a_link_in_place_of_a_member_is_not_followed(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(ValueError, match="lacks cifar-10-batches-py/data_batch_1"):
        make(tmp_path, "cifar10", path)


def test_zip_members_that_leave_their_folder(tmp_path):
    path = tmp_path / "tiny-imagenet-200.zip"
    image = fake_archives.encoded(fake_archives.picture(0, 0, 64))
    with zipfile.ZipFile(path, "w") as archive:
        for name in (
            "tiny-imagenet-200/train/n00000001/images/a.JPEG",
            "../evil.JPEG",
            "/evil.JPEG",
            "tiny-imagenet-200/train/../../evil.JPEG",
            "tiny-imagenet-200/train/n00000001/images/../../../evil.JPEG",
        ):
            archive.writestr(name, image)
    mark = make(tmp_path, "tiny-imagenet", path)
    assert json.loads(mark.read_text())["count"] == 1
    assert not any("evil" in name for name in files_under(tmp_path))


# broken archives


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    fake_archives.build(folder, per_class=2, ilsvrc_per_class=1)
    return folder


@pytest.mark.parametrize(
    "file, dataset",
    [
        ("cifar-10-python.tar.gz", "cifar10"),
        ("cifar-100-python.tar.gz", "cifar100-20"),
        ("stl10_binary.tar.gz", "stl10"),
        ("tiny-imagenet-200.zip", "tiny-imagenet"),
    ],
)
@pytest.mark.parametrize("damage", ["half", "text", "another"])
def test_archive_that_is_none_is_refused_by_name(sound, tmp_path, file, dataset, damage):
    path = tmp_path / file
    if damage == "text":
        path.write_bytes(b"<html>" * 100)
    elif damage == "another":
        with tarfile.open(path, "w:gz") if file.endswith("gz") else zipfile.ZipFile(path, "w"):
            pass
    else:
        whole = (sound / file).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{file}: (is not a valid|lacks|holds no)"):
        make(tmp_path, dataset, path)
    assert not files_under(tmp_path / "data")


# broken images


def png_bomb(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiny_with(tmp_path, data):
    path = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            image = fake_archives.encoded(fake_archives.picture(0, i, 64))
            archive.writestr(f"tiny-imagenet-200/train/n00000001/images/{i}.JPEG", image if i != 1 else data)
    return path


JPEG = fake_archives.encoded(fake_archives.picture(0, 0, 64))


@pytest.mark.parametrize(
    "data, words",
    [
        (png_bomb(9_500), "decompression bomb"),
        (png_bomb(60_000), "decompression bomb"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (b"", "no image of a known format"),
        (b"text" * 99, "no image of a known"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known"),
        (b"\0" * (65 << 20), "decompression bomb: it unpacks to"),
    ],
    ids=["9500 pixels", "60000 pixels", "cut", "empty", "text", "PostScript", "65 MiB"],  # not 272 MB of "\\x00"
)
def test_bad_image_is_refused_by_archive_and_member(tmp_path, data, words):
    path = tiny_with(tmp_path, data)
    with pytest.raises(ValueError, match=words) as caught:
        make(tmp_path, "tiny-imagenet", path)
    assert "tiny-imagenet-200.zip: tiny-imagenet-200/train/n00000001/images/1.JPEG" in str(caught.value)
    assert not files_under(tmp_path / "data")


def test_damaged_zip_member_is_named(tmp_path):
    path = tiny_with(tmp_path, JPEG)
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[1].header_offset + 200
    data = bytearray(path.read_bytes())
    data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"images/1.JPEG: cannot be (unpacked|read as an image)"):
        make(tmp_path, "tiny-imagenet", path)


def test_modes_become_rgb():
    gray = np.full((8, 8), 100, np.uint8)
    for mode in ("L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "YCbCr"):
        for format in ("PNG", "JPEG") if mode == "YCbCr" else ("PNG", "JPEG", "TIFF"):
            image = (
                Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(gray).convert(mode)
            )
            buffer = io.BytesIO()
            try:
                image.save(buffer, format)
            except OSError:
                continue  # this format cannot hold this mode
            found = from_bytes(buffer.getvalue(), 8, name="x")
            assert found.shape == (8, 8, 3) and found.dtype == np.uint8
            if mode != "1":  # black and white, dithered
                assert abs(found.astype(int) - 100).max() <= 4, (mode, format)


def test_transparent_parts_are_white_and_16_bits_are_not_clipped():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    assert (from_bytes(buffer.getvalue(), 4, name="x") == 255).all()
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG", transparency=(255, 0, 0))
    assert (from_bytes(buffer.getvalue(), 4, name="x") == 255).all()
    ramp = (np.arange(16, dtype=np.uint16) * 4096).reshape(4, 4)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    assert np.array_equal(from_bytes(buffer.getvalue(), 4, name="x")[..., 0], ramp >> 8)


def tiff(pixels, bits, sample_format):
    """A gray little-endian TIFF of unsigned (1) or signed (2) integers of 12, 16, or 32 bits."""
    if bits == 12:  # two pixels in three bytes
        packed = int("".join(f"{value:012b}" for value in pixels.ravel()), 2)
        data = packed.to_bytes(pixels.size * 3 // 2, "big")
    else:
        data = pixels.astype(f"<u{bits // 8}").tobytes()
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in {**tags, 339: sample_format}.items()]
    return struct.pack("<2sHL", b"II", 42, 8 + len(data)) + data + struct.pack("<H", 10) + b"".join(entries) + bytes(4)


def test_12_bits_span_the_whole_range():
    ramp = np.arange(0, 4096, 256).reshape(4, 4)
    assert np.array_equal(from_bytes(tiff(ramp, 12, 1), 4, name="x")[..., 0], ramp >> 4)
    assert np.array_equal(from_bytes(tiff(16 * ramp, 16, 1), 4, name="x")[..., 0], ramp >> 4)


@pytest.mark.parametrize("bits, sample_format", [(32, 1), (32, 2), (16, 2)])
def test_integers_without_an_agreed_range_are_refused(bits, sample_format):
    with pytest.raises(ValueError, match="x: .*no agreed range; convert the image to 8 bits"):
        from_bytes(tiff(np.full((4, 4), 100), bits, sample_format), 4, name="x")


def test_long_images_are_cropped_before_they_are_resized(monkeypatch):
    pixels_ = np.zeros((2, 4000, 3), np.uint8)
    pixels_[:, 1990:2010] = 200
    found = pixels.to_square(pixels_, 64)  # 64 x 128,000 if the shorter side were resized first
    assert found.shape == (64, 64, 3) and (found == 200).all()


def test_a_photograph_of_a_phone_with_50_million_pixels_is_no_bomb():
    buffer = io.BytesIO()
    Image.new("L", (8_160, 6_144), 200).save(buffer, "JPEG")
    assert np.abs(from_bytes(buffer.getvalue(), 8, name="x").astype(int) - 200).max() <= 1
