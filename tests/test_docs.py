"""The documentation against the code: generated pages, links, file names, and commands."""

import csv
import importlib.util
import pydoc
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.check import check_study
from benchmarks.study import load_study

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "results/reference/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
ALL_PAGES = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def load_file(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_file(ROOT / "docs" / "reference.py")
MODELS = {title: model for title, model, *_ in [*reference.SECTIONS, reference.RUN]}
MODELS |= {path: method.Options for path, method in reference.built_in_methods().items()}


@pytest.mark.parametrize("name", reference.PAGES)
def test_committed_reference_page_is_what_the_code_says(name):
    written = reference.PAGES[name]()
    assert (ROOT / "docs" / name).read_text() == written, "run `python docs/reference.py` and commit the result"


def test_the_pages_are_written_from_the_code_beside_them(tmp_path):
    """As in a git worktree whose environment has another checkout installed."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "reference.py", tmp_path / "docs")
    (tmp_path / "baselines.py").write_text("raise SystemExit('of this checkout')")
    done = subprocess.run([sys.executable, tmp_path / "docs" / "reference.py"], capture_output=True, text=True)
    assert done.stderr == "of this checkout\n"


@pytest.mark.parametrize("title", MODELS)
def test_every_key_has_a_description(title):
    missing = [name for name, field in MODELS[title].model_fields.items() if not field.description]
    assert not missing


def test_reference_covers_all_commands_and_methods_and_shows_ranges():
    text = {name: page() for name, page in reference.PAGES.items()}
    for function in cli.SUBCOMMANDS:
        assert f"| `scl {function.__name__}` |" in text["commands.md"]
    assert "| `scl doctor config/smoke.yaml` |" in text["commands.md"]
    for path in ("scl.scl.SCL", "baselines.simclr.SimCLR", "baselines.scan.SelfLabel", "baselines.controls.Random"):
        assert f"### {path}\n" in text["configuration.md"]
    assert "| `network.width` | integer (8 to 1,024, a multiple of 8) | `64` |" in text["configuration.md"]
    assert "| `options.consensus` | `both` or `boundaries` or `similarities` | `both` |" in text["configuration.md"]
    assert "| `scale` | two rising numbers (0.0001 to 1) | `[0.08, 1.0]` |" in text["augmentations.md"]


@ALL_PAGES
def test_links_lead_to_files(page):
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


@ALL_PAGES
def test_files_named_in_the_text_exist(page):
    named = re.findall(r"`((?:scl|baselines|benchmarks|config|docs|profiles|tests)/[\w./-]+\.\w+)", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


@ALL_PAGES
def test_python_names_in_the_text_exist(page):
    named = re.findall(r"`((?:scl|baselines|benchmarks)(?:\.[a-z]\w*)+(?:\.[A-Z]\w*)?)", page.read_text())
    assert not [name for name in named if pydoc.locate(name) is None]


@ALL_PAGES
def test_scl_commands_in_the_text_parse(page):
    """In lines of code blocks; words in capitals are placeholders."""
    for line in re.findall(r"^    (?:\S*\$ +)?(scl [a-z].*?)(?: +#.*| *\|.*)?$", page.read_text(), re.M):
        cli.parser().parse_args(shlex.split(line)[1:])


def test_number_to_reproduce_is_the_committed_one():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    study, benchmark, protocol, stage, seed = re.search(
        r"results/(\w+)/runs/(\w+)/(\w+)/(\w+)/seed(\d+)/metrics.json", text
    ).groups()
    with open(ROOT / "results" / "reference" / study / "runs.csv", newline="") as file:
        run = next(
            row
            for row in csv.DictReader(file)
            if [row[key] for key in ("benchmark", "protocol", "stage", "seed")] == [benchmark, protocol, stage, seed]
        )
    assert run["commit"].startswith(re.search(r"git worktree add \S+ (\w{7,})", text)[1])
    assert float(run["acc"]) == float(re.search(r'"acc": ([\d.]+)', text)[1])


def test_make_targets_in_the_text_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^ {4})make ([a-z-]+)", page.read_text(), re.M)}
    assert len(named) > 5 and named <= targets


def test_every_configuration_is_explained_and_names_its_command():
    files = {path.name: path.read_text() for path in (ROOT / "config").glob("*.yaml")}
    rows = re.findall(r"^\| \[([\w.-]+)\]", (ROOT / "config" / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(files)
    for name, text in files.items():
        header = re.match(r"(?:#.*\n)+", text)[0]
        assert "snakemake --cores all" in header, name
        assert name == "paper.yaml" or f"--configfile config/{name}" in header, name


@pytest.fixture
def your_own(tmp_path, monkeypatch):
    """A folder with the two files of docs/your-own.md, as a user would have them, next to config/."""
    text = (ROOT / "docs" / "your-own.md").read_text()
    (tmp_path / "my_method.py").write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    (tmp_path / "my_study.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_study_of_your_own_page_passes_every_check(your_own):
    study = load_study("my_study.yaml")
    check_study(study)
    assert "agreement" in study.methods and study.methods["agreement"].method == "my_method.Agreement"
