"""Modules of Hugging Face transformers as mixins of patch_swap.Patched: what their forward becomes in training.

Where a module's work is done from the parameters of its inner modules, hooks and replacements of these (adapters, say)
must not be passed over: `gantry_parts` holds their classes at the time of the patch, and a module whose parts are
others by now, or have hooks, runs its stock forward and warns.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from gantry.nn import functional
from gantry.nn.patch_swap import Patched, has_hooks, original_class


def part_classes(parts: tuple[torch.nn.Module, ...]) -> tuple[type, ...]:
    return tuple(original_class(part) for part in parts)


def unlike(parts: tuple[torch.nn.Module, ...], classes: tuple[type, ...]) -> str:
    """Why the parts may not be passed over, or an empty string."""
    for part, cls in zip(parts, classes, strict=True):
        if original_class(part) is not cls:
            return f"its {cls.__name__} is now a {type(part).__name__}"
        if has_hooks(part):
            return f"its {cls.__name__} has hooks"
        if "forward" in part.__dict__:
            return f"the forward of its {cls.__name__} was replaced"
    return ""


class Fused(Patched):
    """A module that does the work of its parts."""

    gantry_parts: tuple[type, ...]

    def parts(self) -> tuple[torch.nn.Module, ...]:
        raise NotImplementedError

    def fuses(self) -> bool:
        if not self.training:
            return False
        why = unlike(self.parts(), self.gantry_parts)
        if why and not torch.compiler.is_compiling():
            warnings.warn(f"gantry: {type(self).__name__} runs its stock forward: {why}", stacklevel=3)
        return not why


class Activation(Patched):
    gantry_activation: str

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        return functional._activation(input, self.gantry_activation)


class RmsNorm(Patched):
    """LlamaRMSNorm and its copies: weight * (x / rms(x)), normalised in fp32."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.weight.dtype != hidden_states.dtype:
            return super().forward(hidden_states)
        return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


class ResidualNorm(Fused):
    """BertOutput and BertSelfOutput: LayerNorm(dropout(dense(x)) + residual), the last three as one operator."""

    def parts(self) -> tuple[torch.nn.Module, ...]:
        return self.dropout, self.LayerNorm

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        if not self.fuses():
            return super().forward(hidden_states, input_tensor)
        return self.tail(self.dense(hidden_states), input_tensor)

    def tail(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        norm = self.LayerNorm
        return functional.dropout_add_norm(x, residual, norm.weight, norm.bias, p=self.dropout.p, eps=norm.eps)


class BertMlp(Fused):
    """BertLayer with linear, activation and linear as one operator."""

    gantry_activation: str

    def parts(self) -> tuple[torch.nn.Module, ...]:
        inner, output = self.intermediate, self.output
        return inner, inner.dense, inner.intermediate_act_fn, output, output.dense

    def feed_forward_chunk(self, attention_output: torch.Tensor) -> torch.Tensor:
        if not self.fuses():
            return super().feed_forward_chunk(attention_output)
        inner, output = self.intermediate.dense, self.output
        x = functional.mlp(attention_output, inner.weight, inner.bias, output.dense.weight, output.dense.bias,
                           activation=self.gantry_activation, memory=self.memory)
        if isinstance(output, ResidualNorm) and output.fuses():
            return output.tail(x, attention_output)
        return output.LayerNorm(output.dropout(x) + attention_output)


class Gpt2Mlp(Fused):
    """GPT2MLP with projections and activation as one operator; Conv1D holds the transpose of Linear's weight."""

    gantry_activation: str

    def parts(self) -> tuple[torch.nn.Module, ...]:
        return self.c_fc, self.act, self.c_proj

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.fuses():
            return super().forward(hidden_states)
        x = functional.mlp(hidden_states, self.c_fc.weight.t(), self.c_fc.bias, self.c_proj.weight.t(),
                           self.c_proj.bias, activation=self.gantry_activation, memory=self.memory)
        return self.dropout(x)


class LlamaMlp(Fused):
    """LlamaMLP as one operator that keeps the gate and the up projection."""

    gantry_activation: str

    def parts(self) -> tuple[torch.nn.Module, ...]:
        return self.gate_proj, self.act_fn, self.up_proj, self.down_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.fuses():
            return super().forward(x)
        return functional.gated_mlp(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight,
                                    activation=self.gantry_activation, memory=self.memory)


class SdpaSelfAttention(Patched):
    """BertSdpaSelfAttention and its copies, which transformers before 4.57 had instead of a registry of functions."""

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *args: Any,
                **kwargs: Any) -> tuple[torch.Tensor, ...]:
        others = [*args, *(value for name, value in kwargs.items() if name != "cache_position")]
        if not self.training or any(value is not None and value is not False for value in others):
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        shape = (*hidden_states.shape[:2], self.num_attention_heads, self.attention_head_size)
        query, key, value = (projection(hidden_states).view(shape).transpose(1, 2)
                             for projection in (self.query, self.key, self.value))
        out = functional.scaled_dot_product_attention(query, key, value, attention_mask, self.dropout_prob,
                                                      memory=self.memory)
        return out.transpose(1, 2).reshape(hidden_states.shape), None
