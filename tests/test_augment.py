"""What augmentations sample, what `build` accepts, and properties of all augmentations."""

import pytest
import torch

from scl import augment
from scl.augment import operations
from scl.method import augmented

SIMCLR = [
    {"random_resized_crop": {"scale": [0.2, 1.0], "ratio": [0.75, 1.333], "size": None}},
    {"flip": {"probability": 0.5}},
    {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8}},
    {"grayscale": {"probability": 0.2}},
]
SCAN = [{"flip": {}}, {"random_crop": {}}, {"scan_strong": {"operations": 4}}, {"cutout": {"largest": 16}}]
CHAINS = {
    "simclr": SIMCLR,
    "scan": SCAN,
    "digits": [
        {"affine": {"degrees": 10, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5}},
        {"noise": {"std": 0.05}},
    ],
    "padded crop": [{"random_crop": {"padding": 4}}],
    "blur": [{"blur": {"sigma": [0.1, 2.0], "kernel": 3, "probability": 1.0}}],
}


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def random_images(batch=16, height=32, width=32):
    return torch.rand(batch, 3, height, width, generator=seeded(9))


# Properties of all chains


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch, size", [(1, 32), (5, 8), (3, 96)])
@pytest.mark.parametrize("name", CHAINS)
def test_shape_type_and_range_are_kept_and_the_input_is_not_touched(name, batch, size, dtype):
    images = random_images(batch, size, size).to(dtype)
    before = images.clone()
    result = augment.build(CHAINS[name])(images, seeded())
    assert result.shape == images.shape and result.dtype == dtype
    assert result.min() >= 0 and result.max() <= 1
    assert torch.equal(images, before)
    assert not torch.equal(result, before)


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_each_operation_alone_keeps_its_input(name):
    images = random_images(8)
    before = images.clone()
    result = augment.OPERATIONS[name](images, seeded())
    assert torch.equal(images, before)
    assert result.dtype == torch.float32 and result.shape == images.shape


@pytest.mark.parametrize("name", CHAINS)
def test_the_generator_decides_everything(name):
    """Bit-equal for equal generators, regardless of the global one and of autocast; other seeds give other results."""
    images, chain = random_images(), augment.build(CHAINS[name])
    torch.manual_seed(0)
    first = chain(images, seeded(1))
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(chain(images, seeded(1)), first)
    assert not torch.equal(chain(images, seeded(2)), first)
    again = seeded(1)
    assert not torch.equal(chain(images, again), chain(images, again))


@pytest.mark.parametrize("name", CHAINS)
def test_every_image_gets_parameters_of_its_own(name):
    images = random_images(1).expand(24, -1, -1, -1)
    result = augment.build(CHAINS[name])(images, seeded())
    different = {tuple(image.flatten().tolist()) for image in result}
    assert len(different) > 16  # some of 24 images get the same one of the 81 padded crops


@pytest.mark.parametrize("name", CHAINS)
def test_memory_format_does_not_matter(name):
    images, chain = random_images(), augment.build(CHAINS[name])
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(chain(last, seeded()), chain(images, seeded()))


def test_no_gradient_passes():
    result = augment.build(SIMCLR)(random_images().requires_grad_(), seeded())
    assert not result.requires_grad


@pytest.mark.parametrize("name", CHAINS)
def test_computing_all_rows_and_selecting_gives_the_same(name, monkeypatch):
    """The code path for GPUs, run on the CPU with the same random numbers."""
    images, chain = random_images(), augment.build(CHAINS[name])
    expected = chain(images, seeded())
    monkeypatch.setattr(operations.color, "can_sync", lambda images: False)
    torch.testing.assert_close(chain(images, seeded()), expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CHAINS)
