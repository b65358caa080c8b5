"""Tables that do not match the results and the configuration, regardless of modification times."""

import json
import os

import pytest
import yaml
from conftest import TINY_METHODS
from flow import TINY, copy_of, planned, run_of, scl, snakemake

from benchmarks.compose import resolve
from scl.engine.io import write_yaml_if_changed

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("stale")]  # they share a study

STUDY = TINY | {"methods": {stage: TINY_METHODS[stage] for stage in ("random", "kmeans")}, "seeds": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = snakemake(folder, STUDY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert planned(snakemake(folder, STUDY, "--dry-run")) == {}
    return folder


def report_fewer_seeds_by_hand(folder):
    (folder / "other.yaml").write_text(yaml.safe_dump(STUDY | {"seeds": 1}))
    assert scl(folder, "report", "other.yaml").returncode == 0
    return STUDY


def report_another_reference_by_hand(folder):
    (folder / "other.yaml").write_text(yaml.safe_dump(STUDY | {"reference": "kmeans"}, sort_keys=False))
    assert scl(folder, "report", "other.yaml").returncode == 0
    return STUDY


def copy_a_result_that_is_older_than_the_tables(folder):
    path = run_of(folder, "random") / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"scores": metrics["scores"] | {"acc": 0.5}}))
    os.utime(path, (0, 0))
    return STUDY


def kill_it_between_the_plan_and_the_tables(folder):
    other = STUDY | {"reference": "kmeans"}
    write_yaml_if_changed(folder / "results" / "study.yaml", resolve(other))
    return other


@pytest.mark.parametrize(
    "happens",
    [
        report_fewer_seeds_by_hand,
        report_another_reference_by_hand,
        copy_a_result_that_is_older_than_the_tables,
        kill_it_between_the_plan_and_the_tables,
    ],
)
def test_tables_of_other_results_or_of_another_plan_are_made_again(happens, finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    study = happens(folder)
    assert planned(snakemake(folder, study, "--dry-run")) == {"collect": 1, "report": 1}
