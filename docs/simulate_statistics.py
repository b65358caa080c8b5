"""Size, power and coverage of the statistics in benchmarks/report/inference.py, by simulation; minutes on one core.

`python docs/simulate_statistics.py` prints the tables of docs/statistics.md; `--check` compares them with that page.
Differences of paired runs are normal, or skewed (a centered exponential) to show what depends on normality.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import inference

SEED = 20261124
PAGE = Path(__file__).with_name("statistics.md")
Draw = Callable[..., np.ndarray]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.exponential(size=shape) - 1  # mean 0, SD 1, skewness 2


def coverage(draw: Draw, n: int, interval: Callable, trials: int) -> float:
    """How often the interval of the mean of n values holds the true mean, 0."""
    rng = np.random.default_rng([SEED, n])
    found = [interval(draw(rng, n)) for _ in range(trials)]
    return float(np.mean([estimate.low <= 0 <= estimate.high for estimate in found]))


def percentile_bootstrap(values: np.ndarray) -> inference.Estimate:
    return inference.stratified_bootstrap(lambda x: x.mean(-1), [values], resamples=1000)


def rejections(draw: Draw, benchmarks: int, n: int, effect: float, trials: int) -> float:
    """How often the stratified sign-flip test rejects at 5 %; effect: mean difference in SDs of a difference."""
    rng = np.random.default_rng([SEED, benchmarks, n])
    p = [inference.sign_flip_p(*(draw(rng, benchmarks, n) + effect)) for _ in range(trials)]
    return float(np.mean(np.array(p) <= inference.LEVEL))


def family(benchmarks: int, n: int, competitors: int, trials: int) -> float:
    """How often Holm's adjustment leaves any false verdict: one reference, all methods equal, runs of equal SD."""
    rng = np.random.default_rng([SEED, benchmarks, n, competitors])
    wrong = 0
    for _ in range(trials):
        scores = rng.normal(size=(competitors + 1, benchmarks, n))
        p = [inference.sign_flip_p(*(scores[0] - other)) for other in scores[1:]]
        wrong += bool((inference.holm(np.array(p)) <= inference.LEVEL).any())
    return wrong / trials


def normalized_coverage(benchmarks: int, n: int, trials: int) -> float:
    """Coverage of the stratified bootstrap of the normalized mean; scores of mean 0.5, chance 0.1."""
    rng = np.random.default_rng([SEED, benchmarks, n, 1])
    hits = 0
    for _ in range(trials):
        scores = {str(b): 0.5 + 0.05 * rng.normal(size=n) for b in range(benchmarks)}
        found = inference.normalized_mean(scores, dict.fromkeys(scores, 0.1), resamples=1000)
        hits += found.low <= 0.4 / 0.9 <= found.high
    return hits / trials


def improvement_coverage(benchmarks: int, n: int, shift: float, trials: int) -> float:
    """Coverage of the interval of the probability of improvement; two methods `shift` SDs of a run apart."""
    rng = np.random.default_rng([SEED, benchmarks, n, 2])
    truth = 0.5 * (1 + math.erf(shift / 2))
    hits = 0
    for _ in range(trials):
        first = {str(b): rng.normal(size=n) + shift for b in range(benchmarks)}
        second = {str(b): rng.normal(size=n) for b in range(benchmarks)}
        found = inference.probability_of_improvement(first, second, resamples=500)
        hits += found.low <= truth <= found.high
    return hits / trials


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def coverage_table() -> str:
    rows = []
    for name, draw in (("normal", normal), ("skewed", skewed)):
        for n in (3, 5, 10):
            t = coverage(draw, n, inference.t_interval, 4000)
            rows.append([name, str(n), percent(t), percent(coverage(draw, n, percentile_bootstrap, 2000))])
    return table(["differences", "n", "t interval", "percentile bootstrap"], rows)


def test_table() -> str:
    rows = []
    for benchmarks, n in ((1, 3), (1, 5), (1, 10), (3, 3), (3, 5), (4, 3), (4, 5), (6, 5)):
        trials = 4000 if benchmarks * n <= 10 else 1000
        sizes = [rejections(draw, benchmarks, n, 0, trials) for draw in (normal, skewed)]
        powers = [rejections(normal, benchmarks, n, effect, trials) for effect in (0.5, 1.0, 2.0)]
        rows.append([str(benchmarks), str(n), *map(percent, sizes + powers)])
    names = ["benchmarks", "seeds", "size, normal", "size, skewed", "power at 0.5 SD", "at 1 SD", "at 2 SD"]
    return table(names, rows)


def family_table() -> str:
    rows = [[str(b), str(n), "6", percent(family(b, n, 6, 1000))] for b, n in ((1, 10), (3, 5), (4, 3), (4, 5))]
    return table(["benchmarks", "seeds", "competitors", "any false verdict"], rows)


def bootstrap_table() -> str:
    rows = [
        [
            str(n),
            percent(normalized_coverage(4, n, 1000)),
            *(percent(improvement_coverage(4, n, shift, 500)) for shift in (0.0, 1.0, 3.0)),
        ]
        for n in (3, 5, 10)
    ]
    return table(["seeds", "normalized mean", "P(improvement) of equals", "1 SD apart", "3 SD apart"], rows)


TABLES = {"coverage": coverage_table, "tests": test_table, "family": family_table, "bootstrap": bootstrap_table}

if __name__ == "__main__":
    page = PAGE.read_text() if "--check" in sys.argv else None
    for name, make in TABLES.items():
        text = make()
        print(f"\n{name}\n\n{text}", flush=True)
        if page is not None and text not in page:
            sys.exit(f"{PAGE.name}: the table '{name}' is not what the simulation gives")