def test_on_a_gpu_nothing_waits(name):
    images, chain = random_images().cuda(), augment.build(CHAINS[name])
    generator = seeded(device="cuda")
    chain(images, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = chain(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.is_cuda and result.min() >= 0 and result.max() <= 1


# What is sampled


@pytest.mark.parametrize("height, width", [(32, 32), (24, 60), (96, 96)])
def test_crop_boxes_follow_torchvisions_distribution(height, width):
    torch.manual_seed(3)
    from scl.util.shim import torchvision

    sample = torchvision.transforms.RandomResizedCrop.get_params
    image, scale, ratio = torch.empty(3, height, width), (0.2, 1.0), (3 / 4, 4 / 3)
    theirs = torch.tensor([sample(image, scale, ratio) for _ in range(1500)]).float()
    ours = operations.crop_boxes(seeded(4), (6000, 3, height, width), scale=scale, ratio=ratio)
    assert torch.equal(ours, ours.round())
    top, left, box_height, box_width = ours.unbind(1)
    assert top.min() >= 0 and left.min() >= 0 and box_height.min() >= 1 and box_width.min() >= 1
    assert (top + box_height).max() <= height and (left + box_width).max() <= width
    for start, extent, side in ((top, box_height, height), (left, box_width, width)):
        free = extent < side  # both ends are equally likely
        assert abs((start == 0)[free].float().mean() - (start + extent == side)[free].float().mean()) < 0.03
    for ours_column, theirs_column in zip(ours.unbind(1), theirs.unbind(1), strict=True):
        # quantiles of both samples: 3 standard errors of a quantile of 1500 are about 4 % of the range
        steps = torch.linspace(0.05, 0.95, 10)
        distance = (ours_column.quantile(steps) - theirs_column.quantile(steps)).abs().max()
        assert distance <= 0.06 * max(height, width)


def test_crop_boxes_where_no_try_fits():
    """A long image and a narrow range of ratios: the largest centered box with the nearest ratio."""
    boxes = operations.crop_boxes(seeded(), (4, 3, 10, 100), scale=(1.0, 1.0), ratio=(0.9, 1.2))
    assert torch.equal(boxes, torch.tensor([[0.0, 44.0, 10.0, 12.0]]).expand(4, 4))


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.8, 1.0])
def test_probabilities(probability):
    images = random_images(1, 4, 4).expand(2000, -1, -1, -1)
    for function in (operations.flip, operations.grayscale):
        changed = (function(images, seeded(5), probability=probability) != images).flatten(1).any(1)
        assert abs(changed.float().mean() - probability) < 0.045  # 4 standard errors
    jittered = operations.color_jitter(images, seeded(5), brightness=0.4, probability=probability)
    assert abs((jittered != images).flatten(1).any(1).float().mean() - probability) < 0.045


def test_jitter_factors_are_uniform_around_one():
    images = torch.full((4000, 3, 2, 2), 0.5)
    factors = operations.color_jitter(images, seeded(), brightness=0.4)[:, 0, 0, 0] / 0.5
    assert factors.min() >= 0.6 - 1e-6 and factors.max() <= 1.4 + 1e-6
    assert abs(factors.mean() - 1) < 0.02 and abs(factors.std() - 0.8 / 12**0.5) < 0.01


def test_jitter_draws_hue_to_both_sides_and_every_order():
    """All 24 orders are equally likely."""
    images = random_images(1, 8, 8).expand(4000, -1, -1, -1)
    seen, shifts = [], []

    def record(images, factors, order):
        seen.extend(map(tuple, order.tolist()))
        shifts.append(factors[:, 3])
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations.color, "jitter", record)
        operations.color_jitter(images, seeded(), hue=0.1)
    assert abs(shifts[0].mean()) < 0.004 and -0.1 <= shifts[0].min() < -0.099 < 0.099 < shifts[0].max() <= 0.1
    counts = {order: seen.count(order) for order in set(seen)}
    assert len(counts) == 24 and all(set(order) == {0, 1, 2, 3} for order in counts)
    assert min(counts.values()) > 110 and max(counts.values()) < 230  # 167 +- 4.5 standard deviations


def test_padded_crops_are_every_window_of_the_padded_image():
    images = random_images(1, 6, 6).expand(500, -1, -1, -1)
    padded = torch.nn.functional.pad(images[0], [1] * 4)
    windows = [padded[:, top : top + 6, left : left + 6] for top in range(3) for left in range(3)]
    found = [
        [index for index, window in enumerate(windows) if torch.equal(window, image)]
        for image in operations.random_crop(images, seeded(), padding=1)
    ]
    assert all(len(match) == 1 for match in found) and {match[0] for match in found} == set(range(9))
    assert operations.random_crop(images, seeded(), size=4).shape == (500, 3, 4, 4)


def test_noise_has_its_width():
    images = torch.full((50, 3, 16, 16), 0.5)
    assert abs(operations.noise(images, seeded(), std=0.05).std() - 0.05) < 1e-3


