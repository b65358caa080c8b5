"""The settings of one run as frozen dataclasses, and the reader that fills them from YAML.

A run is fully described by its `run.yaml`; `RunSettings` is that file. The reader refuses unknown keys and
wrong types with one message that names the place and the nearest known key. Torch is not imported here.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from scl.classes import FAILURES, described, find_class, source_of
from scl.text import did_you_mean, shown
from scl.yaml_file import load_yaml


def check_ranges(settings, **ranges) -> None:
    """Raises ValueError for an attribute outside its range, given as name=(least, most); None is in every range."""
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if value is not None:
            check_range(name, value, least, most)


def check_range(name: str, value, least, most) -> None:
    """Raises ValueError naming `name` if `value` is a NaN or outside least .. most."""
    if not least <= value <= most:
        side = f"above {most:,}, the most" if value > most else f"below {least:,}, the least"
        raise ValueError(f"{name}: {shown(value)} is {side} that makes sense")


def check_choices(settings, **choices) -> None:
    """Raises ValueError for an attribute that is none of those given as name=(a, b, ...)."""
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise ValueError(f"{name}: {shown(getattr(settings, name))} is not one of {', '.join(known)}")


@dataclass(frozen=True)
class Network:
    """Encoder of every method. backbone: a timm ResNet; width: channels of the stem (64 = the ordinary net)."""

    backbone: str = "resnet18"
    width: int = 64
    layers: list[int] | None = None  # blocks a stage; None = the backbone's own
    pool: bool | None = None  # a 2x2 max-pool in the stem; None = by image size: from 33 px on
    pool_padding: int = 0  # of that max-pool; 1 in the official codes of SCAN and PICA
    sobel: bool = False  # PICA's official input: grey, two fixed Sobel channels
    initialization: str = "timm"  # convolutions N(0, sqrt(2 / fan out)) | torch: torch's defaults, as PICA's code

    def __post_init__(self):
        check_ranges(self, width=(8, 1024), pool_padding=(0, 1))
        check_choices(self, initialization=("timm", "torch"))
        if self.width % 8:  # narrower and odd ones have crashed convolutions of torch
            raise ValueError(f"width: {self.width} is not a multiple of 8")
        if self.layers is not None and (len(self.layers) not in (3, 4) or not all(1 <= n <= 100 for n in self.layers)):
            raise ValueError(f"layers: {shown(self.layers)} are not the blocks of three or four stages (1 to 100 "
                             "each), such as [2, 2, 2, 2]")


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

    def __post_init__(self):
        check_ranges(self, epochs=(0, 1_000_000), batch_size=(2, 1_000_000), curve_points=(1, 1_000_000),
                     learning_rate=(0, 1e30), final_learning_rate=(0, 1e30), momentum=(0, 1),
                     weight_decay=(0, 1000))  # more is no number of float32
        if self.momentum == 1:
            raise ValueError(f"momentum: {self.momentum} never forgets a gradient; below 1")
        check_choices(self, optimizer=("sgd", "adam"), schedule=("cosine", "constant"),
                      precision=("auto", "fp32", "bf16"))


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
    image_size: int | None = None  # pixels a side that the method asks for, where the benchmark is stored at them too
    method_source: str | None = None  # SHA-256 of the file of a user's own method: the commit tells only ours

    def __post_init__(self):
        check_ranges(self, seed=(0, 2**63 - 1))


def read(cls, mapping, where=""):
    """Fill the dataclass `cls` from a mapping; `where` is the place named in messages.

    Raises ValueError for unknown or missing keys, wrong types, what `cls` refuses in __post_init__ (a message that
    begins with a key gets the place before it), and for a class of the user's own that fails in any way.
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"{where}: {shown(cls)} is not a dataclass, from which settings could be read")
    if not isinstance(mapping, dict):
        raise ValueError(f"{where or cls.__name__}: expected keys and values, got {shown(mapping)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    try:
        hints = typing.get_type_hints(cls)
    except FAILURES as error:
        raise ValueError(f"{where}: the types of {cls.__qualname__} cannot be read: {described(error)}") from None
    for key in mapping:
        if key not in fields:
            raise ValueError(f"{_join(where, key)}: unknown key{did_you_mean(key, fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            raise ValueError(f"{_join(where, name)}: missing")
    values = {key: convert(value, hints[key], _join(where, key)) for key, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:
        named = str(error).partition(":")[0].partition(".")[0].partition("[")[0] in fields
        raise ValueError(_join(where, error) if named else f"{where}: {error}" if where else str(error)) from None
    except FAILURES as error:
        raise ValueError(f"{where}: {cls.__qualname__} cannot be made: {described(error)}") from None


def refuse_odd_values(value, where="") -> None:
    """Raises ValueError for what no setting can be, anywhere in nested mappings and lists: a NaN, an infinity, an
    integer of more than 64 bits, and what YAML has beside texts, numbers and truth values."""
    if isinstance(value, (dict, list, tuple)):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            refuse_odd_values(one, _join(where, key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value}")
    elif isinstance(value, int) and value.bit_length() > 63:
        raise ValueError(f"{where}: expected a number of at most 64 bits, got {shown(value)}")
    elif not (value is None or isinstance(value, (str, int, float, Path))):
        raise ValueError(f"{where}: expected a text, a number, true or false, got {shown(value)}; quotes make a text")


def convert(value, hint, where):
    """`value` as the type `hint`, or ValueError. An int is taken where a float is wanted, a text where a path is;
    nothing else is bent."""
    if hint is typing.Any:
        return value
    if dataclasses.is_dataclass(hint):
        return read(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin is typing.Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise ValueError(f"{where}: {shown(value)} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin in (list, tuple) or hint is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, got {shown(value)}")
        if not arguments:
            return value
        return [convert(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected keys and values, got {shown(value)}")
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
        refuse_odd_values(value, where)
        return float(value)
    if hint is float and isinstance(value, str):
        raise ValueError(f"{where}: expected a number, got the text {shown(value)} (YAML reads 1e-4 as text: "
                         "write 1.0e-4)")
    if hint is Path and isinstance(value, str) and value.strip():
        return Path(value)
    try:
        fits = isinstance(value, hint) and not (hint in (int, float) and isinstance(value, bool))
    except TypeError:
        raise ValueError(f"{where}: a value of type {hint} cannot be read from a configuration") from None
    if not fits:
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
        raise ValueError(f"{where}: expected {names.get(hint, hint)}, got {shown(value)}")
    return value


def _join(where, key) -> str:
    return f"{where}.{key}" if where else str(key)


def load_run(directory) -> RunSettings:
    """The settings of the run that lives in `directory`."""
    path = Path(directory) / "run.yaml"
    mapping = load_yaml(path)
    refuse_odd_values(mapping, str(path))
    return read(RunSettings, mapping, str(path))


def complete(run: RunSettings) -> RunSettings:
    """The settings with every option of the method, its version and the size of image it asks for written out, so that
    a changed default or a raised version is another run. Imports the method. Raises ValueError for unknown options."""
    method = find_class(run.method)
    if type(method.version) is not int:
        raise ValueError(f"{run.method}.version: expected a whole number, got {shown(method.version)}")
    options = read(method.Options, run.options, f"{run.stage}.options")
    return dataclasses.replace(run, options=dataclasses.asdict(options), version=method.version,
                               image_size=method.image_size(options))


def as_mapping(run: RunSettings) -> dict:
    """What stands in run.yaml."""
    return dataclasses.asdict(run)


def digest(run: RunSettings) -> str:
    """SHA-256 of the settings, whatever the order of the keys in the file."""
    return hashlib.sha256(json.dumps(as_mapping(run), sort_keys=True).encode()).hexdigest()


def check_planned(run: RunSettings) -> None:
    """Raises ValueError if the run's method is not the one that the run was planned with: its file or version."""
    changed = "file" if run.method_source != source_of(run.method) else ""
    if not changed and run.version not in (None, find_class(run.method).version):
        changed = "version"
    if changed:
        raise ValueError(f"{run.method}: its {changed} has changed since this run was planned; plan again with "
                         f"the same snakemake or scl run command")
