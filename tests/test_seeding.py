"""Random streams by name, and torch's default generators."""

import torch

from scl.engine.seeding import Seeds, seed_default_generators, seed_for


def test_default_generator_is_seeded_as_by_torch():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.rand(7)
    seed_default_generators(5, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_streams_depend_on_their_names_only():
    seeds = Seeds("digits", "scl", 0)
    assert seeds("step", 1, 2) == seed_for("digits", "scl", 0, "step", 1, 2)
    assert len({seeds("step", 1, 2), seeds("step", 2, 1), Seeds("digits", "scl", 1)("step", 1, 2)}) == 3
    assert torch.equal(
        torch.rand(4, generator=seeds.generator("order", 3)), torch.rand(4, generator=seeds.generator("order", 3))
    )