def test_affine_of_nothing_is_the_identity_and_shifts_are_bounded():
    images = random_images()
    torch.testing.assert_close(operations.affine(images, seeded()), images, atol=1e-5, rtol=0)
    point = torch.zeros(400, 3, 21, 21)
    point[:, :, 10, 10] = 1
    moved = operations.affine(point, seeded(), translate=0.2)[:, 0].flatten(1).argmax(1)
    assert (moved // 21 - 10).abs().max() == 4 and (moved % 21 - 10).abs().max() == 4


def test_strong_draws_all_operations_evenly_with_replacement(monkeypatch):
    drawn = []

    def record(images, kind, value):
        drawn.append(kind)
        return images

    monkeypatch.setattr(operations.randaugment, "apply", record)
    operations.scan_strong(random_images(2000, 4, 4), seeded(), operations=4)
    assert len(drawn) == 4
    counts = torch.bincount(torch.cat(drawn), minlength=14)
    assert len(counts) == 14 and counts.min() > 470 and counts.max() < 675  # 571 +- 4.4 standard deviations
    assert (drawn[0] == drawn[1]).float().mean() > 0.03  # 1/14 if with replacement


def test_holes_are_squares_of_all_sides_anywhere():
    images = torch.zeros(3000, 3, 32, 32)
    holes = operations.cutout(images, seeded(), largest=16, fill=1.0)
    assert torch.equal(holes[:, 0], holes[:, 1]) and set(holes.unique().tolist()) == {0.0, 1.0}
    rows, columns = holes[:, 0].amax(2).sum(1), holes[:, 0].amax(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)  # a rectangle, clipped at the image border
    assert set(rows.tolist()) == set(range(0, 17))
    assert holes.mean(0)[0, 16, 16] > 2 * holes.mean(0)[0, 0, 0] > 0


# What a configuration may state


@pytest.mark.parametrize(
    "spec, message",
    [
        ("flip", "must be a list of operations"),
        (["flip"], "must be one operation"),
        ([{"flip": {}, "noise": {}}], "must be one operation"),
        ([{"flipp": {}}], "unknown operation 'flipp' .*'flip'"),
        ([{"crop_boxes": {}}], "unknown operation 'crop_boxes'"),
        ([{"flip": {"probabilty": 0.5}}], "flip.probabilty: unknown key .*'probability'"),
        ([{"flip": [0.5]}], "flip: must be keys and values"),
        ([{"flip": {"probability": "often"}}], "flip.probability: must be a number"),
        ([{"flip": {"probability": 1.5}}], "flip.probability: must be less than or equal to 1, got 1.5"),
        ([{"scan_strong": {"operations": 2.5}}], "scan_strong.operations: must be an integer, got 2.5"),
        ([{"scan_strong": {"operations": True}}], "scan_strong.operations: must be an integer, got True"),
        ([{"random_resized_crop": {"scale": [0.2]}}], r"random_resized_crop.scale\[1\]: missing"),
        ([{"blur": {"sigma": [1.0, 0.2]}}], "blur.sigma: must be two increasing numbers"),
        ([{"random_resized_crop": {"scale": 0.2}}], "random_resized_crop.scale: must be a list"),
        ([{"random_resized_crop": {"size": 0}}], "random_resized_crop.size: must be greater than or equal to 1, got 0"),
        ([{"color_jitter": {"hue": 0.6}}], "color_jitter.hue: must be less than or equal to 0.5, got 0.6"),
        ([{"color_jitter": {"contrast": -1}}], "color_jitter.contrast: must be greater than or equal to 0, got -1"),
        ([{"blur": {"kernel": 4}}], "blur.kernel: 4 must be odd"),
        ([{"noise": {"std": float("nan")}}], "noise.std"),
        ([{"cutout": {"largest": 0}}], "cutout.largest"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(spec, message):
    with pytest.raises(ValueError, match=message):
        augment.build(spec, 32)


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_every_parameter_is_described(name):
    """In a line of the docstring, for docs/augmentations.md."""
    fields = augment.parameters_of(augment.OPERATIONS[name]).model_fields
    assert fields and [key for key, field in fields.items() if not field.description] == []


def test_parameters_left_out_take_their_defaults_and_the_chain_adds_nothing():
    images = random_images()
    chain = augment.build([{"random_resized_crop": None}, {"flip": {}}])
    generator = seeded()
    expected = operations.flip(operations.random_resized_crop(images, generator), generator)
    assert torch.equal(chain(images, seeded()), expected)


@pytest.mark.parametrize("at_once", [False, True])
def test_views_drawn_together_are_drawn_apart(at_once):
    """On a GPU, views share one call of the augmentation: each still has its own parameters and images."""
    from types import SimpleNamespace

    generator = torch.Generator().manual_seed(0)
    device = SimpleNamespace(type="cuda" if at_once else "cpu")
    calls = []

    def augment(images, g):
        calls.append(len(images))
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    first, second = torch.zeros(4, 3, 2, 2), torch.full((4, 3, 2, 2), 10.0)
    one, two = augmented(augment, (first, second), SimpleNamespace(device=device))
    assert calls == ([8] if at_once else [4, 4])
    assert one.shape == two.shape == first.shape and one.max() <= 1 and two.min() >= 10
    assert len({round(float(v), 6) for v in torch.cat([one, two - 10])[:, 0, 0, 0]}) == 8
