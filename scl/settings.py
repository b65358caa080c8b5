"""The settings of one run as frozen dataclasses, and the reader that fills them from YAML.

A run is fully described by its `run.yaml`; `RunSettings` is that file. The reader refuses unknown keys and
wrong types with one message that names the place and the nearest known key. Torch is not imported here.
"""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from scl.record import sha256

OURS = ("scl", "baselines")  # packages whose methods the commit tells


@dataclass(frozen=True)
class Network:
    """Encoder of every method. backbone: a timm ResNet; width: channels of the stem (64 = the ordinary net)."""

    backbone: str = "resnet18"
    width: int = 64
    layers: list[int] | None = None  # blocks a stage; None = the backbone's own
    pool: bool | None = None  # a 2x2 max-pool in the stem; None = by image size: from 33 px on
    sobel: bool = False  # PICA's official input: grey, two fixed Sobel channels
    pica_initialisation: bool = False  # PICA's official initialisation of convolutions and linear layers


@dataclass(frozen=True)
class Training:
    """How long, how large, how fast. Learning-rate schedules step once an epoch, as in the official recipes."""

    epochs: int = 0
    batch_size: int = 256
    optimizer: str = "sgd"  # sgd | adam
    learning_rate: float = 0.1
    final_learning_rate: float = 0.0
    schedule: str = "cosine"  # cosine | constant
    momentum: float = 0.9  # sgd only
    weight_decay: float = 0.0
    precision: str = "auto"  # auto | fp32 | bf16: auto is bf16 where the hardware has it, see scl.precision
    compile: bool = False  # torch.compile of the encoder
    curve_points: int = 10  # assignments kept on the way, for the curves


@dataclass(frozen=True)
class RunSettings:
    """One run: a stage of a method, on one benchmark under one protocol, from one seed."""

    benchmark: str
    protocol: str
    stage: str
    seed: int
    method: str  # dotted path of a scl.contract.Method
    data: str  # folder that holds images.npy and benchmark.json
    after: str | None = None  # folder of the run whose weights this one starts from
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    augment: dict[str, list] = field(default_factory=dict)
    options: dict[str, typing.Any] = field(default_factory=dict)
    version: int | None = None  # of the method: raised when its mathematics changes
    method_source: str | None = None  # SHA-256 of the file of a user's own method: the commit tells only ours


CHOICES = {
    "optimizer": ("sgd", "adam"),
    "schedule": ("cosine", "constant"),
    "precision": ("auto", "fp32", "bf16"),
}
LEAST = {"epochs": 0, "batch_size": 2, "learning_rate": 0, "final_learning_rate": 0, "weight_decay": 0, "seed": 0,
         "width": 4, "curve_points": 1}


def did_you_mean(word, known) -> str:
    """' (did you mean ...?)', or the list of what is known."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else f"; known: {', '.join(map(str, known)) or 'none'}"


def read(cls, mapping, where=""):
    """Fill the dataclass `cls` from a mapping; `where` is the place named in messages.

    Raises ValueError for unknown or missing keys, wrong types and values out of range.
    """
    if not isinstance(mapping, dict):
        raise ValueError(f"{where or cls.__name__}: expected keys and values, got {mapping!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            raise ValueError(f"{_join(where, key)}: unknown key{did_you_mean(key, fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            raise ValueError(f"{_join(where, name)}: missing")
    values = {key: convert(value, hints[key], _join(where, key)) for key, value in mapping.items()}
    for key, value in values.items():
        _check_value(cls, key, value, where)
    return cls(**values)


def refuse_non_finite(value, where="") -> None:
    """Raises ValueError for a NaN or an infinity anywhere in nested mappings and lists."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value}")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        refuse_non_finite(one, _join(where, key))


