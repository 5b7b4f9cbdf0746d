"""The attention of gantry.nn in transformers' registry: attn_implementation="gantry".

Importing this module registers it. patch() uses two more names, "gantry_sdpa" and "gantry_eager", under which modules
that it did not mark run their stock attention: models may share a config. In eval mode each is the implementation that
it stands in for, to the bit: torch's SDPA, or the model's own eager function. The masks are that implementation's, too.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from gantry.nn import functional
from gantry.nn.hf_modules import SdpaSelfAttention
from gantry.nn.modules_attention import SelfAttention
from gantry.nn.patch_rules import REASONS, Candidate, refused
from gantry.nn.patch_swap import restore, swap_in, why_not_swappable

MEMORY = "gantry_memory"  # the attribute of an attention module that holds its mode
_BEFORE = "gantry_attention_before"  # and that which holds its config's implementation before the patch
STANDS_FOR = {"gantry": "sdpa", "gantry_sdpa": "sdpa", "gantry_eager": "eager"}

# Queries, keys and values come from outside, so that nothing can make them again.
_MODES = tuple(mode for mode in SelfAttention.MODES if mode not in ("store", "rerun"))
_AS_LITTLE = "torch's SDPA keeps as little where nothing is dropped"

# Keywords that change what attention computes, beyond mask, scale and dropout.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "cache")


class _Implementation(str):
    """A name whose pickle imports this module, which registers the functions that an unpickled model asks for."""


def stock_attention(module: torch.nn.Module, implementation: str) -> Any:
    """The function that transformers runs for "sdpa" or "eager", or None where the model has no eager function."""
    if implementation == "sdpa":
        return sdpa_attention_forward
    return getattr(sys.modules.get(type(module).__module__), "eager_attention_forward", None)


def _forward(name: str, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
             attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
             is_causal: bool | None = None, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    memory = getattr(module, MEMORY, "recompute" if name == "gantry" else "store")
    stands_for = STANDS_FOR[name]
    if not module.training or memory == "store" or any(kwargs.get(name) is not None for name in _UNKNOWN):
        if is_causal is not None:
            kwargs["is_causal"] = is_causal
        return stock_attention(module, stands_for)(module, query, key, value, attention_mask, dropout=dropout,
                                                   scaling=scaling, **kwargs)
    # As SDPA aligns a causal mask: to the first key. Without a mask, further keys are the empty part of a static cache.
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = query.shape[2] > 1 and attention_mask is None and bool(causal) and stands_for == "sdpa"
    if causal and key.shape[2] > query.shape[2]:
        key, value = key[:, :, :query.shape[2]], value[:, :, :query.shape[2]]
    if attention_mask is not None and attention_mask.shape[-1] > key.shape[2]:
        attention_mask = attention_mask[..., :key.shape[2]]
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, is_causal=causal, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1], memory=memory)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Makes the names of STANDS_FOR known to transformers; done when this module is imported."""
    for name, stock in STANDS_FOR.items():
        AttentionInterface.register(name, functools.partial(_forward, name))
        AttentionMaskInterface.register(name, sdpa_mask if stock == "sdpa" else eager_mask)


register()


def attention_candidate(module: torch.nn.Module) -> Candidate | None:
    """The candidate for a module whose forward asks transformers' registry for its attention function."""
    code = inspect.unwrap(type(module).forward).__code__
    if "ALL_ATTENTION_FUNCTIONS" not in code.co_names or not hasattr(module, "config"):
        return _unregistered(module)
    was = f"{type(module).__name__} ({module.config._attn_implementation})"
    # Read for its rate alone, never called.
    inner = tuple(d for d in (_probability_dropout(module),) if isinstance(d, torch.nn.Module))
    reason = _why_not(module)
    if reason:
        candidate = refused(module, "attention", was, reason)
        candidate.inner = inner
        return candidate
    default, reason = "recompute", REASONS["attention"]
    if stands_for(module) == "sdpa" and not _rate(module) and getattr(module, "num_key_value_groups", 1) == 1:
        default, reason = "store", _AS_LITTLE
    return Candidate(module, "attention", was, _MODES,
                     lambda mode: module.__dict__.update({MEMORY: mode}), default, reason, inner=inner,
                     undo=lambda: _BEFORE in module.__dict__ and module.__dict__.update({MEMORY: "store"}))


