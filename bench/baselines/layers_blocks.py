"""Transformer layers of stock PyTorch, and what PyTorch offers to make them keep less for the backward pass.

Imported by the layers_*.py servers after server.limit_threads. Families: "bert" (post-norm, erf GELU, no mask), "gpt2"
(pre-norm, tanh GELU, causal) and "llama" (RMSNorm, rotary positions, grouped keys, SwiGLU, causal).
"""

import contextlib
import ctypes
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclasses.dataclass(frozen=True)
class Shape:
    family: str
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    sequence_length: int

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def causal(self):
        return self.family != "bert"


def shape_of(family, sequence_length):
    """BERT-large, GPT-2 medium, or a Llama layer of 2,048 with 32 query and 8 key heads."""
    if family == "llama":
        return Shape(family, 2048, 32, 8, 8192, sequence_length)
    return Shape(family, 1024, 16, 16, 4096, sequence_length)


@dataclasses.dataclass(frozen=True)
class Arm:
    attention: str = "explicit"  # "explicit" matrix products and softmax, or "sdpa"
    masks: str = "activation"  # what F.dropout keeps on a CPU: the activation's type; "byte": torch.native_dropout
    recompute: str = ""  # "attention" or "layer" under torch.utils.checkpoint
    compile_budget: float = 0.0  # torch.compile with this activation_memory_budget; 0: eager
    transformers: bool = False  # the layer of Hugging Face transformers


ARMS = {
    "eager": Arm(),
    "eager-byte-masks": Arm(masks="byte"),
    "sdpa": Arm(attention="sdpa"),
    "transformers-eager": Arm(transformers=True),
    "transformers-sdpa": Arm(transformers=True, attention="sdpa"),
    "checkpoint-attention": Arm(recompute="attention"),
    "checkpoint-layer": Arm(recompute="layer"),
    "compile": Arm(compile_budget=1.0),
    "compile-0.5": Arm(compile_budget=0.5),
    "compile-0.2": Arm(compile_budget=0.2),
    "compile-sdpa": Arm(attention="sdpa", compile_budget=1.0),
    "compile-sdpa-0.5": Arm(attention="sdpa", compile_budget=0.5),
}


