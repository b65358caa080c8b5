"""What `scl bench` measures."""

import dataclasses

from scl.engine import gpu_lease
from scl.engine.provenance import cores
from scl.engine.trainer import CHECK_EVERY


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure. steps: timed in a row; rounds: repetitions of all parts, in turns."""

    stage: str = "scl"
    size: int = 32
    batch_size: int = 256
    steps: int = 2
    rounds: int = 3
    images: tuple[int, ...] = (10_000, 100_000)  # the first for all parts; all of them for the growth
    clusters: tuple[int, ...] = (10, 200)
    batch_factors: tuple[float, ...] = (0.25, 0.5, 2.0)
    workers: tuple[int, ...] = (2,)  # numbers of loader processes of the standard pipeline, of which the best is taken
    precision: str = "auto"
    compile: bool = False
    matrix: int = 2048  # side of the matrix product that gives the peak of the device

    def __post_init__(self) -> None:
        most = max(1.0, *self.batch_factors) * self.batch_size
        if most > min(self.images):
            raise ValueError(
                f"--batch-size: {self.batch_size} makes batches of up to {most:.0f} images, but only "
                f"{min(self.images):,} are measured; lower it"
            )


def plan_of(*, gpus: int, quick: bool, method: str, steps=None, rounds=None, workers=None, **settings) -> Plan:
    """The plan for the options of the command. On a GPU steps are short, so more are timed: one check of the losses."""
    on_gpu = bool(gpus and gpu_lease.visible())
    usual = (1, 1) if quick else (CHECK_EVERY, 6) if on_gpu else (1, 3)
    if quick:
        settings |= {"images": (1_000, 10_000), "batch_factors": (0.5,)}
    return Plan(
        stage=method,
        steps=steps or usual[0],
        rounds=rounds or usual[1],
        workers=worker_counts(cores(), quick) if workers is None else (workers,),
        matrix=8192 if on_gpu else 2048,
        **settings,
    )


def worker_counts(available: int, quick: bool) -> tuple[int, ...]:
    """Numbers of loader processes to try: 0 (in the main process), powers of two up to the cores, and the cores.

    quick: the cores only.
    """
    powers = (2**i for i in range(available.bit_length()))
    return (available,) if quick else tuple(sorted({0, available} | {n for n in powers if n < available}))
