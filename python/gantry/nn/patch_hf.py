"""Rules for models of Hugging Face transformers: BERT, GPT-2, Llama, and every model whose modules run the same code
(RoBERTa and Mistral, for example): the byte code of a forward decides, not the name of its class."""

from __future__ import annotations

import inspect

import torch
from transformers import activations
from transformers.models.bert import modeling_bert as bert
from transformers.models.gpt2 import modeling_gpt2 as gpt2
from transformers.models.llama import modeling_llama as llama
from transformers.pytorch_utils import Conv1D

from gantry.nn.hf_modules import (
    Activation,
    BertMlp,
    Fused,
    Gpt2Mlp,
    LlamaMlp,
    ResidualNorm,
    RmsNorm,
    part_classes,
    unlike,
)
from gantry.nn.modules import FusedGatedMLP, FusedMLP
from gantry.nn.patch_rules import REASONS, Candidate, refused
from gantry.nn.patch_swap import Patched, restore, swap_in, why_not_swappable
from gantry.nn.patch_torch import torch_candidate

_ACTIVATIONS = {
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "AccurateGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "SiLUActivation": "silu",
    "QuickGELUActivation": "quick_gelu",
}
_ACTIVATION_KINDS = {getattr(activations, name): kind for name, kind in _ACTIVATIONS.items()
                     if hasattr(activations, name)}


def same_code(cls: type, like: type, method: str = "forward") -> bool:
    """Whether both classes define the method by the same byte code, names and constants."""
    if not hasattr(cls, method):
        return False
    codes = [inspect.unwrap(getattr(c, method)).__code__ for c in (cls, like)]
    return all(getattr(codes[0], part) == getattr(codes[1], part) for part in ("co_code", "co_names", "co_consts"))


def hf_candidate(module: torch.nn.Module) -> Candidate | None:
    """The candidate for a module of transformers, without attention; None for a module that is none of those known."""
    cls = type(module)
    if cls in _ACTIVATION_KINDS:
        return _swapped(module, Activation, "activation", gantry_activation=_ACTIVATION_KINDS[cls])
    if not cls.__module__.startswith("torch."):
        if same_code(cls, llama.LlamaRMSNorm) and hasattr(module, "variance_epsilon"):
            return _swapped(module, RmsNorm, "norm")
        if same_code(cls, bert.BertOutput):
            return _residual_norm(module)
        if same_code(cls, bert.BertLayer, "feed_forward_chunk"):
            return _bert_mlp(module)
        if same_code(cls, gpt2.GPT2MLP):
            return _mlp(module, Gpt2Mlp, module.act, (module.c_fc, module.c_proj), Conv1D)
        if same_code(cls, llama.LlamaMLP):
            return _mlp(module, LlamaMlp, module.act_fn, (module.gate_proj, module.up_proj, module.down_proj),
                        torch.nn.Linear)
    return None


def _swapped(module: torch.nn.Module, mixin: type[Patched], kind: str, **attributes: str) -> Candidate:
    was, reason = type(module).__name__, why_not_swappable(module)
    if reason:
        return refused(module, kind, was, reason)
    return Candidate(module, kind, was, ("in-place",),
                     lambda mode: swap_in(module, mixin, {"memory": mode, **attributes}), "in-place", REASONS[kind],
                     undo=lambda: restore(module))


def _residual_norm(module: torch.nn.Module) -> Candidate | None:
    parts = ResidualNorm.parts(module)
    if (type(parts[0]), type(parts[1])) != (torch.nn.Dropout, torch.nn.LayerNorm):
        return None
    was = f"{type(module).__name__} (Dropout, add, LayerNorm)"
    classes = part_classes(parts)
    reason = next(filter(None, [*map(why_not_swappable, (module, *parts)), unlike(parts, classes)]), "")
    if reason:  # The parts may still be patched one by one.
        return refused(module, "residual_norm", was, f"not as one operator: {reason}")
    return Candidate(module, "residual_norm", was, ("in-place",),
                     lambda mode: swap_in(module, ResidualNorm, {"memory": mode, "gantry_parts": classes}), "in-place",
                     REASONS["residual_norm"], inner=parts, undo=lambda: restore(module))


def _bert_mlp(layer: torch.nn.Module) -> Candidate | None:
    if not same_code(type(layer.intermediate), bert.BertIntermediate) or not same_code(type(layer.output),
                                                                                       bert.BertOutput):
        return None
    return _mlp(layer, BertMlp, layer.intermediate.intermediate_act_fn, (layer.intermediate.dense, layer.output.dense),
                torch.nn.Linear)


def _mlp(module: torch.nn.Module, mixin: type[Fused], activation: torch.nn.Module,
         linears: tuple[torch.nn.Module, ...], linear_class: type) -> Candidate | None:
    """One operator for the whole block, or where that cannot be, its activation in place."""
    inner = hf_candidate(activation) or torch_candidate(activation)
    if inner is None or inner.kind != "activation":
        return None
    was = f"{type(module).__name__} ({inner.was})"
    if not inner.modes:
        return refused(module, "mlp", was, inner.reason)
    parts = mixin.parts(module)
    classes = part_classes(parts)
    reason = _why_not_fused(module, parts, linears, linear_class)

    def undo() -> None:
        restore(module)
        restore(activation)

    def apply(mode: str) -> None:
        if mode == "in-place":
            inner.apply(mode)
        else:
            swap_in(module, mixin, {"memory": mode, "gantry_parts": classes,
                                    "gantry_activation": activation_kind(activation)})

    if reason:
        return Candidate(module, "mlp", was, ("in-place",), apply, "in-place", f"activation only: {reason}",
                         inner=(activation,), undo=undo)
    block = FusedGatedMLP if mixin is LlamaMlp else FusedMLP
    modes = ("in-place", *(m for m in block.MODES if m not in ("store", "in-place")))
    return Candidate(module, "mlp", was, modes, apply, "recompute", REASONS["mlp"], inner=(activation,), undo=undo)


def _why_not_fused(module: torch.nn.Module, parts: tuple[torch.nn.Module, ...],
                   linears: tuple[torch.nn.Module, ...], linear_class: type) -> str:
    for linear in linears:
        if type(linear) is not linear_class:
            return f"a projection is a {type(linear).__name__}"
        if linear_class is torch.nn.Linear and len(linears) == 3 and linear.bias is not None:
            return "its projections have biases"
    return next(filter(None, [*map(why_not_swappable, (module, *parts)), unlike(parts, part_classes(parts))]), "")


def activation_kind(module: torch.nn.Module) -> str:
    """gelu, gelu_tanh, silu or quick_gelu."""
    if type(module) is torch.nn.GELU:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return "silu" if type(module) is torch.nn.SiLU else _ACTIVATION_KINDS[type(module)]
