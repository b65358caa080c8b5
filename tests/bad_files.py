"""The table of bad files: invalid YAML, `extends` without a target, custom methods, and arguments.

Data only, like bad_inputs.py: tests/test_bad_input_cli.py runs it.
"""

from bad_inputs import GOOD, Case, case, dump, put

# --- YAML --------------------------------------------------------------------------------------------------------

TEXT = dump(GOOD)
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi")
)
YAML = {  # name: (content of study.yaml, words)
    "no mapping": ("[1, 2]\n", "study.yaml"),
    "empty": ("", "study.yaml"),
    "one word": ("word\n", "study.yaml"),
    "null": ("null\n", "study.yaml"),
    "two documents": (TEXT + "---\n" + TEXT, "study.yaml", "line"),
    "not closed": ("seeds: [0\nmethods: {", "study.yaml", "line"),
    "a tab": ("seeds:\n\t- 1\n", "study.yaml line 2"),
    "a key given twice": (TEXT + "seeds: 2\n", "study.yaml line", "seeds"),
    "a key given twice, deep": ("methods: {scl: {options: {a: 1, a: 2}}}\n", "study.yaml line 1", "'a'"),
    "UTF-16": (TEXT.encode("utf-16"), "study.yaml", "UTF-8"),
    "Latin-1": (TEXT.encode() + "title: Größe\n".encode("latin-1"), "study.yaml", "UTF-8"),
    "binary": (bytes(range(256)) * 4, "study.yaml"),
    "a null byte": (TEXT + "title: a\0b\n", "study.yaml line"),
    "a null byte first": ("\0" + TEXT, "study.yaml line 1"),
    "an escape character": (TEXT + "title: a\x1b[31mb\n", "study.yaml line"),
    "contains itself, a list": (TEXT + "title: &a [*a]\n", "study.yaml line", "itself"),
    "contains itself, a mapping": ("training: &a\n  b: *a\n", "study.yaml line", "itself"),
    "contains itself, merged": ("training: &a\n  <<: *a\n", "study.yaml line", "itself"),
    "contains itself, deep": (TEXT + "downloads: &a {mirrors: {x: [1, {y: *a}]}}\n", "study.yaml line", "itself"),
    "contains itself, in a method": ("methods: &a {scl: {options: {a: *a}}}\n", "study.yaml line", "itself"),
    "aliases that grow": (BOMB, "study.yaml", "aliases"),
    "merges that grow": (MERGES, "study.yaml", "aliases"),
    "aliases that grow in a key": (BOMB + "? *i\n: 1\n", "study.yaml"),
    "unknown alias": ("title: *nowhere\n", "study.yaml line 1"),
    "a key that is a list": ("? [a]\n: 1\n", "study.yaml line 1"),
    "a key that is a mapping": ("? {a: 1}\n: 1\n", "study.yaml line 1"),
    "nested deep, lists": ("title: " + "[" * 5000 + "]" * 5000 + "\n", "study.yaml", "nest"),
    "nested deep, mappings": ("title: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n", "study.yaml", "nest"),
    "a number of 5,000 digits": (TEXT + "title: " + "9" * 5000 + "\n", "study.yaml line"),
    "a number of 5,000 hex digits": (TEXT + "title: 0x" + "f" * 5000 + "\n", "title"),
    "a day that is none": (TEXT + "title: 2026-02-30\n", "study.yaml line"),
    "a date": (TEXT + "title: 2026-02-03\n", "title"),
    "a date in options": (
        dump(put(GOOD, "methods.own", "DATE")).replace(
            "DATE", "{method: baselines.simclr.SimCLR, options: {temperature: 2026-02-03}}"
        ),
        "methods.own.options.temperature",
    ),
    "bytes": (TEXT + "title: !!binary aGFsbG8=\n", "title"),
    "bytes that are none": (TEXT + "title: !!binary a\n", "study.yaml line"),
    "a set": (TEXT + "title: !!set {a, b}\n", "title"),
    "an object of Python": (TEXT + "title: !!python/object/apply:os.system ['touch made']\n", "study.yaml line"),
    "an unknown tag": (TEXT + "title: !mine x\n", "study.yaml line"),
    "no integer": (TEXT + "seeds: !!int x\n", "study.yaml line"),
    "no number": ("title: !!float x\n", "study.yaml line 1"),
    "a text of newlines": (TEXT + 'reference: "a\\n\\nb\\x1b[31m"\n', "reference"),
}


