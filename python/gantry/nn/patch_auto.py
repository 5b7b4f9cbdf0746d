"""Choice of memory modes by bytes saved per added millisecond."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from gantry._core import InputError


@dataclasses.dataclass(frozen=True)
class Option:
    """What one mode of one module saves and costs, both against the stock module."""

    mode: str
    bytes_saved: int
    ms: float


@dataclasses.dataclass(frozen=True)
class Move:
    """The step of module number `index` from the mode it has to `option`."""

    index: int
    option: Option
    bytes_saved: int
    ms: float

    @property
    def free(self) -> bool:
        return self.ms <= 0


def frontier(options: Iterable[Option], noise_ms: float) -> list[Option]:
    """The lower convex hull of (ms, bytes kept) from the stock module on, without it: each option saves more than the
    one before, at ever fewer bytes per millisecond. Up to `noise_ms` counts as no time; of the free options, the one
    that saves most stays."""
    stock = Option("store", 0, 0.0)
    hull = [stock]
    costs = [dataclasses.replace(o, ms=0.0 if o.ms <= noise_ms else o.ms) for o in options]
    for option in sorted(costs, key=lambda o: (o.ms, -o.bytes_saved)):
        if option.bytes_saved <= hull[-1].bytes_saved:
            continue
        while len(hull) > 1 and _density(hull[-2], hull[-1]) <= _density(hull[-2], option):
            hull.pop()
        hull.append(option)
    return hull[1:]


def _density(a: Option, b: Option) -> float:
    """Bytes saved per millisecond from a to b."""
    return float("inf") if b.ms <= a.ms else (b.bytes_saved - a.bytes_saved) / (b.ms - a.ms)


def moves(frontiers: list[list[Option]]) -> list[Move]:
    """All steps of all modules: first the free ones, then by bytes saved per millisecond, then in module order."""
    steps = []
    for index, hull in enumerate(frontiers):
        previous = Option("store", 0, 0.0)
        for option in hull:
            steps.append(Move(index, option, option.bytes_saved - previous.bytes_saved, option.ms - previous.ms))
            previous = option
    return sorted(steps, key=lambda m: float("-inf") if m.free else -m.bytes_saved / m.ms)


def fit(steps: list[Move], apply: Callable[[Move], None], peak_bytes: Callable[[], int],
        budget_bytes: int) -> tuple[int, int]:
    """Applies steps in order until the measured peak fits the budget; the free ones always.

    Returns (steps taken, measured peak). InputError with the peak of all steps where that is not enough.
    """
    taken = 0
    while taken < len(steps) and steps[taken].free:
        apply(steps[taken])
        taken += 1
    peak = least = peak_bytes()
    while peak > budget_bytes and taken < len(steps):
        expected = peak
        while expected > budget_bytes and taken < len(steps):
            apply(steps[taken])
            expected -= steps[taken].bytes_saved
            taken += 1
        peak = peak_bytes()
        least = min(least, peak)
    if peak > budget_bytes:
        raise InputError(
            f"patch: budget_bytes = {budget_bytes} cannot be met: with every module in its smallest allowed mode a "
            f"step allocates {least} bytes at its peak; give at least that, or a smaller batch")
    return taken, peak
