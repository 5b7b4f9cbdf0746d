"""Rules for the modules of torch.nn that have a counterpart in gantry.nn."""

from __future__ import annotations

import torch

from gantry.nn import modules, modules_attention
from gantry.nn.patch_rules import REASONS, Candidate, refused
from gantry.nn.patch_swap import restore, swap, why_not_swappable


class _StockInEval:
    """Of a counterpart in a patched model: in eval mode it is torch's layer to the bit, also with gradients."""

    def _takes_stock(self) -> bool:
        return not self.training or super()._takes_stock()


class GELU(_StockInEval, modules.GELU):
    pass


class SiLU(_StockInEval, modules.SiLU):
    pass


class LayerNorm(_StockInEval, modules.LayerNorm):
    pass


class RMSNorm(_StockInEval, modules.RMSNorm):
    pass


class SelfAttention(_StockInEval, modules_attention.SelfAttention):
    pass


_COUNTERPARTS = {
    torch.nn.GELU: ("activation", GELU),
    torch.nn.SiLU: ("activation", SiLU),
    torch.nn.LayerNorm: ("norm", LayerNorm),
    torch.nn.RMSNorm: ("norm", RMSNorm),
    torch.nn.Dropout: ("dropout", modules.Dropout),
}


def torch_candidate(module: torch.nn.Module) -> Candidate | None:
    """The candidate for a module of torch.nn, or None for one without counterpart."""
    if isinstance(module, modules.MemoryModeMixin):  # the user's own choice
        return None
    for base, (kind, counterpart) in _COUNTERPARTS.items():
        if isinstance(module, base):
            return _candidate(module, base, kind, counterpart)
    return None


def attention_candidates(model: torch.nn.Module) -> dict[torch.nn.Module, Candidate]:
    """Self attention of torch's encoder and decoder layers; other callers of torch.nn.MultiheadAttention may want the
    weights, which are not kept."""
    layers = (m for m in model.modules()
              if type(m) in (torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer))
    found = {layer.self_attn: _self_attention(layer.self_attn) for layer in layers
             if not isinstance(layer.self_attn, modules.MemoryModeMixin)}
    for module in model.modules():
        if isinstance(module, torch.nn.MultiheadAttention) and not isinstance(module, modules.MemoryModeMixin):
            reason = "not the self attention of torch's encoder or decoder layer: its weights may be wanted"
            found.setdefault(module, refused(module, "attention", type(module).__name__, reason))
    return found


def _candidate(module: torch.nn.Module, base: type, kind: str, counterpart: type) -> Candidate:
    was = type(module).__name__
    reason = "" if type(module) is base else f"a subclass of {base.__name__}, whose forward may differ"
    reason = reason or why_not_swappable(module) or _why_not(module)
    if reason:
        return refused(module, kind, was, reason)
    mode = counterpart.MODES[1]  # further ones are the same
    return Candidate(module, kind, was, (mode,), lambda mode: swap(module, counterpart, {"memory": mode}), mode,
                     REASONS[kind], undo=lambda: restore(module))


def _self_attention(module: torch.nn.Module) -> Candidate:
    kind, was = "attention", type(module).__name__
    reason = f"a subclass of MultiheadAttention: {was}"
    if type(module) is torch.nn.MultiheadAttention:
        reason = why_not_swappable(module) or SelfAttention.refusal(module)
    if not reason and module.head_dim % 16 != 0:
        reason = f"its head size is {module.head_dim}, expected a multiple of 16"
    if reason:
        return refused(module, kind, was, reason)
    return Candidate(module, kind, was, SelfAttention.MODES[1:],
                     lambda mode: swap(module, SelfAttention, {"memory": mode}), SelfAttention.check_memory(None),
                     REASONS[kind], undo=lambda: restore(module))


def _why_not(module: torch.nn.Module) -> str:
    if isinstance(module, torch.nn.Dropout) and module.p == 0:
        return "p is 0: nothing to keep"
    if isinstance(module, torch.nn.SiLU) and module.inplace:
        return "inplace=True overwrites its input"
    return ""


def overwritten_outputs(model: torch.nn.Module) -> set[torch.nn.Module]:
    """Modules of a Sequential whose output the next one overwrites, so that it cannot be kept."""
    found = set()
    for sequence in model.modules():
        if isinstance(sequence, torch.nn.Sequential):
            children = list(sequence)
            found.update(a for a, b in zip(children, children[1:]) if getattr(b, "inplace", False) is True)
    return found
