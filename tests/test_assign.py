"""`scl assign` assigns new images to the clusters of a run."""

import shutil

import pytest
import yaml
from folders import cluster, digits, table, tiny_settings

from benchmarks.cli import main


@pytest.fixture
def here(here):
    """The working directory, with settings for tiny networks in tiny.yaml."""
    tiny_settings(here / "tiny.yaml")
    return here


@pytest.mark.parametrize("method", ["selflabel", "simclr", "pica", "kmeans"])
def test_new_images_go_into_the_clusters_of_a_run(here, method, capsys):
    """Training images keep their clusters, whatever their folder is called and wherever the results are."""
    digits(here / "photos", 40)
    assert cluster("photos", "--clusters", 3, "--method", method) == 0
    digits(here / "more", 45)
    shutil.move(here / "photos-clusters", here / "moved")
    shutil.rmtree(here / "photos")
    (here / "more" / "0" / "broken.png").write_text("broken")
    capsys.readouterr()
    assert main(["assign", "moved", "more", "--threads", "1"]) == 0
    told = capsys.readouterr()
    assert "left out: 1 unreadable image(s)" in told.out and "0/broken.png: cannot be read" in told.err
    known = {row["file"]: row["cluster"] for row in table("moved/clusters.csv")}
    found = {row["file"]: row["cluster"] for row in table("more-assigned.csv")}
    assert len(found) == 45 and {name: found[name] for name in known} == known


@pytest.mark.parametrize("clusters,pool", [(4, False), (3, True)])
def test_assign_is_of_the_weights_not_of_an_interrupted_command(here, clusters, pool, monkeypatch):
    """Another command on the same results plans other clusters or another network, and stops before training."""
    digits(here / "photos", 40, classes=False)
    assert cluster("photos", "--clusters", 3) == 0
    assert main(["assign", "photos-clusters", "photos", "--out", "before.csv", "--threads", "1"]) == 0
    settings = yaml.safe_load((here / "tiny.yaml").read_text())
    settings["network"]["pool"] = pool
    (here / "tiny.yaml").write_text(yaml.safe_dump(settings))

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.single.train", stop)
    assert cluster("photos", "--clusters", clusters) == 130
    assert main(["assign", "photos-clusters", "photos", "--out", "after.csv", "--threads", "1"]) == 0
    assert (here / "after.csv").read_bytes() == (here / "before.csv").read_bytes()


@pytest.mark.parametrize("where", ["preparation", "training", "evaluation"])
def test_results_that_an_interrupted_command_has_left_half_replaced(here, where, monkeypatch, capsys):
    """The images or the weights are from the second command, clusters.csv is from the first."""
    digits(here / "photos", 40, classes=False)
    assert cluster("photos", "--clusters", 3, "--method", "simclr") == 0
    other = ("photos", "--clusters", 3, "--method", "simclr", *(() if where == "evaluation" else ("--size", 12)))

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    steps = {"preparation": "datasets.prepare.write_images", "training": "single.train"}
    with monkeypatch.context() as patch:
        patch.setattr(f"benchmarks.{steps.get(where, 'single.evaluate_run')}", stop)
        assert cluster(*other, epochs=2) == 130
    capsys.readouterr()
    assert main(["assign", "photos-clusters", "photos", "--threads", "1"]) == 2
    told = "photos-clusters: another scl cluster command was interrupted here; give that command again first"
    assert capsys.readouterr().err.splitlines()[-1] == f"scl: error: {told}"
    if where == "training":  # the message about a run is the same as for any study
        assert main(["assign", "photos-clusters/runs/images/joint/simclr/seed0", "photos", "--threads", "1"]) == 2
        assert "holds other images than those that" in capsys.readouterr().err
    assert cluster(*other, epochs=2) == 0
    assert main(["assign", "photos-clusters", "photos", "--threads", "1"]) == 0


def test_assign_takes_a_run_of_a_study(here, tiny_study, train_all):
    study = tiny_study("simclr", "scan")
    runs = train_all(study)
    digits(here / "new", 20, classes=False)
    for run in runs:
        assert main(["assign", str(run.directory), "new", "--out", "found.csv", "--threads", "1"]) == 0
        assert len(table("found.csv")) == 20


def test_a_run_whose_images_are_elsewhere_says_where_to_give_the_command(here, monkeypatch, capsys):
    """The paths in run.yaml are relative to the folder in which the run was started."""
    digits(here / "photos", 12, classes=False)
    assert cluster("photos", "--clusters", 2, "--method", "kmeans") == 0
    run = here / "photos-clusters/runs/images/joint/kmeans/seed0"
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    for command in (["assign", str(run), "../photos"], ["train", str(run)]):
        assert main([*command, "--threads", "1"]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("scl: error: photos-clusters/data/images/benchmark.json: missing; prepare it first")
        assert told.endswith("or give the command where the run was started")
    assert main(["assign", "../photos-clusters", "../photos", "--threads", "1"]) == 0


@pytest.mark.parametrize("command", [["assign", "flat", "flat"], ["bench", "study.yaml"]])
@pytest.mark.parametrize("out,told", [("no/where", "its folder does not exist"), (".", "a folder")])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(here, command, out, told, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--out", out])
    assert capsys.readouterr().err.startswith(f"scl: error: argument --out: {out}: {told}; name a file")


@pytest.mark.parametrize(
    "arguments,told",
    [
        (["flat", "flat"], "flat: not a folder that scl cluster has finished"),
        (["flat", "nowhere"], "flat: not a folder that scl cluster has finished"),
        (["nowhere", "flat"], "nowhere: not a folder that scl cluster has finished"),
        (["~nouser/x", "flat"], "~nouser/x: not a folder that scl cluster has finished"),
    ],
)
def test_bad_input_of_assign(here, arguments, told, capsys):
    digits(here / "flat", 3, classes=False)
    assert main(["assign", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"scl: error: {told}")
