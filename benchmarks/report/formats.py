"""Scores, differences, p and times as texts."""

from __future__ import annotations

from benchmarks.evaluation.statistics import Summary


def number(summary: Summary | None, *, signed: bool = False) -> str:
    """'64.5 ± 1.2' from fractions; without ± for one seed; '–' for none."""
    if summary is None:
        return "–"
    mean = points(summary.mean) if signed else f"{100 * summary.mean:.1f}".replace("-", "−")
    return mean if summary.sd is None else f"{mean} ± {100 * summary.sd:.1f}"


def points(fraction: float) -> str:
    """'+3.2', '−0.4': a difference of scores in points (hundredths)."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """'p = 0.032', 'p < 0.001'."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
