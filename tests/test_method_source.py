"""A custom method in a user's file: the content of the file is part of a run's settings."""

import json
import re
import sys

import pytest
from conftest import TINY_METHODS

from benchmarks.check import check_methods
from benchmarks.report.runs import row_of
from benchmarks.state import Survey
from scl import config
from scl.engine.io import sha256

SOURCE = "from baselines.controls import Random\n\n\nclass Own(Random):\n    pass\n"


@pytest.fixture
def own(tmp_path, monkeypatch, tiny_study):
    """(the file of a method, a function that plans a study of it and of a built-in one)."""
    path = tmp_path / "own_method.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_method", raising=False)
    methods = {"own": {"method": "own_method.Own"}, "random": TINY_METHODS["random"]}
    return path, lambda **changes: tiny_study(methods=methods | changes)


def test_the_run_and_its_record_name_the_file(own, train_all):
    path, plan = own
    mine, ours = train_all(plan())
    assert config.load_run(mine.directory).method_source == sha256(path)
    record = json.loads((mine.directory / "record.json").read_text())
    assert record["identity"]["settings"]["method_source"] == sha256(path)
    assert config.load_run(ours.directory).method_source is None


def test_after_an_edit_the_old_number_counts_no_more(own, train_all):
    path, plan = own
    study = plan()
    run = train_all(study)[0]
    assert row_of(run, Survey(study))["reason"] == "trained, not evaluated"
    path.write_text(SOURCE + "# an edit\n")
    sys.modules.pop("own_method")  # as in a new process
    with pytest.raises(ValueError, match="own_method.Own: its file has changed since this run was planned; plan again"):
        train_all(study)
    study = plan()
    assert row_of(run, Survey(study))["reason"] == "made with other settings (method_source): train again"
    train_all(study)
    assert row_of(run, Survey(study))["reason"] == "trained, not evaluated"


def test_a_process_that_has_imported_the_file_before_an_edit_trains_nothing(own, train_all):
    """It would record the old class as that of the new file. It can still report what is out of date."""
    path, plan = own
    study = plan()
    run = train_all(study)[0]
    path.write_text(SOURCE + "# an edit\n")
    study = plan()
    assert row_of(run, Survey(study))["reason"] == "made with other settings (method_source): train again"
    with pytest.raises(ValueError, match="own_method.Own: its file has changed since this process imported it; start"):
        train_all(study)


def test_it_is_named_where_it_stands(own):
    _, plan = own
    with pytest.raises(ValueError, match="'own_method.Random' is defined elsewhere; write 'baselines.controls.Random'"):
        check_methods(plan(own={"method": "own_method.Random"}))


@pytest.mark.parametrize("module", ["nowhere", "nowhere.at_all", "own_method.inner"])
def test_a_file_that_does_not_exist_is_reported_with_the_searched_folder(own, tmp_path, monkeypatch, module):
    _, plan = own
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    searched = f"no such file in the working directory, {tmp_path / 'empty'}, or on PYTHONPATH"
    with pytest.raises(ValueError, match=re.escape(f"cannot import '{module}' for '{module}.Own': {searched}")):
        plan(own={"method": f"{module}.Own"})


def test_a_missing_import_of_a_custom_file_is_named(own):
    path, plan = own
    path.write_text("import nowhere\n")
    with pytest.raises(ValueError, match="cannot import 'own_method' for 'own_method.Own': No module named 'nowhere'"):
        check_methods(plan())


def test_an_error_names_the_line_of_the_custom_file(own):
    """Not the line in this project where it was raised."""
    path, plan = own
    path.write_text("from scl.util.yaml_file import load_yaml\n\nload_yaml('missing.yaml')\n")
    with pytest.raises(ValueError, match="own_method.py line 3: ValueError: missing.yaml: cannot read the file"):
        plan()
