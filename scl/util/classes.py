"""Find classes by dotted path, including in custom files; whatever such a file does, the error is one line."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from scl.engine.io import sha256
from scl.util.text import did_you_mean

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = ("scl", "baselines")  # packages whose methods are versioned by the commit
FAILURES = (Exception, SystemExit)  # what custom code may raise; Ctrl-C is not among them


def source_of(dotted: str, where: str = "method") -> str | None:
    """SHA-256 of the file that defines a custom class, None for a built-in one. Imports only the packages around it.

    Raises ValueError if there is no such file.
    """
    module_name = _module_of(dotted, where)
    if _is_built_in(module_name):
        return None
    try:
        spec = importlib.util.find_spec(module_name)
        if spec is None or not spec.has_location or not spec.origin:
            raise ModuleNotFoundError(name=module_name)
    except FAILURES as error:
        raise _cannot_import(dotted, where, error) from None
    return sha256(spec.origin)


def find_class(dotted: str, where: str = "method") -> type[Any]:
    """The class at a dotted path, e.g. 'scl.scl.SCL' or 'my_file.MyMethod'. Raises ValueError."""
    module_name, name = _module_of(dotted, where), dotted.rpartition(".")[2]
    try:
        module = importlib.import_module(module_name)
        result = getattr(module, name, None)
    except FAILURES as error:
        raise _cannot_import(dotted, where, error) from None
    if not isinstance(result, type):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name]
        raise ValueError(f"{where}: '{module_name}' has no class '{name}'{did_you_mean(name, known)}")
    if not _is_built_in(module_name) and result.__module__ == module_name and result not in _FOUND:
        _FOUND[result] = source_of(dotted, where)
    return result


def _is_built_in(module_name: str) -> bool:
    return module_name.split(".")[0] in BUILT_IN


_FOUND: dict[type, str | None] = {}  # checksum of the file of a custom class when it was first found


def was_edited(dotted: str) -> bool:
    """Whether the file of a custom class has changed since this process found it: it still has the old class."""
    return _FOUND.get(find_class(dotted)) != source_of(dotted)


def _module_of(dotted: str, where: str) -> str:
    """The part of a dotted path before its last dot. Raises ValueError if it is not a dotted path."""
    module_name, _, _ = dotted.rpartition(".")
    if not module_name or not all(map(str.isidentifier, dotted.split("."))) or dotted.endswith(".py"):
        raise ValueError(
            f"{where}: {dotted!r} is not a dotted path such as 'scl.scl.SCL'; write the file without '.py', in the "
            "working directory or on PYTHONPATH, then a dot and the class"
        )
    return module_name


def _cannot_import(dotted: str, where: str, error: BaseException) -> ValueError:
    module_name, problem = dotted.rpartition(".")[0], describe_error(error)
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        problem = f"no such file in the working directory, {Path.cwd()}, or on PYTHONPATH"
    return ValueError(f"{where}: cannot import '{module_name}' for '{dotted}': {problem}")


def describe_error(error: BaseException) -> str:
    """What went wrong in custom code, with file and line where they are known."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename} line {error.lineno}: " if error.filename and error.lineno else ""
        return f"{place}{type(error).__name__}: {error.msg}"
    if isinstance(error, ModuleNotFoundError):
        return str(error)
    message = str(error).partition("\n\n")[0]  # pydantic adds paragraphs
    problem = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SystemExit):
        problem = "ends the program (SystemExit, sys.exit); remove that"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_custom(frame.filename)]
    return f"{frames[-1].filename} line {frames[-1].lineno}: {problem}" if frames else problem


def _is_custom(file: str) -> bool:
    """Whether a frame belongs to the user, not to Python, an installed package or this project."""
    folders = (sys.prefix, sys.base_prefix, *(ROOT / name for name in (*BUILT_IN, "benchmarks")))
    return "/site-packages/" not in file and not file.startswith(("<", *(f"{folder}/" for folder in folders)))