def _unregistered(module: torch.nn.Module) -> Candidate | None:
    """BERT and its copies before transformers 4.57."""
    was = type(module).__name__
    if not was.endswith("SelfAttention") or not all(hasattr(module, name) for name in ("query", "key", "value")):
        return None
    inner = (module.dropout,) if isinstance(getattr(module, "dropout", None), torch.nn.Dropout) else ()
    reason = _why_not_old(module)
    if reason:
        candidate = refused(module, "attention", was, reason)
        candidate.inner = inner
        return candidate
    default = "recompute" if module.dropout_prob else "store"
    return Candidate(module, "attention", was, _MODES,
                     lambda mode: swap_in(module, SdpaSelfAttention, {"memory": mode}), default,
                     REASONS["attention"] if module.dropout_prob else _AS_LITTLE, inner=inner,
                     undo=lambda: restore(module))


def _why_not_old(module: torch.nn.Module) -> str:
    if not type(module).__name__.endswith("SdpaSelfAttention") or not hasattr(module, "dropout_prob"):
        return "it does not ask transformers' registry for its attention function; load it with sdpa, or transformers 5"
    if module.is_decoder or getattr(module, "position_embedding_type", "absolute") != "absolute":
        return "it is a decoder's, or has relative positions"
    if module.attention_head_size % 16 != 0:
        return f"its head size is {module.attention_head_size}, expected a multiple of 16"
    return why_not_swappable(module)


def stands_for(module: torch.nn.Module) -> str:
    """sdpa or eager; empty for an implementation that Gantry does not take the place of."""
    name = module.config._attn_implementation
    return STANDS_FOR.get(name, name if name in STANDS_FOR.values() else "")


def take_over(modules: Iterable[torch.nn.Module]) -> None:
    """Lets the configs of attention modules choose Gantry's function, each module in the mode "store" so far."""
    taken = {id(m.config): m.config._attn_implementation for m in modules if stands_for(m)}
    for module in modules:
        before = taken.get(id(module.config))
        if before is not None:
            module.__dict__.update({MEMORY: "store", _BEFORE: _Implementation(before)})
            ours = before if before in STANDS_FOR else f"gantry_{before}"
            module.config._attn_implementation_internal = ours


def release(module: torch.nn.Module) -> bool:
    """Undoes take_over() for one module and its config."""
    if _BEFORE not in module.__dict__:
        return False
    module.config._attn_implementation_internal = str(module.__dict__.pop(_BEFORE))
    del module.__dict__[MEMORY]
    return True


def _probability_dropout(module: torch.nn.Module) -> torch.nn.Module | float | None:
    for name in ("attn_dropout", "attention_dropout", "dropout"):
        if hasattr(module, name):
            return getattr(module, name)
    return None


def _rate(module: torch.nn.Module) -> float:
    found = _probability_dropout(module)
    return float(getattr(found, "p", found) or 0.0)


def _why_not(module: torch.nn.Module) -> str:
    name = module.config._attn_implementation
    if not stands_for(module):
        return f"its attention implementation is {name}, expected sdpa or eager"
    size = getattr(module, "head_dim", None) or getattr(module, "attention_head_size", 0)
    if size % 16 != 0:
        return f"its head size is {size}, expected a multiple of 16"
    extra = [keyword for keyword in _UNKNOWN if keyword in _names(inspect.unwrap(type(module).forward).__code__)]
    if extra:
        return f"it passes {extra[0]}"
    if stands_for(module) == "eager":
        if getattr(module.config, "output_attentions", False):
            return "its config asks for attention weights"
        if getattr(module, "reorder_and_upcast_attn", False):
            return "it reorders and upcasts its scores"
        if not _known_eager(stock_attention(module, "eager")):
            return "its eager attention computes something else"
    return why_not_swappable(module)


def _names(code: Any) -> set[str]:
    """Variables of a function and the keywords of its calls."""
    return {*code.co_varnames, *(name for constant in code.co_consts if isinstance(constant, tuple)
                                 for name in constant)}


def _known_eager(function: Any) -> bool:
    from transformers.models.bert import modeling_bert
    from transformers.models.gpt2 import modeling_gpt2
    from transformers.models.llama import modeling_llama

    known = [m.eager_attention_forward for m in (modeling_bert, modeling_gpt2, modeling_llama)
             if hasattr(m, "eager_attention_forward")]
    return function is not None and any(function.__code__.co_code == other.__code__.co_code
                                        and function.__code__.co_names == other.__code__.co_names for other in known)
