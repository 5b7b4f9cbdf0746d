"""torch.nn's layers with one more keyword, memory: what the layer keeps for its backward pass.

Each is a subclass of torch's layer of that name: isinstance, state dicts, pickling and copies work as they do there. In
eval mode with gradients off the forward pass is torch's own. Modes:

    'store'      what torch's operators keep
    'in-place'   outputs, which the next layer keeps anyway, instead of inputs
    'recompute'  the least that costs (almost) no time
    'rerun'      the input alone; the layer's first product runs again in the backward pass
    'int8'       what 'recompute' keeps, in eight bits: the one mode whose gradients are not exact up to rounding

A mode that a layer cannot do raises ValueError with the reason; Layer.MODES lists those it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from gantry.nn import functional as GF

if TYPE_CHECKING:
    from typing_extensions import Self

_ALL_MODES = ("store", "in-place", "recompute", "rerun", "int8")
_KEPT_ANYWAY = "the next layer keeps the output anyway, so that a copy in eight bits costs more than 'in-place'"


class MemoryModeMixin:
    """The mode of a layer; `default` is for memory=None, `refusals` says why a mode is not in MODES."""

    MODES: ClassVar[tuple[str, ...]] = ()
    _DEFAULT: ClassVar[str] = ""
    _REFUSALS: ClassVar[dict[str, str]] = {}

    memory: str

    @classmethod
    def check_memory(cls, memory: str | None) -> str:
        """The mode that `memory` names: the layer's own for None. ValueError for one that the layer cannot do."""
        if memory is None:
            return cls._DEFAULT
        if memory in cls.MODES:
            return memory
        if memory not in _ALL_MODES:
            raise ValueError(f"{cls.__name__}: memory={memory!r} is no mode, expected one of {', '.join(cls.MODES)}")
        raise ValueError(f"{cls.__name__}: memory={memory!r} is refused: {cls._REFUSALS[memory]}; it can do "
                         f"{', '.join(cls.MODES)}")

    @classmethod
    def share(cls, module: torch.nn.Module, memory: str | None = None) -> Self:
        """A layer with the parameters, buffers, hooks, options and training flag of `module`, torch's layer."""
        layer = cls.__new__(cls)
        layer.__dict__.update(module.__dict__)
        for name in ("_parameters", "_buffers", "_modules"):
            layer.__dict__[name] = dict(module.__dict__[name])
        layer.memory = cls.check_memory(memory)
        layer._after_share()
        return layer

    def _after_share(self) -> None:
        pass

    def _takes_stock(self) -> bool:
        return self.memory == "store" or not (self.training or torch.is_grad_enabled())

    def extra_repr(self) -> str:
        inherited = super().extra_repr()
        return f"{inherited}{', ' if inherited else ''}memory={self.memory!r}"


_ACTIVATION_REFUSALS = {
    "recompute": "an activation alone has nothing to make its input from; use FusedMLP, or 'in-place'",
    "rerun": "an activation alone has nothing to make its input from; use FusedMLP, or 'in-place'",
    "int8": _KEPT_ANYWAY,
}


class GELU(MemoryModeMixin, torch.nn.GELU):
    """torch.nn.GELU that keeps its output and one bit an element ('in-place', the default) instead of its input."""

    MODES = ("store", "in-place")
    _DEFAULT = "in-place"
    _REFUSALS = _ACTIVATION_REFUSALS

    def __init__(self, approximate: str = "none", *, memory: str | None = None) -> None:
        super().__init__(approximate)
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate is {approximate!r}, expected 'none' or 'tanh'")
        self.memory = self.check_memory(memory)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) if self._takes_stock() else GF.gelu(input, self.approximate)


class SiLU(MemoryModeMixin, torch.nn.SiLU):
    """torch.nn.SiLU that keeps its output and one bit an element ('in-place', the default) instead of its input.

    inplace=True is torch's own operator, which keeps a copy of its input: memory is then 'store'.
    """

    MODES = ("store", "in-place")
    _DEFAULT = "in-place"
    _REFUSALS = _ACTIVATION_REFUSALS

    def __init__(self, inplace: bool = False, *, memory: str | None = None) -> None:
        super().__init__(inplace)
        self.memory = self.check_memory(memory)
        if inplace and memory == "in-place":
            raise ValueError("SiLU: memory='in-place' is refused: inplace=True overwrites the input, which saves "
                             "nothing here, since the output is kept anyway; use inplace=False")
        self._after_share()

    def _after_share(self) -> None:
        if self.inplace:
            self.memory = "store"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) if self._takes_stock() else GF.silu(input)


