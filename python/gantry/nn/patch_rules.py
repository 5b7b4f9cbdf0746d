"""What patch() can do with a module (Candidate), and the rules for torch's own modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

# What the default of "auto" rests on.
REASONS = {
    "activation": "keeps its output, which the next layer keeps anyway, and a bit an element",
    "norm": "keeps its output, which the next layer keeps anyway",
    "dropout": "keeps a seed; the mask is drawn again",
    "attention": "keeps no scores and no mask; they are made again",
    "mlp": "keeps the input of its activation; the output is made again",
    "residual_norm": "keeps its output and a seed",
}
MODES = ("store", "in-place", "recompute", "rerun", "int8")
LOSSY = "int8"


@dataclasses.dataclass
class Candidate:
    """A module and what can be done with it.

    `apply(mode)` gives the module one of `modes`, `undo()` makes it what it was. `inner` are modules that this
    candidate decides about, so that they are none themselves.
    """

    module: torch.nn.Module
    kind: str  # a key of REASONS
    was: str
    modes: tuple[str, ...]  # from most to fewest bytes, without "store"; empty where refused
    apply: Callable[[str], None]
    default: str = "store"  # the mode of "auto" without measurements
    reason: str = ""  # of the refusal or of the default
    inner: tuple[torch.nn.Module, ...] = ()
    undo: Callable[[], object] = lambda: None
    name: str = ""

    def set(self, mode: str) -> None:
        self.undo()
        if mode != "store":
            self.apply(mode)

    def nearest(self, mode: str) -> str:
        """`mode`; for a module without it the mode before it in MODES that keeps least, or else its first mode."""
        if mode == "store" or mode in self.modes:
            return mode
        exact = [m for m in self.modes if m != LOSSY]
        before = [m for m in exact if MODES.index(m) < MODES.index(mode)]
        return before[-1] if before else (exact or ["store"])[0]


def refused(module: torch.nn.Module, kind: str, was: str, reason: str) -> Candidate:
    return Candidate(module, kind, was, (), lambda mode: None, reason=reason)
