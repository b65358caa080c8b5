"""From a configuration as written to one mapping: `extends`, `like`, and what is set to null.

`extends: FILE` is looked for beside the file that says it, then in the working directory.
Where settings come from is said in words (`origin`, `note`); a file that changes settings and says nothing of it must
not leave the words of the file it extends to stand for them.
"""

import copy
from pathlib import Path

from scl.text import did_you_mean, shown
from scl.yaml_file import load_yaml

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
    """The mapping merged over what it extends; seen: the files on the way here."""
    if isinstance(source, dict):
        mapping, name, folder = copy.deepcopy(source), "the configuration", Path()
    else:
        name = Path(source).name if Path(source).is_absolute() else str(source)
        mapping, folder, seen = load_yaml(source), Path(source).parent, (*seen, Path(source).resolve())
    base = mapping.pop("extends", None)
    if base is None:
        return mapping
    file = found_base(base, folder)
    if file.resolve() in seen:
        circle = " -> ".join(one.name for one in (*seen, file.resolve()))
        raise ValueError(f"extends: a circle: {circle}")
    ground, own = _extended(file, seen), _mapping(mapping.get("methods"))
    if methods := _mapping(ground.get("methods")):
        ground["methods"] = {stage: _reworded(block, own.get(stage), name) for stage, block in methods.items()}
    return merge(ground, mapping)


def found_base(base, folder: Path) -> Path:
    """The file that `extends: base` in a file of `folder` means. Raises ValueError."""
    if not isinstance(base, (str, Path)) or not str(base).isprintable() or not str(base).strip():
        raise ValueError(f"extends: expected the name of one file, got {shown(base)}; that file may extend another")
    places = list(dict.fromkeys([folder / base, Path(base)]))
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"extends: no such file: {' or '.join(map(str, places))}")


def _reworded(ground, own, name: str, around=()):
    """A block (or a part of one) whose origin and note, where `own` gives none, say what `own` changes.

    around: the changes of the whole block, where they concern this part too.
    """
    if not isinstance(ground, dict):
        return ground
    own = _mapping(own)
    changed = around or list(_changes(ground, own))
    told = {word: f"{ground[word]}; changed by {name}: {', '.join(changed)}"
            for word in WORDS if changed and ground.get(word) and word not in own}
    for key, concerned in (("recipes", changed), ("per_benchmark", ())):
        if isinstance(ground.get(key), dict):
            parts = _mapping(own.get(key))
            told[key] = {part: _reworded(inner, parts.get(part), name, concerned)
                         for part, inner in ground[key].items()}
    return {**ground, **told}


def _changes(ground, own: dict, where: str = ""):
    """The dotted keys at which `own` differs from `ground`, but for the words."""
    for key, value in own.items():
        if isinstance(value, dict):
            yield from _changes(_mapping(_mapping(ground).get(key)), value, f"{where}{key}.")
        elif key not in ("title", *WORDS) and value != _mapping(ground).get(key):
            yield f"{where}{key}"


def _mapping(value) -> dict:
    return value if isinstance(value, dict) else {}


def _likened(methods: dict, stage: str, seen: tuple):
    """The block of a stage, merged over that of the stage it is `like`; title, origin and note are its own."""
    block = methods[stage]
    if not isinstance(block, dict) or "like" not in block:
        return block
    own = {key: value for key, value in block.items() if key != "like"}
    other, seen = block["like"], (*seen, stage)
    if not isinstance(other, str) or other not in methods or other in seen:
        problem = f"a circle: {' -> '.join([*seen, other])}" if other in seen else \
            f"unknown {shown(other)}{did_you_mean(other, methods)}"
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
