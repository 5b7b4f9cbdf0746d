"""patch(model): a model that exists already trains in less memory.

    table = gantry.nn.patch(model)
    print(table)            # every module: what it was, its mode, bytes, milliseconds, the reason of a refusal
    ...                     # train, evaluate, save: same parameters, same state_dict, same outputs in eval mode
    gantry.nn.unpatch(model)

Modules stay the objects that they are (see patch_swap); what their forward keeps for backward changes, in training
alone.
"""

from __future__ import annotations

import difflib
import fnmatch
import sys
from collections.abc import Callable
from typing import Any

import torch

from gantry._core import InputError
from gantry.nn.patch_measure import Step
from gantry.nn.patch_measured import choose_by_measurement
from gantry.nn.patch_rules import MODES, REASONS, Candidate, refused
from gantry.nn.patch_swap import restore
from gantry.nn.patch_table import PatchTable, Row
from gantry.nn.patch_torch import attention_candidates, overwritten_outputs, torch_candidate


def patch(model: torch.nn.Module, memory: str | dict[str, str] = "auto", budget_bytes: int | None = None,
          example: dict[str, Any] | Callable[[], Any] | None = None, allow_int8: bool = False) -> PatchTable:
    """Makes the modules of `model` keep less for backward, in place. Returns what became of each; print it.

    memory: "auto", the modes that add no time; one of store, in-place, recompute, rerun and int8 for all modules (each
        takes the nearest that it has); or {name: mode}, where a name is that of a module, a pattern such as
        "encoder.*.mlp", or a kind: activation, norm, dropout, attention, mlp, residual_norm. Modules without a name
        stay as they are.
    example: keyword arguments of the model for one training step, or a callable that runs forward and backward. With
        it "auto" measures bytes and milliseconds of every mode, here and now, instead of trusting the defaults.
    budget_bytes: what a step may allocate at its peak, beyond what is allocated before it (parameters and optimizer
        state); gradients count. Needs memory="auto" and example. Modes are added in the order of bytes saved per
        millisecond until the measured peak fits; InputError with the least peak where none does, and the model is then
        as it was.
    allow_int8: lets "auto" choose lossy modes.

    A model that is patched already is patched anew. Outputs in eval mode are those of the stock model to the bit;
    gradients cannot be differentiated again. InputError for what is none of this.
    """
    _check_arguments(model, memory, budget_bytes, example)
    unpatch(model)
    candidates = find_candidates(model)
    try:
        if memory == "auto" and example is not None:
            _take_over_attention(candidates)
            step = Step(model, example)
            with step.traceless():
                return choose_by_measurement(step, candidates, budget_bytes, allow_int8)
        return _apply(candidates, _chosen_modes(candidates, memory), memory == "auto")
    except BaseException:
        unpatch(model)
        raise


def unpatch(model: torch.nn.Module) -> int:
    """Makes every patched module of `model` what it was, also in a copy or a pickle. Returns how many there were."""
    count = 0
    hf_attention = sys.modules.get("gantry.nn.hf_attention")
    for module in model.modules():
        count += restore(module)
        if hf_attention is not None:
            count += hf_attention.release(module)
    return count


def find_candidates(model: torch.nn.Module) -> list[Candidate]:
    """What patch() could do, in module order; modules of torch that know no counterpart are absent."""
    finders = [attention_candidates(model).get, torch_candidate, *_transformers_finders(model)]
    overwritten = overwritten_outputs(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found, decided = [], set()
    for name, module in model.named_modules():
        if module in decided:
            continue
        candidate = next(filter(None, (finder(module) for finder in finders)), None)
        if candidate is None:
            continue
        if candidate.modes and device.type != "cpu":
            candidate = refused(module, candidate.kind, candidate.was, f"no kernel for {device.type}")
        if candidate.modes and module in overwritten:
            candidate = refused(module, candidate.kind, candidate.was, "the next module overwrites its output")
        candidate.name = name
        decided.update(candidate.inner)
        found.append(candidate)
    return found


def _transformers_finders(model: torch.nn.Module) -> list[Callable[[torch.nn.Module], Candidate | None]]:
    if not any(type(module).__module__.startswith("transformers") for module in model.modules()):
        return []
    from gantry.nn.hf_attention import attention_candidate
    from gantry.nn.patch_hf import hf_candidate

    return [attention_candidate, hf_candidate]


def _check_arguments(model: Any, memory: Any, budget_bytes: int | None, example: Any) -> None:
    if not isinstance(model, torch.nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise InputError(f"patch: model is a {type(model).__name__}, expected a torch.nn.Module that is not scripted")
    modes = memory.values() if isinstance(memory, dict) else [memory]
    for mode in modes:
        if mode not in MODES and not (mode == "auto" and memory == "auto"):
            raise InputError(f"patch: memory is {mode!r}, expected auto (alone), {', '.join(MODES[:-1])} or "
                             f"{MODES[-1]}")
    if budget_bytes is not None and (memory != "auto" or example is None):
        raise InputError('patch: budget_bytes needs memory="auto" and an example of one training step')
    if budget_bytes is not None and budget_bytes <= 0:
        raise InputError(f"patch: budget_bytes is {budget_bytes}, expected a positive number of bytes")


def _chosen_modes(candidates: list[Candidate], memory: str | dict[str, str]) -> list[str]:
    if memory == "auto":
        return [c.default for c in candidates]
    if isinstance(memory, str):
        return [c.nearest(memory) for c in candidates]
    used, modes = set(), []
    for candidate in candidates:
        keys = [key for key in memory if _matches(key, candidate)]
        used.update(keys)
        # A name counts before a pattern, and this before a kind; of equals, the last.
        key = max(keys, key=lambda k: (k == candidate.name, k != candidate.kind), default=None)
        modes.append("store" if key is None else _named_mode(candidate, key, memory[key]))
    for key in memory:
        if key not in used:
            close = difflib.get_close_matches(key, [c.name for c in candidates], n=1)
            raise InputError(f"patch: memory names {key!r}, which is no module that can be patched, no pattern of such "
                             f"and no kind ({', '.join(REASONS)})" + (f"; did you mean {close[0]!r}?" if close else ""))
    return modes


def _matches(key: str, candidate: Candidate) -> bool:
    return key in (candidate.name, candidate.kind) or fnmatch.fnmatchcase(candidate.name, key)


def _named_mode(candidate: Candidate, key: str, mode: str) -> str:
    if key == candidate.name and candidate.modes and mode != "store" and mode not in candidate.modes:
        raise InputError(f"patch: {candidate.name} ({candidate.was}) has no mode {mode!r}, only store, "
                         f"{', '.join(candidate.modes)}")
    return candidate.nearest(mode)


def _take_over_attention(candidates: list[Candidate]) -> None:
    modules = [c.module for c in candidates if c.kind == "attention" and hasattr(c.module, "config")]
    if modules:
        from gantry.nn.hf_attention import take_over

        take_over(modules)


def _apply(candidates: list[Candidate], modes: list[str], default: bool) -> PatchTable:
    if any(c.kind == "attention" and mode != "store" for c, mode in zip(candidates, modes, strict=True)):
        _take_over_attention(candidates)
    rows = []
    for candidate, mode in zip(candidates, modes, strict=True):
        candidate.set(mode)
        reason = candidate.reason if not candidate.modes or default or mode == candidate.default else "as asked"
        rows.append(Row(candidate.name, candidate.kind, candidate.was, mode, reason=reason))
    return PatchTable(rows)