def convert(value, hint, where):
    """`value` as the type `hint`, or ValueError. An int is taken where a float is wanted; nothing else is bent."""
    if hint is typing.Any:
        return value
    if dataclasses.is_dataclass(hint):
        return read(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin in (list, tuple) or hint is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        if not arguments:
            return value
        return [convert(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected keys and values, got {value!r}")
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{_join(where, key)}: a name is a text; write it in quotes: '{key}'")
        return {k: convert(v, arguments[1], _join(where, k)) if arguments else v for k, v in value.items()}
    return _convert_scalar(value, hint, where)


def _convert_union(value, arguments, where):
    if value is None and type(None) in arguments:
        return None
    message = None
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return convert(value, argument, where)
        except ValueError as error:
            message = message or error
    raise message


def _convert_scalar(value, hint, where):
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        raise ValueError(f"{where}: expected a number, got the text {value!r} (YAML reads 1e-4 as text: write 1.0e-4)")
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise ValueError(f"{where}: expected {names.get(hint, hint)}, got {value!r}")
    return value


def _check_value(cls, key, value, where):
    ours = cls in (Network, Training, RunSettings)  # a method's own options check themselves
    if ours and key in CHOICES and value not in CHOICES[key]:
        raise ValueError(f"{_join(where, key)}: {value!r} is not one of {', '.join(CHOICES[key])}")
    if ours and key in LEAST and value < LEAST[key]:
        raise ValueError(f"{_join(where, key)}: {value} is below {LEAST[key]}, the least that makes sense")


def _join(where, key) -> str:
    return f"{where}.{key}" if where else str(key)


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys and says nothing; this one refuses them."""

    def compose_mapping_node(self, anchor):
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is given twice; keep one",
                                           problem_mark=key.start_mark)
            seen.add(name)
        return node


def load_yaml(path) -> dict:
    """A YAML mapping. Raises ValueError naming the file (and the line, for a syntax error or a key given twice)."""
    path = Path(path)
    try:
        content = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected keys and values at the top")
    return content


def load_run(directory) -> RunSettings:
    """The settings of the run that lives in `directory`."""
    path = Path(directory) / "run.yaml"
    return read(RunSettings, load_yaml(path), str(path))


def complete(run: RunSettings) -> RunSettings:
    """The settings with every option of the method and its version written out, so that a changed default or a
    raised version is another run. Imports the method. Raises ValueError for unknown options."""
    method = find_class(run.method)
    options = read(method.Options, run.options, f"{run.stage}.options")
    return dataclasses.replace(run, options=dataclasses.asdict(options), version=method.version)


def as_mapping(run: RunSettings) -> dict:
    """What stands in run.yaml."""
    return dataclasses.asdict(run)


def digest(run: RunSettings) -> str:
    """SHA-256 of the settings, whatever the order of the keys in the file."""
    return hashlib.sha256(json.dumps(as_mapping(run), sort_keys=True).encode()).hexdigest()


def source_of(dotted, where="method") -> str | None:
    """SHA-256 of the file in which a class of the user's own stands, None for one of ours. Nothing is imported but
    the packages around it. Raises ValueError if there is no such file."""
    module_name = _module_of(dotted, where)
    if module_name.split(".")[0] in OURS:
        return None
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:  # of a package around it
        spec = None
    if spec is None or not spec.has_location:
        raise ValueError(f"{where}: cannot import '{module_name}' for '{dotted}': no such file on the Python path")
    return sha256(spec.origin)


def check_planned(run: RunSettings) -> None:
    """Raises ValueError if the run's method is not the one that the run was planned with: its file or version."""
    changed = "file" if run.method_source != source_of(run.method) else ""
    if not changed and run.version not in (None, find_class(run.method).version):
        changed = "version"
    if changed:
        raise ValueError(f"{run.method}: its {changed} has changed since this run was planned; plan again: the command "
                         f"that started the study (scl run, snakemake) does")


def _module_of(dotted, where) -> str:
    module_name = dotted.rpartition(".")[0]
    if not module_name:
        raise ValueError(f"{where}: '{dotted}' is not a dotted path such as scl.method.SCL")
    return module_name


def find_class(dotted, where="method"):
    """The class at a dotted path, e.g. 'scl.method.SCL' or 'my_file.MyMethod'. Raises ValueError."""
    module_name, name = _module_of(dotted, where), dotted.rpartition(".")[2]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{where}: cannot import '{module_name}' for '{dotted}' ({error})") from None
    found = getattr(module, name, None)
    if not isinstance(found, type):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name]
        raise ValueError(f"{where}: '{module_name}' has no class '{name}'{did_you_mean(name, known)}")
    return found
