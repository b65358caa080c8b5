"""Arguments of the `scl` command (the parser, types of numbers and files, `--version`), and what it prints."""

import argparse
import sys
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from scl.engine.provenance import provenance
from scl.util.text import expanded, printable


class Parser(argparse.ArgumentParser):
    """Reports an invalid command in one line, like all invalid input."""

    def error(self, message):
        self.exit(2, f"scl: error: {printable(message)} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # of --help and --version: an error here is an error of the command
        super().exit(status, message)


def within(least, most, metavar: str = "N") -> dict:
    """Type of an argument: a number like `least`, from `least` to `most`."""

    def number(text: str):
        value = type(least)(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least} .. {most}")
        return value

    return {"type": number, "metavar": metavar}


def new_file(text: str) -> Path:
    """Type of an argument: a file to write, checked before the work whose result it will hold."""
    file = expanded(text)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text}: {'a folder' if file.is_dir() else 'its folder does not exist'}; name a file"
        )
    return file


def argument(name: str, text: str, **settings) -> tuple[str, dict]:
    """An argument with its help, which ends with the default."""
    stated = "default" not in settings or "(default: " in text
    return name, {"help": text if stated else f"{text} (default: %(default)s)", **settings}


def flag(name: str, text: str, **settings) -> tuple[str, dict]:
    return argument(name, f"{text} (default: no)", action="store_true", **settings)


ALL_THREADS = argument("--threads", "CPU threads (default: all cores)", **within(1, 1024))


def show(*texts: object) -> None:
    """Print lines that may contain text from a configuration or another file."""
    for text in texts:
        print(printable(text, keep="\n"))


class Version(argparse.Action):
    """Prints the versions of scl and torch, and the commit of a checkout; imports no torch."""

    def __init__(self, option_strings, dest, **settings):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser, *arguments):
        try:
            version = metadata.version("scl-clustering")
        except metadata.PackageNotFoundError:  # python -m benchmarks.cli in a checkout
            version = "not installed"
        made_by = provenance(device="cpu")
        changes = " (with changes)" if made_by["dirty"] else ""
        commit = "" if made_by["commit"] == "unknown" else f", commit {made_by['commit'][:12]}{changes}"
        print(f"scl {version}{commit}, torch {made_by['versions']['torch'] or 'not installed'}")
        parser.exit()
