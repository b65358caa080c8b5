"""`scl bench` on tiny networks: a well-formed answer whose ratios are those of its parts. Nothing here is timed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import torchvision_pipeline
from benchmarks.bench import Plan, Subject, bench, endless, table
from benchmarks.cli import main
from scl.engine.io import write_json

TINY = {"size": 8, "batch_size": 8, "steps": 1, "rounds": 2, "images": (40, 80), "clusters": (3, 5), "workers": 0}


@pytest.fixture
def measure(tiny_study):
    return lambda *stages, **plan: bench(
        tiny_study(*stages), Plan(stage=stages[-1], **(TINY | plan)), gpus=0, report=lambda *_: None
    )


def test_the_parts_the_ratios_and_the_growth(measure, tmp_path):
    result = measure("scl")
    write_json(tmp_path / "bench.json", result)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(result))
    speed = {name: part["images_per_second"] for name, part in result["parts"].items()}
    assert list(speed) == ["augment", "learn", "step", "ordinary"] and min(speed.values()) > 0
    for name, part in result["parts"].items():
        assert part["images_per_second"] == pytest.approx(8 / part["seconds_per_step"]), name
        assert len(part["all"]) == 2 and min(part["all"]) <= part["seconds_per_step"] <= max(part["all"])
    assert result["ratios"]["goodput"] == pytest.approx(speed["step"] / speed["learn"])
    assert result["ratios"]["gain"] == pytest.approx(speed["step"] / speed["ordinary"])
    assert [(row["batch_size"], row["images"], row["clusters"]) for row in result["growth"]] == [
        (8, 40, 3),
        (2, 40, 3),
        (4, 40, 3),
        (16, 40, 3),
        (8, 40, 5),
        (8, 80, 3),
        (8, 80, 5),
    ]
    for row in result["growth"]:
        assert row["relative"] == pytest.approx(row["seconds_per_step"] / result["parts"]["step"]["seconds_per_step"])
    assert result["views"] == ["view", "strong"] and result["peak_memory_bytes"] > 1e6
    assert {"commit", "dirty", "versions", "device", "threads", "precision"} <= result.keys()
    assert "goodput c/b" in table(result) and len(table(result).splitlines()) == 2 + 4 + 2 + 7


def test_stages_that_build_on_another_and_other_numbers_of_views(measure):
    assert measure("simclr", "scan", rounds=1)["views"] == ["strong", "strong"]
    assert measure("pica", rounds=1)["views"] == ["original", "perturbed", "perturbed", "perturbed"]


def test_what_cannot_be_measured_is_said(measure, tiny_study):
    with pytest.raises(ValueError, match="random: does not train"):
        measure("random")
    with pytest.raises(ValueError, match="sc1: not a method of this study; it has scl"):
        bench(tiny_study("scl"), Plan(stage="sc1", **TINY), gpus=0)


def test_the_loop_measured_is_past_its_warm_up_and_trains(tiny_study, tmp_path):
    trainer = Subject(tiny_study("scl"), Plan(**TINY), tmp_path, "cpu").trainer(images=40, clusters=3, batch_size=8)
    before = [p.detach().clone() for p in trainer.method.parameters()]
    loop = endless(trainer)
    for _ in range(12):  # more than two epochs of five steps
        next(loop)
    assert "semantic" in trainer.term_names and not trainer.method.warming_up
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.method.parameters()))


@pytest.mark.parametrize(
    "spec",
    [
        [
            {"random_resized_crop": {"scale": [0.2, 1.0]}},
            {"flip": {}},
            {"grayscale": {"probability": 0.2}},
            {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8}},
        ],
        [{"random_crop": {"padding": 2}}, {"scan_strong": {"operations": 4}}, {"cutout": {"largest": 8}}],
        [
            {"affine": {"degrees": 10, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5}},
            {"blur": {}},
            {"noise": {"std": 0.1}},
        ],
    ],
)
def test_the_ordinary_counterpart_of_every_operation(spec):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    chain = torchvision_pipeline.transform(spec, 16)
    assert len(chain.transforms) == len(spec) + 1
    first, second = chain(image), chain(image)
    assert first.shape == (3, 16, 16) and first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, second)


def test_the_command(tiny_study, tmp_path, capsys):
    study, out = tiny_study("simclr"), tmp_path / "bench.json"
    assert (
        main(
            [
                "bench",
                str(study.results / "study.yaml"),
                "--method",
                "simclr",
                "--size",
                "8",
                "--batch-size",
                "8",
                "--gpus",
                "0",
                "--threads",
                "1",
                "--workers",
                "0",
                "--quick",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert "goodput c/b" in capsys.readouterr().out
    assert json.loads(out.read_text())["rounds"] == 1
    assert main(["bench", str(study.results / "study.yaml"), "--method", "simlr"]) == 2
    assert "simlr: not a method of this study" in capsys.readouterr().err