def of_yaml():
    for name, (content, *words) in YAML.items():
        yield f"YAML: {name}", Case({"study.yaml": content}, tuple(words))
    yield "a configuration that is not there", Case({}, ("study.yaml", "No such file"))
    yield "a configuration that is a folder", Case({"study.yaml": None}, ("study.yaml",))
    yield "a configuration below a file", Case({"a": "x"}, ("a/study.yaml",), ("plan", "a/study.yaml"))
    yield "a configuration without a name", Case({}, (), ("plan", ""))
    yield "a name with a null byte", Case({}, ("file",), ("plan", "a\0b"))


# --- extends -----------------------------------------------------------------------------------------------------


def extending(base, files, *words):
    return Case({"study.yaml": f"extends: {base}\n", **files}, words)


EXTENDS = {
    "nothing there": extending("base.yaml", {}, "extends", "base.yaml"),
    "a folder": extending("base", {"base": None}, "base"),
    "itself": extending("study.yaml", {}, "extends", "study.yaml"),
    "an empty name": extending("''", {}, "extends"),
    "a circle": extending(
        "a.yaml", {"a.yaml": "extends: b.yaml\n", "b.yaml": "extends: a.yaml\n"}, "extends", "a.yaml"
    ),
    "no mapping": extending("base.yaml", {"base.yaml": "[1]\n"}, "base.yaml"),
    "a null byte in it": extending("base.yaml", {"base.yaml": "a\0: 1\n"}, "base.yaml line 1"),
    "Latin-1 in it": extending("base.yaml", {"base.yaml": "title: Größe\n".encode("latin-1")}, "base.yaml", "UTF-8"),
    "a name with a null byte": extending('"a\\0b"', {}, "extends"),
    "nothing there, two files away": extending(
        "sub/base.yaml", {"sub/base.yaml": "extends: gone.yaml\n"}, "gone.yaml", "sub"
    ),
    "methods that are none": extending("base.yaml", {"base.yaml": dump(put(GOOD, "methods", [1]))}, "methods"),
    "a block that is none": extending("base.yaml", {"base.yaml": dump(put(GOOD, "methods.scl", 5))}, "methods.scl"),
    "parts that are none": Case(
        {"study.yaml": "extends: base.yaml\nmethods: {scl: {options: 5, per_benchmark: [1]}}\n", "base.yaml": TEXT},
        ("methods.scl",),
    ),
}

# --- custom methods ----------------------------------------------------------------------------------------------

