"""Shared by the tests of methods: methods with random weights, and images that reveal what was drawn."""

import torch

from scl.config import Network
from scl.method import Problem

TINY = Network(width=8, layers=[1, 1, 1])
PROBLEM = Problem(images=12, unlabeled=6, clusters=3, size=8, epochs=4, mean=(0.5,) * 3, std=(0.25,) * 3)


def build(cls, *, problem=PROBLEM, network=TINY, **options):
    torch.manual_seed(0)
    return cls(cls.Options(**options), problem, network)


class Positions:
    """Images whose pixels encode their position, so that the drawn indices can be read from them."""

    def batch(self, index):
        return index.float()[:, None, None, None].expand(-1, 3, 8, 8)


def identity(images, generator):
    return images


def drawn(views):
    return [view[:, 0, 0, 0].long() for view in views]
