"""Options of the methods: their defaults, their limits, and what they refuse."""

import pytest

from baselines.controls import Pixels, Random
from baselines.pica import PICA
from baselines.scan import SCAN, SelfLabel
from baselines.simclr import SimCLR
from scl.config import MethodOptions, options_of, read
from scl.scl import SCL


def test_defaults_of_the_official_codes():
    """As in docs/methods.md; config/paper.yaml repeats most of them."""
    assert vars(SimCLR.Options()) == {
        "temperature": 0.1,
        "anchors": "first",
        "projection_hidden": 512,
        "projection": 128,
        "layer": "projection",
        "kmeans_restarts": 10,
    }
    assert vars(SCAN.Options()) == {"neighbors": 20, "entropy_weight": 5.0, "projection_hidden": 512, "projection": 128}
    assert vars(SelfLabel.Options()) == {"threshold": 0.99, "balanced": True}
    assert vars(PICA.Options()) == {
        "balance_weight": 2.0,
        "perturbations": 3,
        "overclusters": 70,
        "resize": None,
        "sobel": False,
    }
    assert vars(Pixels.Options()) == {"kmeans_restarts": 10}


def test_defaults_of_scl():
    """Fixed once for all benchmarks (docs/lab-notes.md): changing one changes all tables."""
    assert vars(SCL.Options()) == {
        "temperature": 0.07,
        "prototype_temperature": 0.1,
        "instance_temperature": 0.5,
        "memory_momentum": 0.5,
        "instance_weight": 1.0,
        "semantic_weight": 1.0,
        "consistency_weight": 1.0,
        "balance_weight": 2.0,
        "consistency": "joint",
        "consensus": "both",
        "mean_similarities": True,
        "warm_up": 0.025,
        "prototypes": "kmeans",
        "assignment": "prototypes",
        "projection_hidden": 512,
        "projection": 128,
        "projection_norm": True,
        "kmeans_restarts": 10,
    }


@pytest.mark.parametrize("cls", [SCL, SimCLR, SCAN, SelfLabel, PICA, Pixels])
def test_every_option_has_a_description(cls):
    """docs/configuration.md is made from them."""
    assert [name for name, field in cls.Options.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "cls, allowed, refused, words",
    [
        (
            SCL,
            {"temperature": 0.02},
            {"temperature": 0.0199},
            "^temperature: must be greater than or equal to 0.02, got 0.0199",
        ),
        (
            SCL,
            {"prototype_temperature": 1e-3},
            {"prototype_temperature": 0.0},
            "prototype_temperature: must be greater than or equal to 0.001, got 0.0",
        ),
        (
            SCL,
            {"instance_temperature": 1e-3},
            {"instance_temperature": 0.0},
            "instance_temperature: must be greater than or equal to 0.001, got 0.0",
        ),
        (
            SCL,
            {"consistency": "view"},
            {"consistency": "both"},
            "consistency: must be 'joint', 'means' or 'view', got 'both'",
        ),
        (
            SCL,
            {"consensus": "boundaries"},
            {"consensus": "q"},
            "consensus: must be 'both', 'boundaries' or 'similarities', got 'q'",
        ),
        (SCL, {"consensus": "similarities"}, {"consensus": "joint"}, "consensus: must be .* got 'joint'"),
        (SCL, {"prototypes": "random"}, {"prototypes": "zero"}, "prototypes: must be 'kmeans' or 'random', got 'zero'"),
        (SCL, {"assignment": "kmeans"}, {"assignment": "h"}, "assignment: must be 'prototypes' or 'kmeans', got 'h'"),
        (
            SimCLR,
            {"temperature": 1e-3},
            {"temperature": 0.0},
            "temperature: must be greater than or equal to 0.001, got 0.0",
        ),
        (SimCLR, {"anchors": "both"}, {"anchors": "second"}, "anchors: must be 'first' or 'both', got 'second'"),
        (SimCLR, {"layer": "encoder"}, {"layer": "head"}, "layer: must be 'projection' or 'encoder', got 'head'"),
        (SCAN, {"neighbors": 1}, {"neighbors": 0}, "neighbors: must be greater than or equal to 1, got 0"),
        (
            SelfLabel,
            {"threshold": 0.0},
            {"threshold": -0.01},
            "threshold: must be greater than or equal to 0, got -0.01",
        ),
        (SelfLabel, {"threshold": 0.999}, {"threshold": 1.0}, "threshold: must be less than 1, got 1.0"),
        (PICA, {"perturbations": 1}, {"perturbations": 0}, "perturbations: must be greater than or equal to 1, got 0"),
        (PICA, {"overclusters": 2}, {"overclusters": 1}, "overclusters: must be greater than or equal to 2, got 1"),
        (PICA, {"resize": 8}, {"resize": 7}, "resize: must be greater than or equal to 8, got 7"),
    ],
)
def test_options_up_to_their_limits(cls, allowed, refused, words):
    cls.Options(**allowed)
    with pytest.raises(ValueError, match=words):
        read(cls.Options, refused)


@pytest.mark.parametrize("cls", [SCL, SimCLR, SCAN, SelfLabel, PICA, Pixels])
def test_options_cannot_be_changed(cls):
    """Settings cannot change during a run."""
    options = cls.Options()
    with pytest.raises(ValueError, match="frozen"):
        setattr(options, next(iter(vars(options))), 1)


def test_tuples_are_lists_in_a_file():
    """Their defaults too, which run.yaml has."""

    class Own(Random):
        class Options(MethodOptions):
            widths: tuple[int, ...] = (64, 32)
            range: tuple[float, float] | None = (0, 1)
            many: list[int] | tuple[int, int] = (1, 2)

    options = options_of(Own, {"widths": [16]}, "own")
    assert options.widths == (16,) and options.range == (0, 1)
    assert options_of(Own, options.model_dump(mode="json"), "own").range == (0, 1)
    with pytest.raises(ValueError, match="own.range: must be a list, got 3"):
        options_of(Own, {"range": 3}, "own")
