"""torch.nn.functional's operators with less kept for the backward pass, and the fused ones of gantry.

CPU tensors take the kernels of the extension, which are written for float32 and bfloat16 (all but attention take
float16 and, for gradient checks, float64 as well). Whatever has no kernel (other devices, empty tensors, head sizes that
are no multiples of 16) takes torch's own operators, with their bytes. Under autocast the results have autocast's type,
so that the next linear layer keeps the same tensor.

Every operator traces into torch.compile(fullgraph=True). Gradients cannot be differentiated again, except those of
dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from gantry.nn._ops import ops

__all__ = [
    "dropout",
    "dropout_add_norm",
    "gated_mlp",
    "gelu",
    "layer_norm",
    "linear_cross_entropy",
    "mlp",
    "quick_gelu",
    "rms_norm",
    "scaled_dot_product_attention",
    "silu",
]

_ALL_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_VECTOR_TYPES = (torch.float32, torch.bfloat16)


def _has_kernel(x: torch.Tensor, types: tuple[torch.dtype, ...] = _ALL_TYPES) -> bool:
    return x.device.type == "cpu" and x.layout == torch.strided and x.dtype in types and x.numel() > 0


def _autocast_enabled(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _autocast_type(x: torch.Tensor) -> torch.dtype:
    """The type that autocast computes in, or x's own."""
    kind = x.device.type
    if x.dtype == torch.float64 or not x.is_floating_point() or not _autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


def _cast(*tensors: torch.Tensor | None) -> tuple[Any, ...]:
    """All in the type that autocast wants of the first one; as they are without autocast."""
    kind = tensors[0].device.type
    if not _autocast_enabled(kind):
        return tensors
    dtype = _autocast_type(tensors[0])
    return tuple(x if x is None else x.to(dtype) for x in tensors)


def _draw_seed() -> torch.Tensor:
    # From torch's generator and outside the operator, so that torch.manual_seed, and checkpointing and compilers that
    # replay random numbers, govern it.
    return torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device="cpu")


