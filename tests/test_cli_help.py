"""`scl --help`: every option is described, and the example of every subcommand is a valid command line."""

import argparse
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import cli
from benchmarks.cli import SUBCOMMANDS, parser
from benchmarks.study import Benchmark, Differences, Machine, MethodBlock, Study
from scl.engine.io import RunFailed


def actions_of(name):
    [subparsers] = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return subparsers.choices[name]._actions


@pytest.mark.parametrize("function", SUBCOMMANDS, ids=lambda function: function.__name__)
def test_every_argument_is_described_with_its_default(function):
    for action in actions_of(function.__name__):
        assert action.help, action.dest
        if action.option_strings and action.dest not in ("help", "show_run", "part", "partial"):
            assert "(default: " in action.help, action.dest


@pytest.mark.parametrize("function", SUBCOMMANDS, ids=lambda function: function.__name__)
def test_the_example_of_every_subcommand_is_valid(function):
    example = SUBCOMMANDS[function][0]
    assert parser().parse_args([function.__name__, *example.split()]).subcommand is function


@pytest.mark.parametrize("model", [Benchmark, Differences, MethodBlock, Machine, Study])
def test_every_key_of_a_study_is_described(model):
    assert not [name for name, field in model.model_fields.items() if not field.description]


def test_every_option_of_every_parser_has_a_help_text():
    waiting, seen = [parser()], 0
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
            else:
                assert action.help and action.help != argparse.SUPPRESS, action.dest
                seen += 1
    assert seen > 50


def test_version_names_commit_and_torch_without_importing_torch():
    code = "import sys; from benchmarks.cli import main\ntry: main(['--version'])\n"
    code += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"scl [\d.]+(, commit [0-9a-f]{12}( \(with changes\))?)?, torch [\d.]+\S*\n", done.stdout)


def test_the_start_of_the_command_imports_nothing_large():
    code = "import sys, benchmarks.cli; benchmarks.cli.parser(); print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "benchmarks.study" in imported and not {"rich", "torch", "pandas", "snakemake"} & set(imported)


STATUSES = {0: None, 1: RunFailed("it diverged"), 2: ValueError("bad"), 130: KeyboardInterrupt(), 143: SystemExit(143)}


@pytest.mark.parametrize("status", STATUSES)
def test_exit_status_of_the_command_is_the_documented_one(status, monkeypatch, capsys):
    def subcommand():
        if STATUSES[status]:
            raise STATUSES[status]

    monkeypatch.setattr(cli, "parser", lambda: SimpleNamespace(parse_args=lambda _: Namespace(subcommand=subcommand)))
    if status == 143:  # from training, which saved its state
        with pytest.raises(SystemExit) as stopped:
            cli.main([])
        assert stopped.value.code == 143
    else:
        assert cli.main([]) == status
    assert len(capsys.readouterr().err.splitlines()) == (status in (1, 2, 130))


def test_output_that_cannot_be_written_is_an_error_of_the_command(monkeypatch):
    """Even for short output, which is only written at exit; no error message of Python follows."""
    parse = SimpleNamespace(parse_args=lambda _: Namespace(subcommand=lambda: print("text")))
    monkeypatch.setattr(cli, "parser", lambda: parse)
    reader, writer = os.pipe()
    os.close(reader)
    for place, status in (("/dev/full", 2), (writer, 141)):
        with open(place, "w") as stdout, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            assert cli.main([]) == status


@pytest.mark.parametrize("options, status", [(["--version"], 0), (["bogus"], 2), (["doctor", "--help"], 0)])
def test_a_closed_output_is_none_to_write_to(options, status, monkeypatch, capsys):
    """`scl ... >&-`, as some daemons start programs; sys.stdout is then None."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(options)
    assert ended.value.code == status and len(capsys.readouterr().err.splitlines()) == (status == 2)
    parse = SimpleNamespace(parse_args=lambda _: Namespace(subcommand=lambda: print("text")))
    monkeypatch.setattr(cli, "parser", lambda: parse)
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main([]) == 0


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_that_cannot_be_written_is_an_error_too(option, monkeypatch, capsys):
    """`scl --help | head -1`; on a full disk, one line says so."""
    reader, writer = os.pipe()
    os.close(reader)
    for place, status in (("/dev/full", 2), (writer, 141)):
        with open(place, "w") as stdout, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            assert cli.main([option]) == status
        assert len(capsys.readouterr().err.splitlines()) == (status == 2)


def test_every_exit_status_is_documented():
    page = (Path(__file__).resolve().parent.parent / "docs" / "running.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|", page.partition("### Exit status")[2], re.M)
    assert {int(number) for row in rows for number in row.split(",")} == {*STATUSES, 129, 141}