class QuickGELU(MemoryModeMixin, torch.nn.Module):
    """x sigmoid(1.702 x), the activation of CLIP; keeps its output and one bit an element."""

    MODES = ("store", "in-place")
    _DEFAULT = "in-place"
    _REFUSALS = _ACTIVATION_REFUSALS

    def __init__(self, *, memory: str | None = None) -> None:
        super().__init__()
        self.memory = self.check_memory(memory)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input * torch.sigmoid(1.702 * input) if self._takes_stock() else GF.quick_gelu(input)


class LayerNorm(MemoryModeMixin, torch.nn.LayerNorm):
    """torch.nn.LayerNorm that keeps its output and 4 bytes a row instead of its input, mean and deviation.

    'recompute' and 'rerun' are 'in-place' here. Under autocast the output has autocast's type, not float32, so that the
    next layer keeps the same tensor; sums are float32.
    """

    MODES = ("store", "in-place", "recompute", "rerun")
    _DEFAULT = "in-place"
    _REFUSALS = {"int8": _KEPT_ANYWAY}

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device: Any = None, dtype: torch.dtype | None = None, *,
                 memory: str | None = None) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)
        self.memory = self.check_memory(memory)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._takes_stock():
            return super().forward(input)
        return GF.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(MemoryModeMixin, torch.nn.RMSNorm):
    """torch.nn.RMSNorm, as LayerNorm."""

    MODES = ("store", "in-place", "recompute", "rerun")
    _DEFAULT = "in-place"
    _REFUSALS = {"int8": _KEPT_ANYWAY}

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None,
                 elementwise_affine: bool = True, device: Any = None, dtype: torch.dtype | None = None, *,
                 memory: str | None = None) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        self.memory = self.check_memory(memory)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._takes_stock():
            return super().forward(x)
        return GF.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class Dropout(MemoryModeMixin, torch.nn.Dropout):
    """torch.nn.Dropout that keeps a seed of 8 bytes ('recompute', the default) instead of a mask.

    The seed comes from torch's default CPU generator; masks differ from torch's for the same torch.manual_seed.
    """

    MODES = ("store", "recompute", "rerun")
    _DEFAULT = "recompute"
    _REFUSALS = {
        "in-place": "the output does not tell what was dropped where the input was zero; use 'recompute'",
        "int8": "a seed of 8 bytes is all that 'recompute' keeps",
    }

    def __init__(self, p: float = 0.5, inplace: bool = False, *, memory: str | None = None) -> None:
        super().__init__(p, inplace)
        self.memory = self.check_memory(memory)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.memory == "store":
            return super().forward(input)
        return GF.dropout(input, self.p, True, self.inplace)


class FusedMLP(MemoryModeMixin, torch.nn.Module):
    """linear2(activation(linear1(x))) as one node. State dict: linear1.weight, linear1.bias, linear2.weight,
    linear2.bias, the names in torch.nn.TransformerEncoderLayer.

    activation: 'gelu', 'gelu_tanh', 'silu' or 'quick_gelu'. 'recompute' (the default) keeps x and the activation's
    input, 'rerun' x alone, 'in-place' x, the activation's output and one bit an element, 'int8' what 'recompute' keeps
    in eight bits. Hooks of linear1 and linear2 are called by 'store' alone.
    """

    MODES = ("store", "in-place", "recompute", "rerun", "int8")
    _DEFAULT = "recompute"

    def __init__(self, in_features: int, hidden_features: int, out_features: int | None = None, bias: bool = True,
                 activation: str = "gelu", device: Any = None, dtype: torch.dtype | None = None, *,
                 memory: str | None = None) -> None:
        super().__init__()
        GF._check_kind(activation)
        kwargs = {"bias": bias, "device": device, "dtype": dtype}
        self.linear1 = torch.nn.Linear(in_features, hidden_features, **kwargs)
        self.linear2 = torch.nn.Linear(hidden_features, in_features if out_features is None else out_features, **kwargs)
        self.activation = activation
        self.memory = self.check_memory(memory)

    @classmethod
    def from_linears(cls, linear1: torch.nn.Linear, linear2: torch.nn.Linear, activation: str = "gelu", *,
                     memory: str | None = None) -> Self:
        """A block around two torch.nn.Linear, which it shares: from_linears(seq[0], seq[2]) for a Sequential."""
        GF._check_kind(activation)
        if linear1.out_features != linear2.in_features:
            raise ValueError(f"FusedMLP: linear1 gives {linear1.out_features} features, linear2 takes "
                             f"{linear2.in_features}")
        block = cls.__new__(cls)
        torch.nn.Module.__init__(block)
        block.linear1, block.linear2, block.activation = linear1, linear2, activation
        block.memory = cls.check_memory(memory)
        block.training = linear1.training
        return block

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}, memory={self.memory!r}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._takes_stock():
            return self.linear2(GF._plain_activation(self.linear1(input), self.activation))
        return GF.mlp(input, self.linear1.weight, self.linear1.bias, self.linear2.weight, self.linear2.bias,
                      self.activation, memory=self.memory)