def _check_p(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


# ---- activations

_GELU_KINDS = {"none": "gelu", "tanh": "gelu_tanh"}


def _plain_activation(x: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "silu":
        return F.silu(x)
    if kind == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def _activation(x: torch.Tensor, kind: str) -> torch.Tensor:
    (x,) = _cast(x)
    return ops.activation(x, kind)[0] if _has_kernel(x) else _plain_activation(x, kind)


def gelu(input: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """GELU that keeps its output, which the next layer keeps anyway, and one bit an element, instead of its input."""
    if approximate not in _GELU_KINDS:
        raise ValueError(f"approximate is {approximate!r}, expected 'none' or 'tanh'")
    return _activation(input, _GELU_KINDS[approximate])


def silu(input: torch.Tensor) -> torch.Tensor:
    """SiLU, x sigmoid(x), that keeps its output and one bit an element."""
    return _activation(input, "silu")


def quick_gelu(input: torch.Tensor) -> torch.Tensor:
    """x sigmoid(1.702 x) that keeps its output and one bit an element."""
    return _activation(input, "quick_gelu")


# ---- norms


def _norm(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float,
          kind: str) -> torch.Tensor:
    return ops.norm(x, weight, bias, eps, kind, _autocast_type(x))[0]


def _check_normalized(input: torch.Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape):]) != shape:
        raise RuntimeError(f"Given normalized_shape={list(shape)}, expected input with shape [*, "
                           f"{', '.join(map(str, shape))}], but got input of size {list(input.shape)}")
    return shape


def _over_last_axes(input: torch.Tensor, shape: tuple[int, ...], weight: torch.Tensor | None, bias: torch.Tensor | None,
                    eps: float, kind: str) -> torch.Tensor:
    if len(shape) == 1:
        return _norm(input, weight, bias, eps, kind)
    n = math.prod(shape)
    flat = [None if parameter is None else parameter.reshape(n) for parameter in (weight, bias)]
    return _norm(input.reshape(*input.shape[:-len(shape)], n), *flat, eps, kind).view(input.shape)


def layer_norm(input: torch.Tensor, normalized_shape: int | Sequence[int], weight: torch.Tensor | None = None,
               bias: torch.Tensor | None = None, eps: float = 1e-5) -> torch.Tensor:
    """Layer norm that keeps its output and 4 bytes a row instead of its input.

    Columns that cannot be recovered from the output (weight 0, or a bias far larger than the weight) are kept beside
    it.
    weight and bias must not change between forward and backward: autograd then raises.
    """
    shape = _check_normalized(input, normalized_shape)
    if not _has_kernel(input):
        return F.layer_norm(input, shape, weight, bias, eps)
    return _over_last_axes(input, shape, weight, bias, eps, "layer")


def rms_norm(input: torch.Tensor, normalized_shape: int | Sequence[int], weight: torch.Tensor | None = None,
             eps: float | None = None) -> torch.Tensor:
    """RMS norm, as layer_norm(). eps: that of float32 (float64 for float64) where it is None, as in torch."""
    shape = _check_normalized(input, normalized_shape)
    if not _has_kernel(input):
        return F.rms_norm(input, shape, weight, eps)
    if eps is None:
        eps = torch.finfo(torch.float64 if input.dtype == torch.float64 else torch.float32).eps
    return _over_last_axes(input, shape, weight, None, eps, "rms")


# ---- dropout


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Dropout that keeps a seed of 8 bytes, from which the backward pass draws the mask again."""
    _check_p(p)
    if not training or p == 0.0:
        return input
    if not _has_kernel(input):
        return F.dropout(input, p, True, inplace)
    y = ops.dropout(input, _draw_seed(), p)
    return input.copy_(y) if inplace else y


def dropout_add_norm(input: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None = None,
                     bias: torch.Tensor | None = None, *, p: float = 0.0, training: bool = True, eps: float = 1e-5,
                     kind: str = "layer", return_sum: bool = False) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """norm(residual + dropout(input)) over the last axis in one pass that keeps its output, 4 bytes a row and a seed.

    kind: 'layer' or 'rms'. With return_sum the pair (norm, residual + dropout(input)).
    """
    _check_p(p)
    if kind not in ("layer", "rms") or (kind == "rms" and bias is not None):
        raise ValueError(f"kind is {kind!r}, expected 'layer', or 'rms' without a bias")
    p = p if training else 0.0
    input, residual = _cast(input, residual)
    if not _has_kernel(input):
        total = residual + F.dropout(input, p)
        shape = total.shape[-1:]
        y = F.layer_norm(total, shape, weight, bias, eps) if kind == "layer" else F.rms_norm(total, shape, weight, eps)
        return (y, total) if return_sum else y
    seed = _draw_seed() if p > 0.0 else None
    y, total, _ = ops.dropout_add_norm(input, residual, weight, bias, seed, p, eps, kind, return_sum)
    return (y, total) if return_sum else y


# ---- attention


def _attention_keep(memory: str | None) -> str:
    keep = {"in-place": "probabilities", "int8": "int8"}.get(memory, "log-sums")
    return keep if torch.is_grad_enabled() else "log-sums"


def _heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, key_mask: torch.Tensor | None,
           seed: torch.Tensor | None, p: float, causal: bool, memory: str) -> torch.Tensor:
    """Attention of q, k, v [B, T, heads, D] -> the same shape; key_mask [B, T], mask: bool, False hides, or added."""
    scale = 1.0 / math.sqrt(q.shape[3])
    if _has_kernel(q, _VECTOR_TYPES) and q.shape[3] % 16 == 0:
        return ops.attention(q, k, v, mask, key_mask, seed, p, scale, causal, _attention_keep(memory))[0]
    shown = None if key_mask is None else key_mask[:, None, None, :]
    if causal:
        earlier = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()
        shown = earlier if shown is None else shown & earlier
    if shown is not None:
        if mask is None or mask.dtype == torch.bool:
            mask = shown if mask is None else mask & shown
        else:
            mask = mask.masked_fill(~shown, -math.inf)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    return F.scaled_dot_product_attention(*heads_first, mask, p).transpose(1, 2)


def _attention_refusal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None,
                       is_causal: bool, scale: float | None, enable_gqa: bool) -> str:
    """Why the kernels do not take the call, or an empty string."""
    for x in (query, key, value):
        if not _has_kernel(x, _VECTOR_TYPES) or x.dtype != query.dtype:
            return "tensors are not all float32 or all bfloat16 on the CPU, or are empty"
        if x.dim() != 4:
            return "tensors do not have four axes"
    if key.shape != value.shape or query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        return "batch or head sizes differ"
    if query.shape[3] % 16 != 0:
        return f"the head size, {query.shape[3]}, is no multiple of 16"
    if query.shape[1] != key.shape[1] and not (enable_gqa and query.shape[1] % key.shape[1] == 0):
        return "numbers of heads differ"
    if attn_mask is not None and (is_causal or attn_mask.dim() > 4 or attn_mask.device.type != "cpu"):
        return "the mask comes with is_causal, or has more than four axes"
    if scale is not None and not 0.0 < scale < math.inf:
        return "scale is not positive"
    return ""


def scaled_dot_product_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                                 attn_mask: torch.Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *,
                                 memory: str | None = None) -> torch.Tensor:
    """torch's function of that name.

    memory: 'recompute' (the default) keeps query, key, value, the output and one float a row; 'in-place' keeps the
    probabilities too, with the dropout mask in their signs, which is faster; 'int8' keeps query, key and value in eight
    bits (lossy) and computes the attention again; 'store' is torch's own.
    """
    if memory not in (None, "store", "in-place", "recompute", "int8"):
        raise ValueError(f"memory={memory!r}: expected 'store', 'in-place', 'recompute' or 'int8'; queries, keys and "
                         "values are given, so that 'rerun' has nothing to make them from")
    _check_p(dropout_p)
    mask_cast = attn_mask
    query, key, value = _cast(query, key, value)
    if memory == "store" or _attention_refusal(query, key, value, attn_mask, is_causal, scale, enable_gqa):
        if mask_cast is not None and mask_cast.is_floating_point():
            mask_cast = mask_cast.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, mask_cast, dropout_p, is_causal, scale=scale,
                                              enable_gqa=enable_gqa)
    if is_causal and query.shape[2] != key.shape[2]:
        # torch aligns the diagonal with the first query and key, the kernels with the last ones.
        attn_mask, is_causal = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(), False
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[3])
    seed = _draw_seed() if dropout_p > 0.0 else None
    out, _ = ops.attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask, None, seed,
                           dropout_p, scale, is_causal, _attention_keep(memory))
    return out.transpose(1, 2)


# ---- feed-forward blocks

_BLOCK_KEEPS = {"recompute": "inner", "rerun": "nothing", "int8": "int8"}


def _check_kind(activation: str) -> None:
    if activation not in ("gelu", "gelu_tanh", "silu", "quick_gelu"):
        raise ValueError(f"activation is {activation!r}, expected 'gelu', 'gelu_tanh', 'silu' or 'quick_gelu'")


def _check_memory(memory: str) -> None:
    if memory not in ("store", "in-place", "recompute", "rerun", "int8"):
        raise ValueError(f"memory={memory!r}: expected 'store', 'in-place', 'recompute', 'rerun' or 'int8'")


def mlp(input: torch.Tensor, weight1: torch.Tensor, bias1: torch.Tensor | None, weight2: torch.Tensor,
        bias2: torch.Tensor | None, activation: str = "gelu", *, memory: str = "recompute") -> torch.Tensor:
    """linear2(activation(linear1(input))); biases may be None.

    memory: 'recompute' keeps input and the activation's input, 'rerun' input alone (linear1 runs again), 'in-place' the
    activation's output and one bit an element, 'int8' both of 'recompute' in eight bits (lossy), 'store' what torch's
    operators keep. input is kept only where weight1 wants a gradient, or by 'rerun'.
    """
    _check_kind(activation)
    _check_memory(memory)
    input, weight1, bias1, weight2, bias2 = _cast(input, weight1, bias1, weight2, bias2)
    if memory in _BLOCK_KEEPS and _has_kernel(input):
        return ops.mlp(input, weight1, bias1, weight2, bias2, activation, _BLOCK_KEEPS[memory])[0]
    inner = F.linear(input, weight1, bias1)
    inner = _activation(inner, activation) if memory == "in-place" else _plain_activation(inner, activation)
    return F.linear(inner, weight2, bias2)


def gated_mlp(input: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor,
              activation: str = "silu", *, memory: str = "recompute") -> torch.Tensor:
    """down(activation(gate(input)) * up(input)), without biases.

    memory: 'recompute' keeps input, gate(input) and up(input), 'rerun' input alone, 'int8' the same as 'recompute' in
    eight bits (lossy), 'store' what torch's operators keep.
    """
    _check_kind(activation)
    if memory == "in-place":
        raise ValueError("memory='in-place': the product with up() needs both factors, so that keeping the "
                         "activation's output saves nothing; use 'recompute'")
    _check_memory(memory)
    input, gate, up, down = _cast(input, gate, up, down)
    if memory in _BLOCK_KEEPS and _has_kernel(input, (torch.float32, torch.bfloat16, torch.float16)):
        return ops.gated_mlp(input, gate, up, down, activation, _BLOCK_KEEPS[memory])[0]
    return F.linear(_plain_activation(F.linear(input, gate), activation) * F.linear(input, up), down)


# ---- loss


def _plain_loss(input: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, bias: torch.Tensor | None,
                ignore_index: int, label_smoothing: float, reduction: str) -> torch.Tensor:
    logits = F.linear(input, weight, bias).reshape(-1, weight.shape[0])
    logits = logits if input.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(logits, target.reshape(-1), ignore_index=ignore_index, reduction=reduction,
                           label_smoothing=label_smoothing)
    return loss.reshape(target.shape) if reduction == "none" else loss


def linear_cross_entropy(input: torch.Tensor, weight: torch.Tensor, target: torch.Tensor,
                         bias: torch.Tensor | None = None, ignore_index: int = -100, label_smoothing: float = 0.0,
                         reduction: str = "mean") -> torch.Tensor:
    """cross_entropy(linear(input, weight, bias), target) without the logits of all tokens.

    input [..., n], weight [classes, n], target int64 [...]. float32 loss (float64 for float64): a scalar, or target's
    shape with reduction 'none', which computes the logits again in the backward pass.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if target.is_floating_point():
        raise ValueError("target holds floating-point numbers: class probabilities are not supported, expected int64 "
                         "class indices")
    input, weight, bias = _cast(input, weight, bias)
    if not _has_kernel(input):
        return _plain_loss(input, weight, target, bias, ignore_index, label_smoothing, reduction)
    if reduction == "none":
        return ops.linear_cross_entropy_losses(input, weight, bias, target, ignore_index, label_smoothing)
    tracked = torch.is_grad_enabled()
    wanted = [tracked and x is not None and x.requires_grad for x in (input, weight, bias)]
    return ops.linear_cross_entropy(input, weight, bias, target, ignore_index, label_smoothing, reduction == "mean",
                                    wanted)[0]