class Layer(nn.Module):
    def __init__(self, shape, arm, dropout):
        super().__init__()
        self.shape, self.arm, self.dropout = shape, arm, dropout
        size, kv = shape.hidden, shape.kv_heads * shape.head_dim
        bias = shape.family != "llama"
        norm = nn.LayerNorm if bias else nn.RMSNorm
        self.norm1, self.norm2 = norm(size), norm(size)
        if shape.family == "gpt2":
            self.packed = nn.Linear(size, 3 * size)
        else:
            self.query, self.key, self.value = (nn.Linear(size, n, bias=bias) for n in (size, kv, kv))
        self.projection = nn.Linear(size, size, bias=bias)
        self.up, self.down = nn.Linear(size, shape.inner, bias=bias), nn.Linear(shape.inner, size, bias=bias)
        if shape.family == "llama":
            self.gate = nn.Linear(size, shape.inner, bias=False)
            half = shape.head_dim // 2
            angles = torch.outer(torch.arange(shape.sequence_length), 10000.0 ** (-torch.arange(half) / half)).repeat(1, 2)
            self.register_buffer("cosine", angles.cos(), persistent=False)
            self.register_buffer("sine", angles.sin(), persistent=False)
        if shape.causal and arm.attention == "explicit":
            length = shape.sequence_length
            self.register_buffer("hidden_keys", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)

    def drop(self, x):
        if self.dropout == 0 or not self.training:
            return x
        return torch.native_dropout(x, self.dropout, True)[0] if self.arm.masks == "byte" else F.dropout(x, self.dropout)

    def rotate(self, x):
        first, second = x.chunk(2, dim=-1)
        return x * self.cosine.to(x.dtype) + torch.cat((-second, first), dim=-1) * self.sine.to(x.dtype)

    def core(self, q, k, v):
        shape, grouped = self.shape, self.shape.heads != self.shape.kv_heads
        if self.arm.attention == "sdpa":
            p = self.dropout if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=shape.causal, enable_gqa=grouped)
        if grouped:
            k, v = (x.repeat_interleave(shape.heads // shape.kv_heads, dim=1) for x in (k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(shape.head_dim)
        if shape.causal:
            scores = scores.masked_fill(self.hidden_keys, -math.inf)
        return self.drop(scores.softmax(dim=-1)).to(v.dtype) @ v

    def attend(self, x):
        packed = self.packed(x).chunk(3, dim=-1) if self.shape.family == "gpt2" else (
            self.query(x), self.key(x), self.value(x))
        q, k, v = (t.unflatten(-1, (-1, self.shape.head_dim)).transpose(1, 2) for t in packed)
        if self.shape.family == "llama":
            q, k = self.rotate(q), self.rotate(k)
        if self.arm.recompute == "attention":
            heads = checkpoint(self.core, q, k, v, use_reentrant=False)
        else:
            heads = self.core(q, k, v)
        return self.projection(heads.transpose(1, 2).flatten(2))

    def feed_forward(self, x):
        if self.shape.family == "llama":
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.gelu(self.up(x), approximate="tanh" if self.shape.family == "gpt2" else "none"))

    def forward(self, x):
        if self.shape.family == "bert":
            x = self.norm1(x + self.drop(self.attend(x)))
            return self.norm2(x + self.drop(self.feed_forward(x)))
        x = x + self.drop(self.attend(self.norm1(x)))
        return x + self.drop(self.feed_forward(self.norm2(x)))


class TransformersLayer(nn.Module):
    """The layer as transformers ships it; ImportError where the package is absent."""

    def __init__(self, shape, arm, dropout):
        super().__init__()
        implementation = "sdpa" if arm.attention == "sdpa" else "eager"
        self.shape, self.implementation = shape, implementation
        if shape.family == "bert":
            from transformers.models.bert import modeling_bert as code
            config = code.BertConfig(
                hidden_size=shape.hidden, num_attention_heads=shape.heads, intermediate_size=shape.inner,
                hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, attn_implementation=implementation)
            self.layer = code.BertLayer(config)
        elif shape.family == "gpt2":
            from transformers.models.gpt2 import modeling_gpt2 as code
            config = code.GPT2Config(
                n_embd=shape.hidden, n_head=shape.heads, n_positions=shape.sequence_length, resid_pdrop=dropout,
                attn_pdrop=dropout, attn_implementation=implementation)
            self.layer = code.GPT2Block(config, layer_idx=0)
        else:
            from transformers.models.llama import modeling_llama as code
            config = code.LlamaConfig(
                hidden_size=shape.hidden, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
                intermediate_size=shape.inner, max_position_embeddings=shape.sequence_length,
                attn_implementation=implementation)
            self.layer = code.LlamaDecoderLayer(config, layer_idx=0)
            self.rotary = code.LlamaRotaryEmbedding(config)
        length = shape.sequence_length
        if shape.causal and implementation == "eager":
            mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min).triu(1)
            self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        arguments = {}
        if self.shape.causal and self.implementation == "eager":
            low = torch.is_autocast_enabled("cpu")
            arguments["attention_mask"] = self.mask.to(torch.get_autocast_dtype("cpu")) if low else self.mask
        if self.shape.family == "llama":
            positions = torch.arange(self.shape.sequence_length).unsqueeze(0)
            arguments |= {"position_ids": positions, "position_embeddings": self.rotary(x, positions)}
        y = self.layer(x, **arguments)
        return y[0] if isinstance(y, tuple) else y


class Recomputed(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return checkpoint(self.layer, x, use_reentrant=False)


def make_layer(arm_name, shape, dropout, dtype=None):
    """A layer in training mode. Compiled arms specialise on everything but the batch (mark it, see mark_batch)."""
    arm = ARMS[arm_name]
    layer = (TransformersLayer if arm.transformers else Layer)(shape, arm, dropout).to(dtype).train()
    if arm.recompute == "layer":
        return Recomputed(layer)
    if arm.compile_budget > 0:
        import torch._functorch.config

        torch._functorch.config.activation_memory_budget = arm.compile_budget
        return torch.compile(layer)
    return layer


def mark_batch(arm_name, x):
    """Lets one compilation serve every batch but 1, which torch always treats as a case of its own."""
    if ARMS[arm_name].compile_budget > 0 and x.size(0) > 1:
        torch._dynamo.mark_dynamic(x, 0)
    return x


def autocast(dtype):
    """dtype "bf16-autocast" keeps fp32 weights; "fp32", "fp64" and "bf16" need no context."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bf16-autocast" else contextlib.nullcontext()


def parameter_dtype(dtype):
    return {"bf16": torch.bfloat16, "fp64": torch.float64}.get(dtype, torch.float32)


class SavedBytes:
    """Within `with`, counts the bytes of what autograd keeps: unique storages that are neither parameters nor buffers."""

    def __init__(self, module):
        own = list(module.parameters()) + list(module.buffers())
        self.skipped = {tensor.untyped_storage().data_ptr() for tensor in own}
        self.storages = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)

    def keep(self, tensor):
        storage = tensor.untyped_storage()
        if storage.nbytes() > 0 and storage.data_ptr() not in self.skipped:
            # Holding the storage keeps its address from being used twice.
            self.storages[storage.data_ptr()] = storage
        return tensor

    @property
    def bytes(self):
        return sum(storage.nbytes() for storage in self.storages.values())

    def __enter__(self):
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception):
        return self.hooks.__exit__(*exception)


_libc = ctypes.CDLL(None)


def give_back_free_memory():
    _libc.malloc_trim(0)
