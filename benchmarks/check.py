"""Whether the methods of a study can train as it says: their classes, options, networks and augmentations."""

from benchmarks.study import Study
from scl import settings
from scl.imports import uncollected
from scl.text import did_you_mean

with uncollected():
    from scl import augment, networks
    from scl.contract import Method


def check_methods(study: Study) -> None:
    """Import every method, read its options, try its network and augmentations. Raises ValueError naming the key."""
    for stage, block in study.methods.items():
        found = _class_of(block.method, f"methods.{stage}.method")
        for benchmark in study.benchmarks:
            run = study.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
            settings.read(found.Options, run.options, f"methods.{stage}.options")
            _check_epochs(found, run.training.epochs, f"methods.{stage}.training.epochs", benchmark)
            if run.training.epochs:
                _check_network(study, benchmark, run.network, f"methods.{stage}")
            _check_augmentations(found, run.augment, f"methods.{stage}.augment")


def _class_of(dotted: str, where: str) -> type[Method]:
    found = settings.find_class(dotted, where)
    if not issubclass(found, Method):
        raise ValueError(f"{where}: '{dotted}' is not a scl.contract.Method")
    if found.__module__ != dotted.rpartition(".")[0]:  # an edit of the file where it stands would go unseen
        raise ValueError(f"{where}: '{dotted}' stands elsewhere: name it '{found.__module__}.{found.__qualname__}'")
    return found


def _check_epochs(found: type[Method], epochs: int, where: str, benchmark: str) -> None:
    """A network that was never trained is no result, and what has nothing to train would fail at its first step."""
    trains = found.step is not Method.step
    if trains and not epochs:
        raise ValueError(f"{where} on {benchmark}: none given, but {found.__name__} trains; say how many")
    if epochs and not trains:
        raise ValueError(f"{where} on {benchmark}: {epochs}, but {found.__name__} has no step() to train with; write 0")


def _check_augmentations(found: type[Method], augmentations: dict, where: str) -> None:
    for name in found.augmentations:
        if name not in augmentations:
            raise ValueError(f"{where}.{name}: missing; {found.__name__} draws it")
    for name, spec in augmentations.items():
        if name not in found.augmentations:
            raise ValueError(f"{where}.{name}: unknown{did_you_mean(name, found.augmentations)}")
        try:
            augment.build(spec)
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from None


def _check_network(study: Study, benchmark: str, network, where: str) -> None:
    size = study.benchmarks[benchmark].size or study.dataset(benchmark).size
    try:
        networks.check(network, size)
    except ValueError as error:
        raise ValueError(f"{where} on {benchmark} ({size} px): {error}") from None
