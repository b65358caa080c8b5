"""Files that were damaged, copied, or left behind between two starts of a study."""

import json
import os
import shutil
import signal

import flow
import numpy as np
import pytest
import yaml
from conftest import TINY_METHODS, flip_a_bit
from flow import TINY, copy_of, run_of
from long_study import (
    STUDY,
    assert_the_same_command_finishes,
    end_of,
    ended,
    jobs_of,
    open_gate,
    resumed,
    snakemake,
    start,
)
from PIL import Image

pytestmark = pytest.mark.workflow


def test_damaged_weights_of_the_stage_before_are_restored_from_its_checkpoint(tmp_path, undisturbed):
    folder = copy_of(undisturbed, tmp_path)
    flip_a_bit(run_of(folder) / "weights.pt")
    shutil.rmtree(run_of(folder, "scan"))  # so that SimCLR's weights are loaded
    status, output = snakemake(folder, STUDY)
    assert status == 0 and "train simclr" not in output, output
    log = (folder / "results" / "logs" / "tiny" / "joint" / "scan" / "seed0.log").read_text()
    assert "weights.pt: damaged (its checksum is not the recorded one); restoring it from the checkpoint" in log
    assert ended(folder) == ended(undisturbed)


def test_damaged_weights_that_cannot_be_restored_are_never_used(tmp_path, undisturbed):
    folder = copy_of(undisturbed, tmp_path)
    flip_a_bit(run_of(folder) / "weights.pt")
    for path in (run_of(folder) / "checkpoint.pt", *run_of(folder).glob("checkpoint.prev.pt")):
        path.unlink()
    shutil.rmtree(run_of(folder, "scan"))
    status, output = snakemake(folder, STUDY)
    assert status != 0 and "weights.pt: damaged" in output and "set aside as weights.pt.damaged" in output
    assert_the_same_command_finishes(folder, undisturbed)


def test_a_number_of_clusters_changed_half_way_never_mixes(tmp_path, undisturbed):
    """Whatever is interrupted after the change, no run with the old clusters counts or appears in a table."""
    folder = copy_of(undisturbed, tmp_path)
    fewer = STUDY | {"benchmarks": {"tiny": TINY["benchmarks"]["tiny"] | {"clusters": 5}}}
    process = start(folder, fewer)
    os.killpg(process.pid, signal.SIGTERM)
    assert end_of(process)[0] != 0
    open_gate(folder)
    assert flow.scl(folder, "report", "study.yaml").returncode == 0
    partial = (folder / "results" / "partial" / "tables.md").read_text()
    assert "0 of 2 done" in partial
    status, output = snakemake(folder, fewer)
    assert status == 0, output
    clusters = json.loads((run_of(folder, "scan") / "metrics.json").read_text())["clusters"]
    assert clusters == 5
    assert_the_same_command_finishes(folder, undisturbed)  # and back again


def times_of(folder):
    """{path: modification time} without Snakemake's records and Python's bytecode."""
    others = {".snakemake", "__pycache__"}
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if others.isdisjoint(path.parts)}


def test_a_dry_run_of_another_plan_changes_nothing(tmp_path, undisturbed):
    folder = copy_of(undisturbed, tmp_path)
    before = times_of(folder)
    other = STUDY | {"training": STUDY["training"] | {"batch_size": 16}, "seeds": 2}
    status, output = snakemake(folder, other, "--dry-run")
    assert status == 0 and "train simclr on tiny (joint), seed 1" in output and "2 out of date" not in output
    (folder / "study.yaml").write_bytes((undisturbed / "study.yaml").read_bytes())
    after = times_of(folder)
    assert before.keys() == after.keys()
    assert {path.name for path in after if after[path] != before[path]} <= {"study.yaml", "gated.py"}  # ours
    assert snakemake(folder, STUDY)[1].count("Nothing to be done") == 1


WEIGHTS = ("weights.pt", "checkpoint.pt", "checkpoint.prev.pt")


def carry(undisturbed, tmp_path, *without):
    """Copy results as to another machine, with new modification times; without: names left behind."""
    folder = tmp_path / "moved"
    shutil.copytree(
        undisturbed, folder, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".snakemake", *without)
    )
    return folder


