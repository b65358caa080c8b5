"""From a configuration as written to one mapping: `extends`, `like`, and what is set to null.

`extends: FILE` is looked for beside the file that says it, then in the working directory.
"""

import copy
from pathlib import Path

from scl.util.text import did_you_mean, shown
from scl.util.yaml_file import load_yaml

WORDS = ("title", "origin", "note")  # of a method block: for the reader of the tables, no part of a run


def resolve(source) -> dict:
    """The mapping with what it extends merged in, a method or benchmark set to null left out, and every `like`
    replaced by what it stands for. Raises ValueError for an `extends` or a `like` that leads nowhere."""
    (_, mapping), *files = files_of(source)
    for name, own in files:
        mapping = merge(_without_stale_words(mapping, own, name), own)
    for block in ("methods", "benchmarks"):
        if isinstance(mapping.get(block), dict):
            mapping[block] = {k: v for k, v in mapping[block].items() if v is not None}
    methods = mapping.get("methods")
    if isinstance(methods, dict):
        mapping["methods"] = {stage: _likened(methods, stage, ()) for stage in methods}
    return mapping


def files_of(source) -> list[tuple[str, dict]]:
    """(name, mapping) of `source` and of what it extends, the furthest first. source: a file, or a mapping."""
    files: list[tuple[str, dict]] = []
    seen: list[Path] = []
    while source is not None:
        if isinstance(source, dict):
            mapping, name, folder = copy.deepcopy(source), "the configuration", Path()
        else:
            mapping, folder = load_yaml(source), Path(source).parent
            name = Path(source).name if Path(source).is_absolute() else str(source)
            seen.append(Path(source).resolve())
            if seen[-1] in seen[:-1]:
                raise ValueError(f"extends: a circle: {' -> '.join(one.name for one in seen)}")
        base = mapping.pop("extends", None)
        files.insert(0, (name, mapping))
        source = None if base is None else found_base(base, folder)
    return files


def found_base(base, folder: Path) -> Path:
    """The file that `extends: base` in a file of `folder` means. Raises ValueError."""
    if not isinstance(base, (str, Path)) or not str(base).isprintable() or not str(base).strip():
        raise ValueError(f"extends: expected the name of one file, got {shown(base)}; that file may extend another")
    places = list(dict.fromkeys([folder / base, Path(base)]))
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"extends: no such file: {' or '.join(map(str, places))}")


def _without_stale_words(base: dict, own: dict, file: str) -> dict:
    """The base as `file` extends it: origin and notes of a method whose settings the file changes do not hold."""
    blocks = {stage: block for stage, block in _mapping(base.get("methods")).items() if isinstance(block, dict)}
    shared = {key: own[key] for key in ("network", "training") if own.get(key)}
    everywhere, changes = merge(base, shared) != base, _mapping(own.get("methods"))
    changed = {
        stage
        for stage, block in blocks.items()
        if everywhere or merge(_bare(block), _mapping(_bare(changes.get(stage)))) != _bare(block)
    }
    while more := {stage for stage, block in blocks.items() if str(block.get("like")) in changed} - changed:
        changed |= more
    for stage in changed:
        words = {"title": blocks[stage].get("title"), "origin": blocks[stage].get("origin") and f"settings of {file}"}
        blocks[stage] = _bare(blocks[stage]) | {word: text for word, text in words.items() if text}
    return {**base, "methods": {**base["methods"], **blocks}} if changed else base


def _mapping(value) -> dict:
    return value if isinstance(value, dict) else {}


def _bare(block):
    """A method block without its words, those of `per_benchmark` included."""
    if not isinstance(block, dict):
        return block
    bare = {key: value for key, value in block.items() if key not in WORDS}
    if isinstance(bare.get("per_benchmark"), dict):
        bare["per_benchmark"] = {name: _bare(part) for name, part in bare["per_benchmark"].items()}
    return bare


def _likened(methods: dict, stage: str, seen: tuple):
    """The block of a stage, merged over that of the stage it is `like`; title, origin and note are its own."""
    block = methods[stage]
    if not isinstance(block, dict) or "like" not in block:
        return block
    own = {key: value for key, value in block.items() if key != "like"}
    other, seen = block["like"], (*seen, stage)
    if not isinstance(other, str) or other not in methods or other in seen:
        problem = (
            f"a circle: {' -> '.join([*seen, other])}"
            if other in seen
            else f"unknown {shown(other)}{did_you_mean(other, methods)}"
        )
        raise ValueError(f"methods.{stage}.like: {problem}")
    ground = _likened(methods, other, seen)
    return merge(_bare(ground), own) if isinstance(ground, dict) else ground


def merge(ground: dict, differences: dict) -> dict:
    """Differences win; mappings are merged key by key, lists and values are replaced."""
    merged = dict(ground)
    for key, value in differences.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
