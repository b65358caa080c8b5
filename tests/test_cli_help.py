"""`scl --help`: every option is described, and the example of every subcommand is a valid command line."""

import argparse

import pytest

from benchmarks.cli import SUBCOMMANDS, parser
from benchmarks.study import Benchmark, Differences, Machine, MethodBlock, Study


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