def test_results_copied_with_data_newer_or_without_data_are_not_made_again(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path)
    for path in [
        *(folder / "data" / "tiny").iterdir(),
        run_of(folder) / "weights.pt",
        run_of(folder) / "assignments.npz",
    ]:
        os.utime(path)
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    shutil.rmtree(folder / "data")
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    status, output = snakemake(folder, STUDY)
    assert status == 0 and ended(folder) == ended(undisturbed)


def test_results_copied_without_the_images_of_a_folder_are_complete(tmp_path):
    """The folder of images is on another machine."""
    for i in range(24):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(path)
    own = {"benchmarks": {"mine": {"dataset": "folder", "path": "photos", "size": 8, "clusters": 2}}}
    study = STUDY | own | {"methods": {"random": TINY_METHODS["random"]}, "reference": None}
    status, output = snakemake(tmp_path, study)
    assert status == 0, output
    shutil.rmtree(tmp_path / "photos")
    shutil.rmtree(tmp_path / "data")
    status, output = snakemake(tmp_path, study)
    assert status == 0 and "Nothing to be done" in output, output
    status, output = snakemake(tmp_path, study | {"seeds": 2})
    assert status == 2 and "benchmarks.mine.path: photos is not a folder" in output


def test_moved_data_are_no_reason_to_train_again(tmp_path, undisturbed):
    folder = copy_of(undisturbed, tmp_path)
    (folder / "data").rename(folder / "elsewhere")
    jobs = jobs_of(folder, STUDY | {"data": str(folder / "elsewhere")})
    assert not {"prepare", "train", "evaluate"} & jobs.keys()


def test_results_copied_without_weights_are_not_made_again_until_a_further_stage_needs_them(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path, *WEIGHTS)
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    further = STUDY | {"methods": STUDY["methods"] | {"selflabel": TINY_METHODS["selflabel"]}}
    assert jobs_of(folder, further)["train"] == 3  # with SimCLR, whose weights SCAN needs
    assert jobs_of(carry(undisturbed, tmp_path / "all"), further)["train"] == 1


@pytest.mark.parametrize("without", [("data",), ("data", *WEIGHTS)])
def test_new_runs_train_no_finished_one_again(tmp_path, undisturbed, without):
    """Even if the new runs recreate what the finished ones were made from: images or SimCLR's weights."""
    folder = carry(undisturbed, tmp_path, *without)
    assert jobs_of(folder, STUDY | {"seeds": 2})["train"] == 2  # SimCLR and SCAN of the second seed
    further = STUDY | {"methods": STUDY["methods"] | {"second": TINY_METHODS["scan"] | {"after": "simclr"}}}
    jobs = jobs_of(folder, further)
    assert jobs["train"] == 1 + ("weights.pt" in without) and jobs["evaluate"] == 1 and jobs["prepare"] == 1


def test_copied_results_on_other_images_are_made_again(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path, "data")
    other = STUDY | {"benchmarks": {"tiny": {"dataset": "digits", "subset": 61, "size": 8}}}
    (folder / "study.yaml").write_text(yaml.safe_dump(other))
    assert flow.scl(folder, "prepare", "tiny", "--study", "study.yaml").returncode == 0
    assert jobs_of(folder, other)["train"] == 2


def test_results_are_not_made_again_because_another_study_has_prepared_the_folder_otherwise(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path, *WEIGHTS)
    other = STUDY | {"benchmarks": {"tiny": {"dataset": "digits", "subset": 61, "size": 8}}}
    (folder / "study.yaml").write_text(yaml.safe_dump(other))
    assert flow.scl(folder, "prepare", "tiny", "--study", "study.yaml").returncode == 0
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    jobs = jobs_of(folder, STUDY | {"seeds": 2})
    assert (jobs["prepare"], jobs["train"], jobs["evaluate"]) == (1, 2, 2)


def test_a_run_begun_elsewhere_resumes_from_its_copied_checkpoint(tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    os.killpg(process.pid, signal.SIGINT)
    end_of(process)
    open_gate(tmp_path)
    folder = carry(tmp_path, tmp_path.parent / f"{tmp_path.name}-elsewhere", "data", "partial")
    assert_the_same_command_finishes(folder, undisturbed)
    assert resumed(folder)
