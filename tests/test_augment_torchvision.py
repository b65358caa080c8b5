"""The augmentations, given parameters, against torchvision's functional operators, image by image.

Tolerances: 1e-5 is float32 rounding with another order of summation; an 8-bit step is 4e-3.
"""

import pytest
import torch
from fake_gpu import fake_gpu, waiting

from scl.util.shim import torchvision  # noqa: F401  (must come before torchvision.transforms)

from torchvision.transforms import InterpolationMode  # isort: skip
from torchvision.transforms.v2 import functional as tv  # isort: skip

from scl.augment import color, filters, geometry, operations, randaugment  # isort: skip

ROUNDING = 1e-5
BATCH = 12


def random_images(height, width, batch=BATCH):
    """Noise, plus gray, black, white, and two-colored images, for which hue is ill-conditioned."""
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
    images[0] = images[0, :1]
    images[1], images[2] = 0.0, 1.0
    images[3, 2] = images[3, 1]
    return images


def draw(low, high, seed=0, shape=(BATCH,)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def one_by_one(function, images, *parameters):
    return torch.stack([function(*row) for row in zip(images, *parameters, strict=True)])


def assert_same(ours, theirs, tolerance=ROUNDING):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (16, 16, 24), (96, 64, 32), (8, 8, 8), (33, 17, 20)])
def test_crop_resize_is_antialiased_resized_crop(height, width, size):
    images = random_images(height, width)
    box_height = draw(1, height + 0.99, 1).floor()
    box_width = draw(1, width + 0.99, 2).floor()
    top = (draw(0, 1, 3) * (height - box_height + 1)).floor()
    left = (draw(0, 1, 4) * (width - box_width + 1)).floor()
    boxes = torch.stack([top, left, box_height, box_width], 1)

    def theirs(image, box):
        return tv.resized_crop(image, *map(int, box), size=[size, size], antialias=True)

    assert_same(geometry.crop_resize(images, boxes, size=size), one_by_one(theirs, images, boxes))


@pytest.mark.parametrize("side, size", [(32, 40), (96, 112), (40, 32), (17, 17)])
def test_resize(side, size):
    images = random_images(side, side)
    assert_same(operations.resize(images, None, size=size), tv.resize(images, [size, size], antialias=True))


def test_mirror():
    images = random_images(8, 9)
    assert torch.equal(operations.flip(images, torch.Generator(), probability=1.0), tv.horizontal_flip(images))


@pytest.mark.parametrize("height, width", [(16, 16), (24, 32)])
def test_warp_is_affine(height, width):
    images = random_images(height, width)
    parameters = [draw(-60, 60, 1), draw(-6, 6, 2).round(), draw(-6, 6, 3).round()]
    parameters += [draw(0.7, 1.4, 4), draw(-20, 20, 5), draw(-20, 20, 6)]

    def theirs(image, angle, shift_x, shift_y, scale, shear_x, shear_y):
        translate, shear = [float(shift_x), float(shift_y)], [float(shear_x), float(shear_y)]
        return tv.affine(image, float(angle), translate, float(scale), shear, InterpolationMode.BILINEAR)

    # positions are as large as the side: rounding is about 1e-6 of a pixel, and noise changes by up to 1 per pixel
    assert_same(
        geometry.warp(images, geometry.inverse_matrices(*parameters)), one_by_one(theirs, images, *parameters), 1e-4
    )


ADJUSTMENTS = {
    color.BRIGHTNESS: tv.adjust_brightness,
    color.CONTRAST: tv.adjust_contrast,
    color.SATURATION: tv.adjust_saturation,
    color.HUE: tv.adjust_hue,
}


@pytest.mark.parametrize("kind", [color.BRIGHTNESS, color.CONTRAST, color.SATURATION])
def test_adjust(kind):
    images, factor = random_images(16, 20), draw(0, 2)
    theirs = one_by_one(lambda image, f: ADJUSTMENTS[kind](image, float(f)), images, factor)
    assert_same(color.adjust(images, torch.full((BATCH,), kind), factor), theirs)