NAMED = (
    "my_file.py",
    "./my_file.MyMethod",
    "my_file/MyMethod",
    "my/file.MyMethod",
    "/tmp/my_file.py",
    "..x.Y",
    ".x.Y",
    "my_file",
    "",
    ".",
    "..",
    "my_file.",
    "my file.MyMethod",
    "my-file.MyMethod",
    "my_file.MyMethod()",
    "my_file:MyMethod",
    "my_file\\MyMethod",
    "~/my_file.MyMethod",
    "a..b",
    "1.2",
    "my_file.MyMethod\n",
    "my\0file.MyMethod",
    "nowhere.at_all.Own",
    "__main__.X",
    "sys.X",
    "json.JSONEncoder",
    "collections.OrderedDict",
    "scl.scl.SLC",
    "scl.scl",
    "scl.scl.SCL.Options",
    "baselines.nothing.X",
    "scl.losses.balance",
    "my_file.MyMethod.Inner",
    "my_file.function",
    "my_file.number",
    "my_file.Other",
    "my_file.Mine",
    "my_file.NoMethod",
    "package.MyMethod",
)
OWN = """
from dataclasses import dataclass, field
from scl.method import Method
from baselines.controls import Random as Other
number = 5
def function(): pass
class NoMethod: pass
class MyMethod(Method):
    class Inner(Method): pass
"""
HEAD = (
    "from typing import *\nfrom pydantic import Field, model_validator\nfrom scl.method import Method\n"
    "from scl.config import MethodOptions\nimport torch\n"
)
CHECK = "a: int = 0\n    @model_validator(mode='after')\n    def check(self): raise "
TAIL = "class Own(Method):\n    Options = Options\n    def assign(self, images): return images\n"
IMPORTS = {  # what a file does on import: (source, words)
    "syntax": ("x = (\n", "line 1"),
    "indentation": ("class Own:\nx = 1\n", "line 2"),
    "a null byte": ("x = 1\0\n",),
    "Latin-1": ("x = 'Größe'\n".encode("latin-1"),),
    "undefined": ("x = 1\ny = undefined\n", "line 2", "NameError"),
    "division": ("1 / 0\n", "line 1", "ZeroDivisionError"),
    "exit": ("import sys\nsys.exit()\n", "line 2", "exit"),
    "exit 0": ("import sys\nsys.exit(0)\n", "line 2", "exit"),
    "exit with a text": ("raise SystemExit('bye')\n", "line 1", "exit"),
    "exit of a parser": ("import argparse\nargparse.ArgumentParser().parse_args(['--help'])\n", "exit"),
    "missing package": ("import not_installed_at_all\n", "not_installed_at_all"),
    "missing name": ("from scl.method import Metod\n", "Metod"),
    "ValueError": ("raise ValueError('no')\n", "line 1", "no"),
    "OSError": ("open('gone.txt')\n", "line 1", "gone.txt"),
    "memory": ("raise MemoryError\n", "MemoryError"),
    "recursion": ("def f(): f()\nf()\n", "RecursionError"),
    "two lines": ("raise RuntimeError('a\\nb')\n", "RuntimeError"),
    "no such class": (HEAD + "class Mine(Method): pass\n", "Own"),
    "stop": ("raise StopIteration\n", "StopIteration"),
    "no names at all": ("def __getattr__(name): raise KeyError(name)\n", "Own"),
    "exit on a look": ("def __getattr__(name): raise SystemExit\n", "exit"),
    "a class that cannot be": ("class Own(5): pass\n", "line 1", "TypeError"),
    "a mutable default": (
        HEAD + "from dataclasses import dataclass\n@dataclass\nclass Options:\n    a: list = []\n" + TAIL,
        "ValueError",
    ),
    "a kind of class that fails": (
        HEAD + "class Meta(type(Method)):\n    @property\n"
        "    def augmentations(cls): return 1 / 0\n"
        "class Own(Method, metaclass=Meta): pass\n",
        "ZeroDivisionError",
    ),
}
CLASSES = {  # the body of the class
    "Options: no model": ("class Options: pass", "options"),
    "Options: a dataclass": (
        "from dataclasses import dataclass\n    @dataclass(frozen=True)\n    class Options: a: int = 1",
        "options",
        "MethodOptions",
    ),
    "Options: a mapping": ("Options = {'a': 1}", "options"),
    "Options: none": ("Options = None", "options"),
    "Options: an object": ("Options = Other.Options()", "options"),
    "Options: a property": ("Options = property(lambda self: 1 / 0)", "options"),
    "augmentations: a text": ("augmentations = 'view'", "augmentations"),
    "augmentations: a number": ("augmentations = 3", "augmentations"),
    "augmentations: not texts": ("augmentations = ('view', 3)", "augmentations"),
    "augmentations: none": ("augmentations = None", "augmentations"),
    "no step": ("", "epochs"),
    "no assign": ("", "assign"),
    "assign that is none": ("assign = 3", "assign"),
    "step without a view": ("def step(self, views, index): pass\n    def assign(self, images): pass", "augmentations"),
    "uses an augmentation": ("augmentations = ('view',)", "augment.view"),
}
OPTIONS = {  # the body of its options: (source, options in the configuration, words)
    "a default that fails": ("a: list = Field(default_factory=lambda: 1 / 0)", {}, "ZeroDivisionError"),
    "a check that refuses": (CHECK + "ValueError('a: too small')", {}, "options.a: too small"),
    "a check that fails": (CHECK + "KeyError('b')", {}, "KeyError"),
    "a check that ends": (CHECK + "SystemExit", {}, "exit"),
    "a type that is not there": ("a: 'Nothing' = 0", {}, "Nothing"),
    "a type of torch": ("a: torch.Tensor = None", {"a": 1}, "own_file.py", "Tensor"),
    "any callable": ("a: Callable = print", {"a": "x"}, "options.a"),
    "a choice": ("a: Literal['x', 'y'] = 'x'", {"a": "z"}, "options.a"),
    "a missing one": ("a: int", {}, "options.a"),
    "an unknown one": ("alpha: int = 1", {"alfa": 1}, "options.alfa"),
    "a default that is no setting": ("a: object = Field(default_factory=object)", {}, "options"),
    "a default that cannot be copied": ("a: object = Field(default_factory=lambda: (x for x in 'ab'))", {}, "options"),
    "a default that run.yaml cannot hold": ("a: dict[int, float] = {1: 2.0}", {}, "options.a.1: must be an integer"),
    "one that may not be given": ("a: ClassVar[int] = 1", {"a": 2}, "options.a"),
    "a wrong one in a list": ("a: list[int] = []", {"a": [1, "x"]}, "options.a[1]"),
    "a wrong one in a mapping": ("a: dict[str, int] = {}", {"a": {"b": "x"}}, "options.a.b"),
}


