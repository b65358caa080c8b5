"""The memory's hand-written gradient against autograd of the plain formula, in float64 and over several chunks."""

import pytest
import torch
import torch.nn.functional as F

from scl.engine.class_sums import add_by_class
from scl.memory import InstanceMemory


def plain(memory, z, index):
    """[2] as a plain one-hot product: M x K."""
    weights = torch.exp(z @ memory.rows.T.to(z.dtype) / memory.temperature)  # M x N
    weights = weights * (torch.arange(len(memory.rows)) != index[:, None])
    sums = weights @ F.one_hot(memory.pseudo_classes, memory.clusters).to(z.dtype)
    return sums / sums.sum(1, keepdim=True)


@pytest.mark.parametrize("images, clusters", [(40, 3), (2500, 10), (2500, 200)])  # a chunk has 1024 rows
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_values_and_gradients_are_those_of_the_plain_formula(images, clusters, temperature):
    generator = torch.Generator().manual_seed(images + clusters)
    memory = InstanceMemory(images, 8, clusters, momentum=0.5, temperature=temperature)
    memory.rows.copy_(F.normalize(torch.randn(images, 8, generator=generator), dim=1))
    memory.pseudo_classes.copy_(torch.randint(clusters, (images,), generator=generator))
    index = torch.randperm(images, generator=generator)[:16]
    index[:4] = torch.tensor([0, images - 1, 1023, 1024]).clamp(max=images - 1)  # the ends of chunks
    z = F.normalize(torch.randn(32, 8, generator=generator, dtype=torch.float64), dim=1)
    towards = torch.randn(32, clusters, generator=generator, dtype=torch.float64)
    results = []
    for similarity in (memory.similarity, lambda z, index: plain(memory, z, index)):
        leaf = z.clone().requires_grad_()
        p = similarity(leaf, index.repeat(2))  # both views
        (p * towards).sum().backward()
        results.append((p.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-10)


def test_both_views_at_once_are_the_views_one_by_one():
    memory = InstanceMemory(50, 8, 4, momentum=0.5, temperature=0.1)
    memory.rows.copy_(F.normalize(torch.randn(50, 8), dim=1))
    memory.pseudo_classes.copy_(torch.arange(50) % 4)
    z, index = F.normalize(torch.randn(12, 8), dim=1), torch.arange(6)
    together = memory.similarity(z, index.repeat(2))
    torch.testing.assert_close(together, torch.cat([memory.similarity(v, index) for v in z.chunk(2)]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_similarities_are_in_float32_also_under_autocast(dtype):
    """A logit rounded to bfloat16 changes its exponential by several percent at tau = 0.07."""
    memory = InstanceMemory(100, 16, 5, momentum=0.5, temperature=0.07)
    memory.rows.copy_(F.normalize(torch.randn(100, 16), dim=1))
    memory.pseudo_classes.copy_(torch.arange(100) % 5)
    z, index = F.normalize(torch.randn(8, 16), dim=1).requires_grad_(), torch.arange(8)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        p = memory.similarity(z, index)
    assert p.dtype == torch.float32
    p[:, 0].log().sum().backward()
    assert z.grad.dtype == torch.float32 and z.grad.isfinite().all()
    torch.testing.assert_close(p, plain(memory, z, index), rtol=1e-5, atol=1e-5)


def test_images_not_yet_in_the_memory_are_left_out():
    """In a new memory in which ten images have been updated, only these count."""
    generator = torch.Generator().manual_seed(4)
    memory, small = (InstanceMemory(n, 8, 3, momentum=0.5, temperature=0.5) for n in (30, 10))
    z1, z2 = F.normalize(torch.randn(2, 10, 8, generator=generator), dim=2)
    for one in (memory, small):
        one.update(torch.arange(10), z1, z2, torch.arange(10) % 3)
    assert memory.filled.tolist() == [True] * 10 + [False] * 20
    leaves = [z1.clone().requires_grad_(), z1.clone().requires_grad_()]
    found = [one.similarity(z, torch.arange(10)) for one, z in zip((memory, small), leaves)]
    for p in found:
        p[:, 0].log().sum().backward()
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def of_one_direction(images, clusters, *, temperature, sign=1.0):
    """A memory whose rows all point along the first axis, or against it."""
    memory = InstanceMemory(images, 4, clusters, momentum=0.5, temperature=temperature)
    memory.rows[:, 0] = sign
    memory.pseudo_classes.zero_()
    return memory, torch.eye(4)[:1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_small_temperatures_neither_overflow_nor_divide_by_zero(sign):
    """exp(1 / 0.005) is infinite in float32, exp(- 2 / 0.005) is 0."""
    memory, z = of_one_direction(10, 2, temperature=0.005, sign=sign)
    memory.pseudo_classes[5:] = 1
    z.requires_grad_()
    p = memory.similarity(z, torch.tensor([0]))
    torch.testing.assert_close(p.detach(), torch.tensor([[4 / 9, 5 / 9]]) if sign > 0 else torch.zeros(1, 2))
    p.sum().backward()
    assert z.grad.isfinite().all()


def test_sums_are_in_float32_also_under_autocast():
    """257 equal weights, which would sum to 256 in bfloat16."""
    memory, z = of_one_direction(259, 2, temperature=0.5)
    memory.pseudo_classes[258] = 1
    with torch.autocast("cpu", torch.bfloat16):
        p = memory.similarity(z, torch.tensor([0]))
    torch.testing.assert_close(p, torch.tensor([[257 / 258, 1 / 258]]), rtol=1e-6, atol=1e-7)


class OnGpu(torch.Tensor):
    """A tensor that claims to be on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize("cls", [torch.Tensor, OnGpu])
def test_sums_by_class_on_either_device(cls):
    """On a GPU, sums use a matrix product: they are the same, and added to the existing values."""
    generator = torch.Generator().manual_seed(0)
    weights, classes = torch.rand(7, 5, generator=generator), torch.tensor([2, 0, 2, 2, 1, 0, 2])  # n x M, n
    sums = torch.ones(4, 5)  # K x M; the last class has no member
    add_by_class(sums, classes, weights.as_subclass(cls))
    for k in range(4):
        expected = [1 + sum(weights[j, m].item() for j in range(7) if classes[j] == k) for m in range(5)]
        torch.testing.assert_close(sums[k].as_subclass(torch.Tensor), torch.tensor(expected, dtype=torch.float32))


def test_an_update_keeps_no_graph():
    memory = InstanceMemory(5, 8, 2, momentum=0.5, temperature=0.1)
    z = F.normalize(torch.randn(4, 8), dim=1).requires_grad_()
    memory.update(torch.tensor([0, 3]), *z.chunk(2), torch.tensor([1, 1]))
    assert not memory.rows.requires_grad and memory.rows[[0, 3]].abs().sum() > 0


def test_weights_are_written_where_those_of_the_last_step_were():
    """With bit-equal results, and never over weights that a backward pass still needs."""
    generator = torch.Generator().manual_seed(0)
    memory = InstanceMemory(2500, 8, 5, momentum=0.5, temperature=0.1)
    memory.rows.copy_(F.normalize(torch.randn(2500, 8, generator=generator), dim=1))
    memory.pseudo_classes.copy_(torch.randint(5, (2500,), generator=generator))
    first, second = (F.normalize(torch.randn(32, 8, generator=generator), dim=1).requires_grad_() for _ in range(2))
    index = torch.arange(32)

    def gradient(z, p):
        z.grad = None
        p.square().sum().backward()
        return z.grad

    expected = [gradient(z, memory.similarity(z, index)) for z in (first, second)]
    [used] = memory.spare
    assert torch.equal(gradient(first, memory.similarity(first, index)), expected[0])
    assert memory.spare[0] is used
    open_ones = [(z, memory.similarity(z, index)) for z in (first, second)]  # both await their backward pass
    assert memory.spare == []
    assert all(torch.equal(gradient(*pair), slope) for pair, slope in zip(open_ones, expected))
    smaller = memory.similarity(first[:8], index[:8])  # another size
    assert smaller.shape == (8, 5) and memory.spare == []
