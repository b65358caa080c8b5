"""Sampled mutation testing (`make mutation`): would the tests notice a mistake in the code that trains and scores?

cosmic-ray makes the mutants; this file draws a sample, runs the tests that mutation.toml names for the mutant's file,
and prints the score and the survivors. Each mutant is tested in a copy of the tree, in a fork of this process, which
has imported torch once. Results are kept in build/mutation, so the command resumes; a rerun tests only the survivors
that are not explained (and all mutants of changed files).
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
    """All mutants of a file: {'path: original line -> mutated line': source}."""
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
    """'original line -> mutated line'."""
    lines = list(difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm=""))[2:]
    was, becomes = (" ".join(" ".join(line[1:].split()) for line in lines if line[0] == sign).strip() for sign in "-+")
    return f"{was} -> {becomes or '(nothing)'}"


def compiles(source: str) -> bool:
    try:
        return bool(compile(source, "mutant", "exec"))
    except SyntaxError:
        return False


def sample() -> dict[str, str]:
    """The mutants with the smallest hashes, so that a change to one file keeps the sample from the others."""
    everything = {name: code for path in SETTINGS["tests"] for name, code in mutants(path).items()}
    drawn = sorted(everything, key=lambda name: digest(f"{SETTINGS['seed']} {name}"))[: SETTINGS["mutants"]]
    print(f"{len(drawn)} of {len(everything)} mutants", flush=True)
    for name in EXPLAINED.keys() - everything:
        print(f"explained, but there is no such mutant any more; delete it from mutation.toml: {name}")
    return {name: everything[name] for name in drawn}


def passes(path: str, log: Path) -> bool:
    """Whether the tests of a file pass, in a fork with a limit on CPU seconds."""
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
    """Copy what the tests need, make it the working directory and first on the path, and import slow modules."""
    tree = BUILD / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("scl", "baselines", "benchmarks", "tests", "config", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    os.chdir(tree)
    sys.path[0] = str(tree)
    sys.dont_write_bytecode = True  # mutants with equal mtime (in seconds) and length would share it
    import scipy.stats  # noqa: F401
    import torch

    from scl.util.shim import torchvision  # noqa: F401  before timm

    torch.set_num_threads(1)
    for name in [name for name in sys.modules if name.split(".")[0] == "scl"]:
        del sys.modules[name]  # so that the mutant is imported


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