def own(name, source, *words, **changes):
    """A case with the method `own_file.Own`, whose file contains `source`."""
    block = {"method": "own_file.Own", **changes}
    return name, case({"methods.mine": block}, "methods.mine", *words, files={"own_file.py": source})


def of_methods():
    there = {"my_file.py": OWN, "my/file.py": OWN, "package/__init__.py": "raise SystemExit(0)\n"}
    for name in NAMED:
        yield f"method: {name!r}", case({"methods.mine.method": name}, "methods.mine.method", files=there)
    for first, word in (("raise SystemExit(0)\n", "exit"), ("1 / 0\n", "ZeroDivision")):
        package = {"package/__init__.py": first, "package/file.py": OWN}
        inside = {"methods.mine.method": "package.file.Own"}
        yield f"method in a package: {word}", case(inside, "methods.mine.method", word, files=package)
    for name, (source, *words) in IMPORTS.items():
        yield own(f"own file: {name}", source, "own_file", *words)
    for name, (body, *words) in CLASSES.items():
        source = f"{HEAD}from scl.method import Method as Other\nclass Own(Method):\n    {body or 'pass'}\n"
        source += "" if "assign" in name + body else "    def assign(self, images): return images\n"
        yield own(f"own class: {name}", source, *words, **({"training": {"epochs": 1}} if "step" in name else {}))
    for name, (body, options, *words) in OPTIONS.items():
        source = f"{HEAD}class Options(MethodOptions):\n    {body}\n{TAIL}"
        yield own(f"own options: {name}", source, *words, options=options)


RUNS = {  # run.yaml of a run trained by hand: content, words
    "no mapping": ("[1]\n",),
    "Latin-1": ("stage: Größe\n".encode("latin-1"), "UTF-8"),
    "cut": ("benchmark: {a", "line 1"),
    "a null byte": ("stage: a\0\n", "line 1"),
    "contains itself": ("network: &a {b: *a}\n", "itself"),
    "nothing in it": ("{}\n", "benchmark"),
    "an unknown key": ("stege: scl\n", "stege", "stage"),
    "a wrong type": ("seed: x\nbenchmark: a\nprotocol: joint\nstage: b\nmethod: c.D\ndata: d\n", "seed"),
}


