"""SelfAttention: torch.nn.MultiheadAttention for queries, keys and values that are one tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from gantry.nn import functional as GF
from gantry.nn.modules import MemoryModeMixin


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torch's mask, where True hides, as numbers to add; floating masks as they are."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, -math.inf)


class SelfAttention(MemoryModeMixin, torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention for self attention: same arguments, same state dict.

    'recompute' (the default) keeps the packed projections, the heads' output and one float a row and head; 'in-place'
    the probabilities too, with the dropout mask in their signs, which is faster; 'rerun' the input alone, from which
    the projections and the attention are computed again; 'int8' the projections in eight bits (lossy), from which the
    attention is computed again; 'store' is torch's own. Dropout draws its mask from a seed.

    Refused with ValueError, except under 'store': kdim or vdim other than embed_dim, add_bias_kv, add_zero_attn,
    batch_first=False (in the constructor); query, key and value that are not one tensor, need_weights=True (which
    includes the default of forward(): the weights are what is not kept). Head sizes that are no multiples of 16, other
    devices and types than float32 and bfloat16 on the CPU take torch's scaled_dot_product_attention.
    """

    MODES = ("store", "in-place", "recompute", "rerun", "int8")
    _DEFAULT = "recompute"

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None,
                 dtype: torch.dtype | None = None, *, memory: str | None = None) -> None:
        super().__init__(embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first,
                         device, dtype)
        self.memory = self.check_memory(memory)
        self._after_share()

    def _after_share(self) -> None:
        reason = self.refusal(self)
        if reason and self.memory != "store":
            raise ValueError(f"SelfAttention: memory={self.memory!r} is refused: {reason}; use memory='store'")

    @staticmethod
    def refusal(module: torch.nn.MultiheadAttention) -> str:
        """Why a torch.nn.MultiheadAttention can only be had with 'store', or an empty string."""
        if not module._qkv_same_embed_dim:
            return "kdim or vdim differs from embed_dim"
        if module.bias_k is not None or module.add_zero_attn:
            return "add_bias_kv and add_zero_attn append keys that are no tokens"
        if not module.batch_first:
            return "batch_first is False"
        return ""

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, memory={self.memory!r}"

    def forward(self, query: torch.Tensor, key: torch.Tensor | None = None, value: torch.Tensor | None = None,
                key_padding_mask: torch.Tensor | None = None, need_weights: bool = True,
                attn_mask: torch.Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        key = query if key is None else key
        value = query if value is None else value
        if self._takes_stock():
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights,
                                   is_causal)
        if query is not key or query is not value:
            raise ValueError("SelfAttention: query, key and value must be one tensor; use memory='store' for others")
        if need_weights:
            raise ValueError("SelfAttention: need_weights=True asks for the probabilities that are not kept; pass "
                             "need_weights=False, or use memory='store'")
        if is_causal and attn_mask is None:
            raise ValueError("SelfAttention: is_causal=True needs attn_mask too, as in torch")
        batched = query.dim() == 3
        x = query if batched else query.unsqueeze(0)
        # torch's contract: attn_mask is then the causal mask.
        key_mask, mask = self._masks(x, key_padding_mask, None if is_causal else attn_mask)
        p = self.dropout if self.training else 0.0
        seed = GF._draw_seed() if p > 0.0 else None
        if self.memory == "rerun":
            out = checkpoint(self._attend, x, mask, key_mask, seed, p, is_causal, use_reentrant=False,
                             preserve_rng_state=p > 0.0)
        else:
            out = self._attend(x, mask, key_mask, seed, p, is_causal)
        return (out if batched else out.squeeze(0)), None

    def _masks(self, x: torch.Tensor, key_padding_mask: torch.Tensor | None,
               attn_mask: torch.Tensor | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(key_mask bool [B, T] where False hides, mask for the scores as the kernels want it); either may be None."""
        batch, length, _ = x.shape
        mask = attn_mask
        if mask is not None and mask.dim() == 3:
            mask = mask.reshape(batch, self.num_heads, length, length)
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:
            added = key_padding_mask.reshape(batch, 1, 1, length)
            return None, added if mask is None else added + _additive(mask, added.dtype)
        key_mask = None if key_padding_mask is None else key_padding_mask.reshape(batch, length).logical_not()
        if mask is not None and mask.dtype == torch.bool:
            mask = mask.logical_not()
        return key_mask, mask

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None, key_mask: torch.Tensor | None,
                seed: torch.Tensor | None, p: float, causal: bool) -> torch.Tensor:
        batch, length, _ = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, length, 3, self.num_heads, self.head_dim).unbind(2)
        heads = GF._heads(q, k, v, mask, key_mask, seed, p, causal, self.memory)
        return F.linear(heads.reshape(batch, length, self.embed_dim), self.out_proj.weight, self.out_proj.bias)
