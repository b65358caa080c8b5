"""Bad input through the command line: one line that names the key or file, a non-zero status, and nothing written.

The tables are bad_inputs.py, bad_files.py, and good_inputs.py; every case runs in this process, and a few also in a
separate one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bad_files import files
from bad_inputs import configurations
from good_inputs import accepted

from benchmarks.cli import main
from benchmarks.plan.sources import Sources

pytestmark = pytest.mark.slow

BAD = {**configurations(), **files()}
GOOD = accepted()


def lay(folder, contents):
    for name, content in contents.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture
def scl(tmp_path, monkeypatch, capsys):
    """A function that writes the files of a case and runs its command: (status, stdout, stderr, files made)."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # and nothing may appear beside it
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)

    def run(contents, command):
        lay(Path(), contents)
        laid = files_of(tmp_path)
        try:
            status = main(list(command))
        except SystemExit as stopped:
            status = stopped.code
        told = capsys.readouterr()
        return status, told.out, told.err, files_of(tmp_path) - laid

    yield run
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("own_file", "my_file", "my", "folder", "package"):
            del sys.modules[name]


def is_refused(status, error, words):
    assert status not in (0, None)
    assert error.endswith("\n") and error.startswith("scl: error: ")
    line = error[:-1]
    assert line.isprintable() and "Traceback" not in line  # implies a single line
    assert len(line) < 1000
    for word in words:
        assert word in line
    return line


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, scl):
    case = BAD[name]
    status, _, error, made = scl(case.files, case.command)
    is_refused(status, error, case.words)
    assert not made


@pytest.mark.parametrize("name", GOOD)
def test_good_input_is_accepted(name, scl, monkeypatch):
    monkeypatch.setattr(Sources, "published", [])  # skips the measured costs, which are slow to read
    case = GOOD[name]
    status, output, error, made = scl(case.files, case.command)
    assert (status, error) == (0, "") and "runs, 0 of them trained" in output
    assert not made


def test_the_tables_have_many_cases_of_all_kinds():
    assert len(BAD) > 600 and len(GOOD) > 40


def test_what_the_plan_refuses_the_run_refuses_alike(scl):
    """`scl run` checks before it writes."""
    case = BAD["own file: exit 0"]
    status, _, error, made = scl(case.files, ("run", "tiny/joint/scl/0", "--study", "study.yaml", "--gpus", "0"))
    is_refused(status, error, case.words)
    assert not made


PROCESSES = ("own file: exit 0", "scl train nowhere --threads 0")


def test_the_same_of_processes_of_their_own(tmp_path):
    """Python's own exit agrees with the message: no status 0 after sys.exit(), no traceback."""
    started = {}
    for number, name in enumerate(PROCESSES):
        folder = tmp_path / str(number)
        folder.mkdir()
        lay(folder, BAD[name].files)
        started[name] = subprocess.Popen(
            [Path(sys.executable).with_name("scl"), *BAD[name].command],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )
    for name, process in started.items():
        output, error = process.communicate(timeout=300)
        is_refused(process.returncode, error, BAD[name].words)
        assert not output
    laid = {str(Path(str(number), file)) for number, name in enumerate(PROCESSES) for file in ("", *BAD[name].files)}
    assert files_of(tmp_path) == laid