def of_runs():
    for name, (content, *words) in RUNS.items():
        command = ("train", "run", "--gpus", "0")
        yield f"run.yaml: {name}", Case({"run/run.yaml": content}, ("run/run.yaml", *words), command)


# --- arguments ---------------------------------------------------------------------------------------------------

ARGUMENTS = {  # command line: words of the message
    "": "COMMAND",
    "plna": "plna",
    "plan a b": "b",
    "plan --what": "--what",
    "train": "run",
    "train nowhere": "nowhere/run.yaml",
    "evaluate nowhere": "nowhere/run.yaml",
    "evaluate study.yaml": "study.yaml/run.yaml",
    "kmeans nowhere": "nowhere/run.yaml",
    "kmeans .": "run.yaml",
    "train -rf": "run",
    "train nowhere --threads 0": "--threads",
    "train nowhere --threads -1": "--threads",
    "train nowhere --threads two": "--threads",
    "train nowhere --threads 1.5": "--threads",
    "train nowhere --threads 1000000000": "--threads",
    "train nowhere --gpus -1": "--gpus",
    "train nowhere --gpus 1000000": "--gpus",
    "train nowhere --runs-per-gpu 0": "--runs-per-gpu",
    "train nowhere --runs-per-gpu -3": "--runs-per-gpu",
    "train nowhere --checkpoint-seconds nan": "--checkpoint-seconds",
    "train nowhere --checkpoint-seconds -1": "--checkpoint-seconds",
    "train nowhere --checkpoint-seconds inf": "--checkpoint-seconds",
    "train nowhere --checkpoint-seconds x": "--checkpoint-seconds",
    "run": "BENCHMARK/PROTOCOL/STAGE/SEED",
    "run study.yaml --study study.yaml": "BENCHMARK/PROTOCOL/STAGE/SEED",
    "run tiny/joint/scl --study study.yaml": "such as tiny/joint/scl/0",
    "run tyni/joint/scl/0 --study study.yaml": "such as tiny/joint/scl/0",
    "run tiny/jiont/scl/0 --study study.yaml": "such as tiny/joint/scl/0",
    "run tiny/joint/slc/0 --study study.yaml": "such as tiny/joint/scl/0",
    "run tiny/joint/scl/-1 --study study.yaml": "such as tiny/joint/scl/0",
    "run tiny/joint/scl/seed0 --study study.yaml": "such as tiny/joint/scl/0",
    "run tiny/joint/scl/0 --study nowhere.yaml": "nowhere.yaml",
    "run tiny/joint/scl/0 --gpus -1": "--gpus",
    "run tiny/joint/scl/0 --threads 0": "--threads",
    "bench study.yaml --batch-size 0": "--batch-size",
    "bench study.yaml --batch-size 1": "--batch-size",
    "bench study.yaml --batch-size 1000000000": "--batch-size",
    "bench study.yaml --size 0": "--size",
    "bench study.yaml --size -32": "--size",
    "bench study.yaml --size 100000": "--size",
    "bench study.yaml --rounds 0": "--rounds",
    "bench study.yaml --threads 0": "--threads",
    "bench study.yaml --workers -1": "--workers",
    "bench study.yaml --gpus -1": "--gpus",
    "bench study.yaml --workers 1000000": "--workers",
    "bench study.yaml --precision fp8": "--precision",
    "bench study.yaml --method nothing": "nothing",
    "bench study.yaml --method random --quick --gpus 0": "random",
    "bench study.yaml --quick --out .": "--out",
    "report study.yaml --part tabels": "--part",
    "prepare tyni --study study.yaml": "tyni",
    "prepare": "benchmark",
    "download nothing.zip --study study.yaml": "nothing.zip",
}


def of_arguments():
    for line, *words in ARGUMENTS.items():
        yield f"scl {line}", Case({"study.yaml": TEXT}, tuple(words), tuple(line.split()))


def files():
    """{name: Case} for everything other than single keys of a configuration."""
    extends = {f"extends: {name}": one for name, one in EXTENDS.items()}
    return dict([*of_yaml(), *extends.items(), *of_methods(), *of_runs(), *of_arguments()])
