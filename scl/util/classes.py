"""Classes named by dotted paths, also of a user's own file: whatever that file does, the answer is one line."""

import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from scl.engine.io import sha256
from scl.util.text import did_you_mean

ROOT = Path(__file__).resolve().parent.parent
OURS = ("scl", "baselines")  # packages whose methods the commit tells
FAILURES = (Exception, SystemExit)  # what code of the user's own may raise; Ctrl-C is none of them


def source_of(dotted: str, where: str = "method") -> str | None:
    """SHA-256 of the file in which a class of the user's own stands, None for one of ours. Nothing is imported but
    the packages around it. Raises ValueError if there is no such file."""
    module_name = module_of(dotted, where)
    if module_name.split(".")[0] in OURS:
        return None
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):  # what the package around it imports
            raise ValueError(f"{where}: cannot import '{module_name}' for '{dotted}': {described(error)}") from None
        spec = None
    except FAILURES as error:
        raise ValueError(f"{where}: cannot import '{module_name}' for '{dotted}': {described(error)}") from None
    if spec is None or not spec.has_location or not spec.origin:
        raise ValueError(f"{where}: cannot import '{module_name}' for '{dotted}': no such file on the Python path")
    return sha256(spec.origin)


def find_class(dotted: str, where: str = "method") -> type[Any]:
    """The class at a dotted path, e.g. 'scl.scl.SCL' or 'my_file.MyMethod'. Raises ValueError."""
    module_name, name = module_of(dotted, where), dotted.rpartition(".")[2]
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, name, None)
    except FAILURES as error:
        raise ValueError(f"{where}: cannot import '{module_name}' for '{dotted}': {described(error)}") from None
    if not isinstance(found, type):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name]
        raise ValueError(f"{where}: '{module_name}' has no class '{name}'{did_you_mean(name, known)}")
    return found


def module_of(dotted: str, where: str) -> str:
    """The part before the last dot. Raises ValueError, with the dotted path where that can be guessed."""
    names = dotted.split(".")
    if len(names) > 1 and all(map(str.isidentifier, names)):
        return dotted.rpartition(".")[0]
    parts = re.findall(r"\w+", dotted.replace(".py", ""))
    if len(parts) < 2 or dotted.endswith(".py"):
        parts = [*(parts or ["my_file"]), "MyMethod"]
    if dotted.startswith(("/", "~")):
        parts = parts[-2:]
    hint = f"; write it as '{'.'.join(parts)}'" if all(map(str.isidentifier, parts)) else ""
    raise ValueError(
        f"{where}: {dotted!r} is not a dotted path such as 'scl.scl.SCL': the file without '.py', in "
        f"the working directory or on PYTHONPATH, then the class{hint}"
    )


def described(error: BaseException) -> str:
    """What went wrong in code of the user's own, with file and line where they are known."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename} line {error.lineno}: " if error.filename and error.lineno else ""
        return f"{place}{type(error).__name__}: {error.msg}"
    if isinstance(error, ModuleNotFoundError):
        return str(error)
    message = str(error).partition("\n\n")[0]  # pydantic adds paragraphs
    problem = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SystemExit):
        problem = "ends the program (SystemExit, sys.exit); take that out"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
    return f"{frames[-1].filename} line {frames[-1].lineno}: {problem}" if frames else problem


def _ours(file: str) -> bool:
    """Whether a frame is of Python, of an installed package or of this project: not what the user wrote."""
    folders = (sys.prefix, sys.base_prefix, *(ROOT / name for name in (*OURS, "benchmarks")))
    return "/site-packages/" in file or file.startswith(("<", *(f"{folder}/" for folder in folders)))
