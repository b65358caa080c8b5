"""Resolve a configuration to one mapping: `extends`, `like`, and entries set to null.

`extends: FILE` is relative to the file that contains it, else to the working directory.
"""

from collections.abc import Iterable
from pathlib import Path

from scl.util.text import did_you_mean, shown
from scl.util.yaml_file import load_yaml

WORDS = ("title", "origin", "note")  # of a method block: for readers of the tables; not part of a run


def resolve(source) -> dict:
    """Merge `source` over the files it extends, drop methods and benchmarks set to null, and expand every `like`.

    The `per_benchmark` settings for a dropped benchmark are dropped with it.

    source: a file, or a mapping. Raises ValueError for an `extends` or a `like` that cannot be resolved.
    """
    mapping: dict = {}
    for _, override in files_of(source):
        mapping = merge(_without_stale_words(mapping, override), override)
    left_out = {name for name, block in _entries(mapping, "benchmarks") if block is None}
    for part in ("methods", "benchmarks"):
        if isinstance(mapping.get(part), dict):
            mapping[part] = {name: block for name, block in mapping[part].items() if block is not None}
    blocks = {stage: _without(left_out, block) for stage, block in _blocks(mapping).items()}
    links = {stage: block.get("like") for stage, block in blocks.items()}
    for stage in blocks:
        merged: dict = {}
        for part in reversed(chain(links, stage, "like")):
            merged = merge(_bare(merged), blocks[part])
        if links[stage] is not None:
            del merged["like"]
        mapping["methods"][stage] = merged
    return mapping


def files_of(source, above: tuple[Path, ...] = ()) -> list[tuple[str, dict]]:
    """(name, mapping) of `source` and of the files it extends, the base first. above: files that extend `source`."""
    if isinstance(source, dict):
        mapping, name, folder = dict(source), "the configuration", Path()
    else:
        path = Path(source)
        mapping, name, folder = load_yaml(path), path.name if path.is_absolute() else str(path), path.parent
        if path.resolve() in above:
            raise ValueError(f"extends: a circle: {' -> '.join(one.name for one in (*above, path))}")
        above = (*above, path.resolve())
    base = mapping.pop("extends", None)
    bases = [] if base is None else files_of(find_base(base, folder), above)
    return [*bases, (name, mapping)]


def find_base(base, folder: Path) -> Path:
    """The file that `extends: base` in a file of `folder` refers to. Raises ValueError."""
    if not isinstance(base, (str, Path)) or not str(base).isprintable() or not str(base).strip():
        raise ValueError(f"extends: expected the name of one file, got {shown(base)}; that file may extend another")
    places = list(dict.fromkeys([folder / base, Path(base)]))
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"extends: no such file: {' or '.join(map(str, places))}")


def chain(links: dict, stage: str, key: str) -> list[str]:
    """`stage`, the stage that its `key` names, and so on. links: {stage: value of `key`}. Raises ValueError."""
    stages = [stage]
    while (other := links[stages[-1]]) is not None:
        where = f"methods.{stages[-1]}.{key}"
        if not isinstance(other, str) or other not in links:
            raise ValueError(f"{where}: unknown {shown(other)}{did_you_mean(other, links)}")
        stages.append(other)
        if other in stages[:-1]:
            raise ValueError(f"{where}: a circle: {' -> '.join(stages)}")
    return stages


def merge(base: dict, override: dict) -> dict:
    """The override wins; mappings are merged key by key, lists and values are replaced."""
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _without_stale_words(base: dict, override: dict) -> dict:
    """`base` without the origin and notes of methods whose settings `override` changes: they would be wrong."""
    merged = merge(base, override)
    old, new = _blocks(base), _blocks(merged)
    all_change = any((base.get(key) or {}) != (merged.get(key) or {}) for key in ("network", "training"))
    changed = {stage for stage, block in old.items() if all_change or _bare(block) != _bare(new.get(stage, {}))}
    while more := {stage for stage, block in old.items() if str(block.get("like")) in changed} - changed:
        changed |= more
    cleared = {stage: _bare(old[stage], ("origin", "note")) for stage in changed}
    return {**base, "methods": {**base["methods"], **cleared}} if changed else base


def _blocks(mapping: dict) -> dict:
    """{stage: block} of the methods; entries that are not blocks are left to the type check."""
    return {stage: block for stage, block in _entries(mapping, "methods") if isinstance(block, dict)}


def _entries(mapping: dict, key: str) -> Iterable:
    return mapping[key].items() if isinstance(mapping.get(key), dict) else ()


def _without(benchmarks: set, block: dict) -> dict:
    """A method block without its `per_benchmark` settings for these benchmarks."""
    parts = block.get("per_benchmark")
    if not isinstance(parts, dict):
        return block
    return {**block, "per_benchmark": {name: part for name, part in parts.items() if name not in benchmarks}}


def _bare(block: dict, words=WORDS) -> dict:
    """A method block without its WORDS, those in `per_benchmark` included."""
    bare = {key: value for key, value in block.items() if key not in words}
    if isinstance(bare.get("per_benchmark"), dict):
        parts = bare["per_benchmark"].items()
        bare["per_benchmark"] = {name: _bare(part, words) if isinstance(part, dict) else part for name, part in parts}
    return bare
