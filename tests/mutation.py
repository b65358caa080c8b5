"""Sampled mutation testing (`make mutation`): would the tests notice a mistake in what trains and what scores?

cosmic-ray makes the mutants; this file draws a sample of them, has each judged by the tests that mutation.toml names
for its file, and prints the score and the survivors. Each mutant is tested in a fork of this process, which has
imported torch once, in a copy of the tree. Results are kept in build/mutation: the command resumes, and given again
it judges anew only the survivors that are not explained (a changed file: all its mutants).
"""

import difflib
import hashlib
import json
import os
import re
import resource
import shutil
import sys
import time
import tomllib
from pathlib import Path

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutation"
SETTINGS = tomllib.loads((ROOT / "tests" / "mutation.toml").read_text())
EXPLAINED = {entry["mutant"]: entry["reason"] for entry in SETTINGS["explained"]}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def mutants(path: str) -> dict[str, str]:
    """All mutants of a file: its source by 'path: line as it is -> line as it becomes'."""
    source = (ROOT / path).read_text()
    wanted, found, tree = re.compile(SETTINGS["operators"].replace("\n", "")), {}, get_ast(source)
    for operator in (
        get_operator(name)() for name in sorted(operator_names()) if wanted.fullmatch(name.removeprefix("core/"))
    ):
        for occurrence in range(sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(tree))):
            mutated = mutate_code(source, operator, occurrence)
            name = f"{path}: {change(source, mutated)}"
            if compiles(mutated) and ", /," not in name:  # it takes the * of keyword-only parameters for a product
                found[name + " (again)" * sum(known.startswith(name) for known in found)] = mutated
    return found


def change(source: str, mutated: str) -> str:
    """'line as it is -> line as it becomes'."""
    lines = list(difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm=""))[2:]
    was, becomes = (" ".join(" ".join(line[1:].split()) for line in lines if line[0] == sign).strip() for sign in "-+")
    return f"{was} -> {becomes or '(nothing)'}"


def compiles(source: str) -> bool:
    try:
        return bool(compile(source, "mutant", "exec"))
    except SyntaxError:
        return False


def sample() -> dict[str, str]:
    """The mutants with the smallest hashes: a change to one file does not draw others from the rest."""
    everything = {name: code for path in SETTINGS["tests"] for name, code in mutants(path).items()}
    drawn = sorted(everything, key=lambda name: digest(f"{SETTINGS['seed']} {name}"))[: SETTINGS["mutants"]]
    print(f"{len(drawn)} of {len(everything)} mutants", flush=True)
    for name in EXPLAINED.keys() - everything:
        print(f"explained, but there is no such mutant any more; delete it from mutation.toml: {name}")
    return {name: everything[name] for name in drawn}


def passes(path: str, log: Path) -> bool:
    """Whether the tests of a file pass, in a fork that may take so many seconds of a core."""
    if (child := os.fork()) == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SETTINGS["seconds"],) * 2)
        tests = [f"tests/{name}" for name in SETTINGS["tests"][path]]
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    return os.waitpid(child, 0)[1] == 0


def judge(path: str, mutated: str) -> str:
    whole = Path(path).read_text()
    try:
        Path(path).write_text(mutated)
        return "survived" if passes(path, BUILD / "last.log") else "killed"
    finally:
        Path(path).write_text(whole)


def prepare_tree() -> None:
    """A copy of what the tests need, as the working directory and first on the path; then what is slow to import."""
    tree = BUILD / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("scl", "baselines", "benchmarks", "tests", "config", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    os.chdir(tree)
    sys.path[0] = str(tree)
    sys.dont_write_bytecode = True  # two mutants of one second and length would share it
    import scipy.stats  # noqa: F401
    import torch

    from scl.util.shim import torchvision  # noqa: F401  before timm

    torch.set_num_threads(1)
    for name in [name for name in sys.modules if name.split(".")[0] == "scl"]:
        del sys.modules[name]  # a mutant is to be imported


def main() -> int:
    drawn, kept = sample(), BUILD / "results.json"
    prepare_tree()
    results = json.loads(kept.read_text()) if kept.exists() else {}
    key = {name: f"{digest((ROOT / name.split(':')[0]).read_text())[:8]} {name}" for name in drawn}
    for path in SETTINGS["tests"]:
        pending = [
            n
            for n in drawn
            if n.startswith(path) and results.get(key[n]) != "killed" and not (n in EXPLAINED and key[n] in results)
        ]
        if pending and not passes(path, BUILD / "last.log"):
            sys.exit(f"{path}: its tests fail without a mutant; see {BUILD / 'last.log'}")
        for name in pending:
            started = time.monotonic()
            results[key[name]] = judge(path, drawn[name])
            print(f"{results[key[name]]:8} {time.monotonic() - started:4.0f} s  {name}", flush=True)
            kept.write_text(json.dumps(results, indent=1))
    survivors = [name for name in drawn if results[key[name]] == "survived"]
    print("\nsurvivors:", *(f"  {name}\n    {EXPLAINED.get(name, 'NOT EXPLAINED')}" for name in survivors), sep="\n")
    missed = sum(name not in EXPLAINED for name in survivors)
    print(
        f"\n{len(drawn) - len(survivors)} killed, {len(survivors) - missed} explained, {missed} not noticed of "
        f"{len(drawn)}: {1 - missed / len(drawn):.1%}"
    )
    return int(missed > 0.05 * len(drawn))


if __name__ == "__main__":
    sys.exit(main())