def test_adjust_hue():
    images, shift = random_images(16, 20), draw(-0.5, 0.5)
    theirs = one_by_one(lambda image, s: tv.adjust_hue(image, float(s)), images, shift)
    assert_same(color.adjust_hue(images, shift), theirs)


@pytest.mark.parametrize("batch", [1, 7, 24])
def test_jitter_follows_each_images_order(batch):
    """Each of the 24 images has a different order of the four operations."""
    images = random_images(12, 12, 24)[-batch:]
    factors = torch.stack([draw(0.6, 1.4, s, (24,)) for s in (1, 2, 3)] + [draw(-0.1, 0.1, 4, (24,))], 1)[-batch:]
    order = torch.tensor([[a, b, c, 6 - a - b - c] for a in range(4) for b in range(4) for c in range(4)
                          if len({a, b, c}) == 3])[-batch:]  # fmt: skip

    def theirs(image, factor, order):
        for kind in order.tolist():
            image = ADJUSTMENTS[kind](image, float(factor[kind]))
        return image

    assert_same(color.jitter(images, factors, order), one_by_one(theirs, images, factors, order))


def test_gray():
    images = random_images(8, 8)
    assert_same(color.gray(images), tv.rgb_to_grayscale(images, num_output_channels=3))


@pytest.mark.parametrize("kernel", [3, 9])
def test_gaussian_blur(kernel):
    images, sigma = random_images(16, 20), draw(0.1, 2)
    theirs = one_by_one(lambda image, s: tv.gaussian_blur(image, [kernel] * 2, [float(s)] * 2), images, sigma)
    assert_same(filters.gaussian_blur(images, sigma, kernel=kernel), theirs)


def test_adjust_sharpness():
    images, factor = random_images(16, 20), draw(0, 2)
    theirs = one_by_one(lambda image, f: tv.adjust_sharpness(image, float(f)), images, factor)
    assert_same(filters.adjust_sharpness(images, factor), theirs)


def parameters(device):
    """Images and, for each, a factor, a kind, four factors, and an order of four."""
    factors = draw(1, 4, 1, (BATCH, 4))
    order = (torch.arange(4) + torch.arange(BATCH)[:, None]).remainder(4)
    return [x.to(device) for x in (random_images(16, 16), draw(0.5, 1), torch.arange(BATCH) % 3, factors, order)]


def everything(images, factor, kind, factors, order):
    """Call each function once."""
    return [
        geometry.crop_resize(images, factors, size=16),
        geometry.warp(images, geometry.inverse_matrices(*[factor] * 6)),
        color.where(kind > 0, tv.horizontal_flip, images),
        color.adjust(images, kind, factor),
        color.jitter(images, factors / 8 + 0.5, order),
        filters.gaussian_blur(images, factor, kernel=3),
        filters.adjust_sharpness(images, factor),
        randaugment.apply(images, torch.arange(BATCH, device=images.device), randaugment.strength(kind, factor)),
    ]


def test_nothing_looks_at_values_where_that_would_stall():
    """On a GPU, operations run on all images and results are selected afterward, which gives the same."""
    with fake_gpu():
        given = parameters("cuda")
        everything(*given)  # copies the table of ranges to the device
        with waiting("error"):
            found = everything(*given)
        found = [x.cpu() for x in found]
    for ours, theirs in zip(found, everything(*parameters("cpu")), strict=True):
        assert_same(ours, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_computes_the_same():
    """float32 without TF32, torch's default; nearest-neighbor ties may resolve differently."""
    for ours, theirs in zip(everything(*parameters("cuda")), everything(*parameters("cpu")), strict=True):
        assert ((ours.cpu() - theirs).abs() > 1e-4).float().mean() < 0.005
