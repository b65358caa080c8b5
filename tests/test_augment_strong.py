"""SCAN's fourteen operations against Pillow, which its authors used, on 8-bit images."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from scl.augment import randaugment

BATCH = 16


def eight_bit_images(size=24):
    """Smooth images with few and many levels: noise would make any histogram operation trivial."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(BATCH, 3, 5, 5, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(size, size + 4), mode="bicubic").clamp(0, 1)
    spread = torch.linspace(0.1, 1, BATCH)[:, None, None, None]
    images = (images * spread * 255).round() / 255
    images[0] = 0.2  # a single value
    images[1, :, :, :3] = 1.0
    return images


def by_pillow(function, images, values):
    results = []
    for image, value in zip(images, values, strict=True):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        results.append(np.asarray(function(Image.fromarray(pixels), float(value))))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2) / 255


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


PILLOW = {
    "identity": lambda image, v: image,
    "rotate": lambda image, v: image.rotate(v),
    "shear_x": lambda image, v: affine(image, 1, v, 0, 0, 1, 0),
    "shear_y": lambda image, v: affine(image, 1, 0, 0, v, 1, 0),
    "translate_x": lambda image, v: affine(image, 1, 0, v * image.width, 0, 1, 0),
    "translate_y": lambda image, v: affine(image, 1, 0, 0, 0, 1, v * image.height),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "solarize": lambda image, v: ImageOps.solarize(image, v),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operation_is_pillows(name):
    images = eight_bit_images()
    kind = torch.full((BATCH,), randaugment.KINDS[name])
    value = randaugment.strength(kind, torch.linspace(0.01, 0.97, BATCH))
    ours, theirs = randaugment.apply(images, kind, value), by_pillow(PILLOW[name], images, value)
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        # nearest neighbor: Pillow computes positions in 16-bit fixed point, so ties may round the other way
        assert ((ours - theirs).abs() > 1e-6).float().mean() < 0.01
    elif name in ("color", "contrast", "brightness", "sharpness"):
        # Pillow rounds the gray or smooth image, then truncates the blend: 1.5 steps of 8 bits
        assert (ours - theirs).abs().max() <= 1.5 / 255 + 1e-6
    elif name == "autocontrast":
        # Pillow truncates a product that rounding may leave just below an integer
        assert (ours - theirs).abs().max() <= 1 / 255 + 1e-6
        assert (ours - theirs).abs().mean() < 0.02 / 255
    else:
        assert torch.equal((ours * 255).round(), (theirs * 255).round())


def test_every_operation_of_the_paper_has_a_pillow_twin_and_changes_something():
    assert list(PILLOW) == list(randaugment.KINDS) and len(PILLOW) == 14
    images = eight_bit_images()
    for name, number in randaugment.KINDS.items():
        kind = torch.full((BATCH,), number)
        changed = not torch.equal(
            randaugment.apply(images, kind, randaugment.strength(kind, torch.full((BATCH,), 0.3))), images
        )
        assert changed == (name != "identity"), name


def test_images_of_a_batch_get_their_own_operations():
    images = eight_bit_images()
    kind = torch.arange(BATCH) % 14
    value = randaugment.strength(kind, torch.linspace(0.01, 0.97, BATCH))
    together = randaugment.apply(images, kind, value)
    alone = [randaugment.apply(images[i : i + 1], kind[i : i + 1], value[i : i + 1]) for i in range(BATCH)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_strengths_are_in_their_ranges():
    kind = torch.arange(14)
    for level, end in ((0.0, 0), (1.0, 1)):
        expected = torch.tensor([bounds[end] for bounds in randaugment.RANGES.values()])
        torch.testing.assert_close(randaugment.strength(kind, torch.full((14,), level)), expected)


def test_computing_everything_and_selecting_is_the_same(monkeypatch):
    """The code path for GPUs, run on the CPU."""
    images = eight_bit_images()
    kind = torch.arange(BATCH) % 14
    value = randaugment.strength(kind, torch.linspace(0.01, 0.97, BATCH))
    grouped = randaugment.apply(images, kind, value)
    monkeypatch.setattr(randaugment.color, "can_sync", lambda images: False)
    torch.testing.assert_close(randaugment.apply(images, kind, value), grouped, atol=1e-6, rtol=0)
