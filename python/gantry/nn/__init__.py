"""Layers for torch models that keep less for the backward pass (Tempo, NeurIPS 2022), and what they are made of.

    from gantry.nn import GELU, LayerNorm

    layer = LayerNorm(768)              # torch.nn.LayerNorm's arguments, state dict and results
    layer = LayerNorm(768, memory="store")

Operators: gantry.nn.functional. All of them trace into torch.compile without a graph break.
"""

from gantry.nn import functional
from gantry.nn.modules import (
    GELU,
    Dropout,
    FusedGatedMLP,
    FusedMLP,
    LayerNorm,
    LinearCrossEntropy,
    QuickGELU,
    RMSNorm,
    SiLU,
)
from gantry.nn.modules_attention import SelfAttention
from gantry.nn.patch import patch, unpatch

__all__ = [
    "GELU",
    "Dropout",
    "FusedGatedMLP",
    "FusedMLP",
    "LayerNorm",
    "LinearCrossEntropy",
    "QuickGELU",
    "RMSNorm",
    "SelfAttention",
    "SiLU",
    "functional",
    "patch",
    "unpatch",
]
