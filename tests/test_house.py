"""House rules that code can check: import directions, where labels are mentioned, named seeds."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from scl.engine.label_guard import forbid_label_access
from scl.engine.seeding import Seeds, seed_for

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {"scl": {"scl"}, "baselines": {"scl", "baselines"}, "benchmarks": {"scl", "baselines", "benchmarks"}}
ROOMS = set(ALLOWED)


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def sources():
    return [(room, path) for room in sorted(ROOMS) for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("room,path", sources(), ids=lambda v: v if isinstance(v, str) else str(v.relative_to(ROOT)))
def test_imports_go_one_way(room, path):
    for name in imports_of(path):
        assert name.split(".")[0] not in ROOMS - ALLOWED[room], f"{path.relative_to(ROOT)} imports {name}"


def test_the_walk_finds_a_wrong_arrow(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from benchmarks.study import Study\n")
    assert list(imports_of(wrong)) == ["benchmarks.study"]


def test_torchvision_has_one_door():
    """With a CPU build of torch, torchvision can only be imported through scl.util.shim, and timm only after it."""
    for _, path in sources():
        for name in imports_of(path):
            if name.split(".")[0] == "torchvision":
                assert path.name == "shim.py", f"{path} imports torchvision itself"


def test_methods_never_name_a_data_set_or_a_labels_file():
    names = re.compile(r"labels\.npy|['\"](?:cifar|stl|imagenet|tiny-imagenet|digits)", re.I)
    for room, path in sources():
        if room != "benchmarks":
            strings = [
                n.value
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) < 40
            ]
            found = [s for s in strings if names.search(s) or names.search(f"'{s}")]
            assert not found, f"{path}: {found}"


def test_no_file_grows_long():
    long = {str(path.relative_to(ROOT)): n for _, path in sources() if (n := len(path.read_text().splitlines())) > 330}
    assert not long


def test_labels_cannot_be_opened_while_training(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.arange(3))
    with forbid_label_access("data/any"):
        for attempt in (
            lambda: np.load(path),
            lambda: np.load(path, mmap_mode="r"),
            lambda: open(path, "rb"),
            path.read_bytes,
            lambda: np.memmap(path),
        ):
            with pytest.raises(PermissionError, match="cannot be opened"):
                attempt()
        np.save(tmp_path / "other.npy", np.arange(3))
        assert len(np.load(tmp_path / "other.npy")) == 3
    assert len(np.load(path)) == 3


def test_seeds_by_name():
    assert seed_for("a", "b", 0) == seed_for("a", "b", 0)
    assert 0 <= seed_for("a") < 2**63
    names = [(b, s, k, p) for b in ("x", "y") for s in ("scl", "pica") for k in range(3) for p in ("order", "views")]
    assert len({seed_for(*n) for n in names}) == len(names)
    seeds = Seeds("x", "scl", 0)
    assert seeds("order", 1) == seed_for("x", "scl", 0, "order", 1)
    one, two = seeds.generator("views", 3), seeds.generator("views", 3)
    assert one.initial_seed() == two.initial_seed() == seeds("views", 3)
