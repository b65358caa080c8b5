"""`scl plan --show`: a run's settings as they will be in run.yaml, and where each of them is set."""

import re

import pytest
import yaml

from benchmarks.cli import main
from benchmarks.study import load_study
from scl import config

BASE = """
results: results
seeds: [4]
protocols: [joint]
benchmarks: {digits: {}, tiny: {dataset: digits, subset: 200, size: 8}}
network: {width: 16}
training: {batch_size: 32}
methods:
  simclr:
    method: baselines.simclr.SimCLR
    training: {epochs: 3, learning_rate: 1}
    augment: {view: [flip: {probability: 0.5}, noise: {}]}
    options: {temperature: 0.5, layer: encoder}
    per_benchmark: {tiny: {training: {epochs: 2}, network: {layers: null}}}
"""
MINE = """
extends: base.yaml
training: {curve_points: 3}
methods:
  simclr: {options: {temperature: 0.2}}
  again: {like: simclr, options: {kmeans_restarts: 1}}
"""
PLACES = {  # for a run of `again` on tiny
    "benchmark": "this run",
    "seed": "this run",
    "method": "method block",
    "width": "study, base.yaml",
    "batch_size": "study, base.yaml",
    "curve_points": "study, mine.yaml",
    "layers": "per_benchmark, base.yaml",
    "epochs": "per_benchmark, base.yaml",
    "learning_rate": "method block, base.yaml",
    "momentum": "default",
    "view": "method block, base.yaml",
    "temperature": "method block, mine.yaml",
    "layer": "method block, base.yaml",
    "kmeans_restarts": "method block, mine.yaml",
    "anchors": "default",
    "version": "class of the method",
}


@pytest.fixture
def scl(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "mine.yaml").write_text(MINE)

    def run(*command):
        return main([*command]), *capsys.readouterr()

    return run


def test_what_is_shown_is_what_run_yaml_will_hold(scl):
    status, shown, error = scl("plan", "mine.yaml", "--show", "tiny/joint/again")
    assert (status, error) == (0, "")
    study = load_study("mine.yaml")
    planned = config.complete(study.settings(study.run("tiny", "joint", "again", 4)))
    assert yaml.safe_load(shown) == planned.model_dump()
    assert planned.training.epochs == 2 and planned.options["temperature"] == 0.2


def test_every_value_names_the_place_that_sets_it(scl):
    _, shown, _ = scl("plan", "mine.yaml", "--show", "tiny/joint/again")
    places = dict(re.findall(r"^ *(\w+): .*  # (.+)$", shown, re.MULTILINE))
    assert {key: places[key] for key in PLACES} == PLACES
    assert all("  # " in line for line in shown.splitlines() if not line.endswith(":"))
    _, other, _ = scl("plan", "mine.yaml", "--show", "digits/joint/simclr")
    assert "epochs: 3                               # method block, base.yaml" in other


def test_a_run_that_is_not_planned_is_refused(scl):
    status, shown, error = scl("plan", "mine.yaml", "--show", "tiny/joint/agian")
    assert (status, shown) == (2, "")
    assert error.startswith(
        "scl: error: tiny/joint/agian: not a run of this study; give BENCHMARK/PROTOCOL/STAGE, such as tiny/joint/again"
    )