class FusedGatedMLP(MemoryModeMixin, torch.nn.Module):
    """down_proj(activation(gate_proj(x)) * up_proj(x)) without biases as one node, with the names that Llama uses.

    'recompute' (the default) keeps x, gate_proj(x) and up_proj(x), 'rerun' x alone, 'int8' what 'recompute' keeps in
    eight bits. Hooks of the three layers are called by 'store' alone.
    """

    MODES = ("store", "recompute", "rerun", "int8")
    _DEFAULT = "recompute"
    _REFUSALS = {"in-place": "the product needs both factors, so that keeping the activation's output saves nothing; "
                             "use 'recompute'"}

    def __init__(self, in_features: int, hidden_features: int, activation: str = "silu", device: Any = None,
                 dtype: torch.dtype | None = None, *, memory: str | None = None) -> None:
        super().__init__()
        GF._check_kind(activation)
        kwargs = {"bias": False, "device": device, "dtype": dtype}
        self.gate_proj = torch.nn.Linear(in_features, hidden_features, **kwargs)
        self.up_proj = torch.nn.Linear(in_features, hidden_features, **kwargs)
        self.down_proj = torch.nn.Linear(hidden_features, in_features, **kwargs)
        self.activation = activation
        self.memory = self.check_memory(memory)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}, memory={self.memory!r}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._takes_stock():
            gate = GF._plain_activation(self.gate_proj(input), self.activation)
            return self.down_proj(gate * self.up_proj(input))
        return GF.gated_mlp(input, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight, self.activation,
                            memory=self.memory)


class LinearCrossEntropy(MemoryModeMixin, torch.nn.Module):
    """Cross entropy of a linear head without its logits: loss(hidden [..., n], target int64 [...]).

    weight [classes, n] and bias [classes] are shared with whoever else holds them (a torch.nn.Linear or Embedding can
    be given for weight). The loss is float32. 'recompute' is a chunk of tokens at a time, 'store' torch's operators.
    """

    MODES = ("store", "recompute")
    _DEFAULT = "recompute"
    _REFUSALS = {
        "in-place": "a loss has no output that another layer keeps",
        "rerun": "the gradients are made in the forward pass, while a chunk's logits are there; use 'recompute'",
        "int8": "'recompute' keeps no activations, only gradients",
    }

    def __init__(self, weight: torch.Tensor | torch.nn.Module, bias: torch.Tensor | None = None,
                 ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean", *,
                 memory: str | None = None) -> None:
        super().__init__()
        if isinstance(weight, torch.nn.Module):
            weight, bias = weight.weight, getattr(weight, "bias", None) if bias is None else bias
        if weight.dim() != 2:
            raise ValueError(f"LinearCrossEntropy: weight has shape {list(weight.shape)}, expected [classes, features]")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"LinearCrossEntropy: reduction is {reduction!r}, expected 'mean', 'sum' or 'none'")
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"LinearCrossEntropy: label_smoothing is {label_smoothing}, expected 0 to 1")
        for name, parameter in (("weight", weight), ("bias", bias)):
            if parameter is None or isinstance(parameter, torch.nn.Parameter):
                self.register_parameter(name, parameter)
            else:
                self.register_buffer(name, parameter)
        self.ignore_index, self.label_smoothing, self.reduction = ignore_index, label_smoothing, reduction
        self.memory = self.check_memory(memory)

    def extra_repr(self) -> str:
        return (f"classes={self.weight.shape[0]}, features={self.weight.shape[1]}, bias={self.bias is not None}, "
                f"ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}, "
                f"reduction={self.reduction!r}, memory={self.memory!r}")

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        compute = GF._plain_loss if self.memory == "store" else GF.linear_cross_entropy
        return compute(input, self.weight, target, self.bias, self.ignore_index, self.label_smoothing, self.reduction)
