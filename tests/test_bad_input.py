"""Bad input to the workflow: refused before any job, with one message that names the place, leaving no files.

A few cases from the tables of test_bad_input_cli.py; here, Snakemake runs in a separate process.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from bad_files import files
from bad_inputs import configurations
from flow import snakemake, start
from forked import ROOT, Process
from test_bad_input_cli import lay

pytestmark = pytest.mark.slow

BAD = {**configurations(), **files()}
CASES = (
    "unknown: 1",
    "results: '-rf'",
    "results: 'study.yaml/below'",
    "methods.scl.network.width: 4",
    "a circle",
    "folder that is not there",
    "own file: exit 0",
    "YAML: contains itself, merged",
)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """{name: (process, folder)} of all cases; two at a time, as startup dominates."""
    lock = threading.Lock()

    def refuse(name):
        with lock:
            folder = tmp_path_factory.mktemp("bad")
        lay(folder, BAD[name].files)
        return snakemake(folder, BAD[name].files["study.yaml"]), folder

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(refuse, CASES)))


@pytest.mark.xdist_group("refusals")
@pytest.mark.parametrize("name", CASES)
def test_bad_configuration_is_one_message_before_any_job(refusals, name):
    done, folder = refusals[name]
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(told) == 1 and told[0].startswith("snakemake: error: "), done.stderr
    assert all(word in told[0] for word in BAD[name].words)
    assert not done.stdout
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - set(BAD[name].files)
    assert not {path for path in left if not path.startswith((".snakemake", "__pycache__"))}


def test_the_same_of_a_process_that_is_not_forked(tmp_path):
    lay(tmp_path, BAD["unknown: 1"].files)
    process = start(tmp_path, BAD["unknown: 1"].files["study.yaml"], before=("env",))
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 2 and output.splitlines()[-1].startswith("snakemake: error: ") and "unknown" in output


def test_a_key_given_twice_is_refused(tmp_path):
    """Snakemake itself reads the file first and keeps the last of the two."""
    done = snakemake(tmp_path, "results: r\nseeds: 1\nseeds: 2\n")
    assert done.returncode == 2
    told = done.stderr.splitlines()[-1]
    assert told.startswith("snakemake: error: study.yaml line 3: ") and "'seeds' is given twice" in told


def test_yaml_that_is_none_is_refused(tmp_path):
    done = snakemake(tmp_path, "seeds: [0\nmethods: {")
    assert done.returncode != 0
    assert "not valid JSON or YAML" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != ".snakemake"] == ["study.yaml"]


def test_extends_is_looked_for_beside_the_file_that_says_it(tmp_path):
    """Even if Snakemake merges several sources and passes a mapping without a file."""
    (tmp_path / "sub").mkdir()
    good = BAD["unknown: 1"].files["study.yaml"].replace("unknown: 1\n", "")
    (tmp_path / "sub" / "base.yaml").write_text(good)
    (tmp_path / "sub" / "mine.yaml").write_text("extends: base.yaml\n")
    for flags in ((), ("--config", "title=other")):
        done = snakemake(tmp_path, good, "--configfile", "sub/mine.yaml", "-n", *flags)
        assert done.returncode == 0, done.stderr


def test_config_without_a_file_changes_the_default_study(tmp_path):
    """`snakemake --config seeds=1`."""
    (tmp_path / "config").mkdir()
    good = BAD["unknown: 1"].files["study.yaml"].replace("unknown: 1\n", "")
    (tmp_path / "config" / "paper.yaml").write_text(good)
    options = ["--snakefile", ROOT / "Snakefile", "--cores", "1", "-n", "--config", "title=other"]
    process = Process("snakemake", options, tmp_path)
    assert "other: " in "".join(process.communicate()) and process.returncode == 0
