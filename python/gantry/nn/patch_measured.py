"""memory="auto" with an example: modes by what they save and cost on this machine."""

from __future__ import annotations

import dataclasses

from gantry.nn.patch_auto import Move, Option, fit, frontier, moves
from gantry.nn.patch_measure import Call, Overwritten, Step, interleaved_ms, recorded_calls
from gantry.nn.patch_rules import LOSSY, Candidate
from gantry.nn.patch_table import PatchTable, Row

# Added time up to this share of the stock module's counts as none.
NOISE = 0.02


@dataclasses.dataclass
class Group:
    """Modules that do the same work on the same shapes; one of them is measured."""

    members: list[int]
    call: Call
    options: list[Option] = dataclasses.field(default_factory=list)
    stock_ms: float = 0.0
    refusal: str = "no mode is allowed"


def choose_by_measurement(step: Step, candidates: list[Candidate], budget_bytes: int | None,
                          allow_int8: bool) -> PatchTable:
    """Measures, chooses and applies. The free modes, or with a budget those that it needs."""
    groups = _groups(step, candidates)
    _measure_bytes(step, candidates, groups, allow_int8)
    for group in groups:
        _measure_ms(candidates, group)
    frontiers: list[list[Option]] = [[] for _ in candidates]
    for group in groups:
        for index in group.members:
            frontiers[index] = frontier(group.options, NOISE * group.stock_ms)
    chosen: dict[int, Option] = {}

    def apply(move: Move) -> None:
        candidates[move.index].set(move.option.mode)
        chosen[move.index] = move.option

    if budget_bytes is None:
        for move in moves(frontiers):
            if move.free:
                apply(move)
        peak = step.peak_bytes()
    else:
        _, peak = fit(moves(frontiers), apply, step.peak_bytes, budget_bytes)
    of = {index: group for group in groups for index in group.members}
    rows = [_row(c, of.get(i), chosen.get(i), budget_bytes) for i, c in enumerate(candidates)]
    return PatchTable(rows, peak, budget_bytes)


def _groups(step: Step, candidates: list[Candidate]) -> list[Group]:
    open_ones = [i for i, c in enumerate(candidates) if c.modes]
    calls = recorded_calls(step, [candidates[i].module for i in open_ones])
    groups: dict[tuple, Group] = {}
    for i in open_ones:
        candidate = candidates[i]
        call = calls.get(candidate.module)
        if call is None:
            candidate.reason = "the example does not call it"
            continue
        parameters = tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in candidate.module.parameters())
        rates = tuple(getattr(m, "p", None) for m in candidate.module.modules())
        flags = tuple(m.training for m in candidate.module.modules())
        key = (candidate.kind, candidate.was, candidate.modes, parameters, rates, flags, call.key())
        groups.setdefault(key, Group([], call)).members.append(i)
    return list(groups.values())


def _measure_bytes(step: Step, candidates: list[Candidate], groups: list[Group], allow_int8: bool) -> None:
    """In the whole step, since what a module keeps may be kept by its neighbours anyway."""
    stock = step.saved_bytes()
    for group in groups:
        for mode in candidates[group.members[0]].modes:
            if mode == LOSSY and not allow_int8:
                continue
            for index in group.members:
                candidates[index].set(mode)
            try:
                saved = (stock - step.saved_bytes()) // len(group.members)
                group.options.append(Option(mode, saved, 0.0))
            except Overwritten:
                group.refusal = f"its output, which {mode} keeps, is overwritten before backward"
        for index in group.members:
            candidates[index].set("store")


def _measure_ms(candidates: list[Candidate], group: Group) -> None:
    candidate = candidates[group.members[0]]
    variants = {mode: (lambda mode=mode: candidate.set(mode)) for mode in ["store", *(o.mode for o in group.options)]}
    ms = interleaved_ms(variants, candidate.module, group.call)
    candidate.set("store")
    group.stock_ms = ms["store"]
    group.options = [dataclasses.replace(o, ms=ms[o.mode] - group.stock_ms) for o in group.options]


def _row(candidate: Candidate, group: Group | None, chosen: Option | None, budget_bytes: int | None) -> Row:
    row = Row(candidate.name, candidate.kind, candidate.was, "store", reason=candidate.reason)
    if group is None:
        return row
    if chosen is not None:
        measured = next(o for o in group.options if o.mode == chosen.mode)
        row.mode, row.bytes_saved, row.ms = measured.mode, measured.bytes_saved, measured.ms
        free = chosen.ms <= 0
        row.reason = "adds no time" if free else f"{chosen.bytes_saved / chosen.ms / 2**20:.1f} MiB for a millisecond"
        return row
    row.bytes_saved, row.ms = 0, 0.0
    best = max(group.options, key=lambda o: o.bytes_saved, default=None)
    if best is None:
        row.reason = group.refusal
    elif best.bytes_saved <= 0:
        row.reason = "no mode keeps less than the stock module here"
    elif budget_bytes is None:
        row.reason = f"{best.mode} would save {best.bytes_saved} bytes but add {best.ms:.2f} ms"
    else:
        row.reason = "not needed for the budget"
    return row
