"""Read YAML strictly: no duplicate keys, no cycles, no aliases that expand without bound."""

import re
from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 100_000  # of a file, with every alias expanded
OTHERWISE = re.compile(r"[-+]?0[0-9_]+|.*[:_].*")  # 010 is 8 to PyYAML, 1:30 is 90, and 0_3_2 is 26


_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml, ten times as fast, where PyYAML has it


class _Loader(_Fast):
    """SafeLoader that refuses duplicate keys, of which PyYAML silently keeps the last, and too many aliases."""

    def construct_document(self, node: yaml.Node) -> Any:
        if _check(node, frozenset(), {}) > MOST_VALUES:
            raise _marked(f"aliases expand to more than {MOST_VALUES:,} values; write them out", node)
        return super().construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and OTHERWISE.fullmatch(node.value):
            raise _marked(f"the number {node.value}: write it without a leading zero, ':' and '_'", node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # 2026-02-30, a number of 5,000 digits
            raise _marked(str(error).partition(";")[0], node) from None


def _marked(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _check(node: yaml.Node, around: frozenset, known: dict) -> int:
    """Number of values in `node`, aliases expanded. around: ids of the nodes that contain it; known: counts by id."""
    if id(node) in around:
        raise _marked("an alias contains itself; write it out", node)
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_check(part, around | {id(node)}, known) for part in parts)
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _marked("a key must be a string, not a list or a mapping", key)
        name = (key.tag, key.value)
        if name in seen:
            raise _marked(f"'{key.value}' is given twice; keep one", key)
        seen.add(name)


def load_yaml(path: str | Path) -> dict:
    """Read a YAML mapping. Raises ValueError naming the file, and the line where YAML knows it."""
    path = Path(path)
    text = _read(path)
    try:
        content = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"{path} line {line}: not valid YAML: the character {chr(error.character)!r}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        last = len(text.splitlines())  # libyaml's end of a file is the line after it
        place = f" line {max(1, min(mark.line + 1, last))}" if mark else ""
        raise ValueError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a mapping (keys and values) at the top level")
    return content


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ValueError(f"{path}: cannot read the file: {getattr(error, 'strerror', error)}") from None
