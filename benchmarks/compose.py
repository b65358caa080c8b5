"""From a configuration as written to one mapping: `extends`, `like`, and what is set to null."""

import copy
from pathlib import Path

from scl import settings
from scl.settings import did_you_mean

WORDS = ("origin", "note")  # of a method block: for the reader of the tables, no part of a run


def resolve(source) -> dict:
    """The mapping with what it extends merged in, a method or benchmark set to null left out, and every `like`
    replaced by what it stands for. Raises ValueError for an `extends` or a `like` that leads nowhere."""
    mapping = _extended(source, ())
    for block in ("methods", "benchmarks"):
        if isinstance(mapping.get(block), dict):
            mapping[block] = {k: v for k, v in mapping[block].items() if v is not None}
    methods = mapping.get("methods")
    if isinstance(methods, dict):
        mapping["methods"] = {stage: _likened(methods, stage, ()) for stage in methods}
    return mapping


def _extended(source, seen: tuple) -> dict:
    """seen: the files on the way here."""
    if isinstance(source, dict):
        mapping = copy.deepcopy(source)
    else:
        path = Path(source).resolve()
        if path in seen:
            raise ValueError(f"extends: a circle: {' -> '.join(file.name for file in (*seen, path))}")
        mapping, seen = settings.load_yaml(source), (*seen, path)
    base = mapping.pop("extends", None)
    if base is None:
        return mapping
    if not isinstance(base, (str, Path)):
        raise ValueError(f"extends: expected the name of one file, got {base!r}; that file may extend another")
    return merge(_extended(base, seen), mapping)


def _likened(methods: dict, stage: str, seen: tuple):
    """The block of a stage, merged over that of the stage it is `like`; title, origin and note are its own."""
    block = methods[stage]
    if not isinstance(block, dict) or "like" not in block:
        return block
    own = {key: value for key, value in block.items() if key != "like"}
    other, seen = block["like"], (*seen, stage)
    if other not in methods or other in seen:
        problem = f"a circle: {' -> '.join([*seen, other])}" if other in seen else \
            f"unknown '{other}'{did_you_mean(other, methods)}"
        raise ValueError(f"methods.{stage}.like: {problem}")
    ground = _likened(methods, other, seen)
    return merge({k: v for k, v in ground.items() if k not in ("title", *WORDS)}, own)


def merge(ground: dict, differences: dict) -> dict:
    """Differences win; mappings are merged key by key, lists and values are replaced."""
    merged = dict(ground)
    for key, value in differences.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
