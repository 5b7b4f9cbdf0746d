"""Changing what a module's forward does while it stays the same object.

A patched module gets another class: parameters, buffers, hooks, training flag and every reference to the module stay
what they were, and unpatching gives the class back. Where there is no ready class, one is made of a mixin and the
module's own class; it has the name of the latter, because wrapping policies look modules up by it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

_SWAP = "_gantry_swap"  # (class before, names of the attributes that came with the swap)


class Patched:
    """Base of the mixins. `memory` is the instance's mode."""

    memory: str

    def extra_repr(self) -> str:
        before = super().extra_repr()
        return f"{before}{', ' if before else ''}memory={self.memory!r}"

    def __reduce_ex__(self, protocol: Any) -> tuple:
        # Pickle and deepcopy cannot find a class that was made here by its name.
        mixin, original = type(self).__bases__
        state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__
        return _rebuild, (mixin, original), state


def _rebuild(mixin: type, original: type) -> torch.nn.Module:
    cls = patched_class(mixin, original)
    return cls.__new__(cls)


@functools.cache
def patched_class(mixin: type, original: type) -> type:
    names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    return type(original.__name__, (mixin, original), names)


def swap(module: torch.nn.Module, cls: type, attributes: dict[str, Any]) -> None:
    """Gives `module` the class and the attributes. A module that was swapped before is put back first."""
    restore(module)
    for name in attributes:
        if name in module.__dict__:
            raise RuntimeError(f"patch: {type(module).__name__} has an attribute {name!r} of its own")
    module.__dict__[_SWAP] = (type(module), tuple(attributes))
    module.__dict__.update(attributes)
    module.__class__ = cls


def swap_in(module: torch.nn.Module, mixin: type, attributes: dict[str, Any]) -> None:
    restore(module)
    swap(module, patched_class(mixin, type(module)), attributes)


def restore(module: torch.nn.Module) -> bool:
    """Undoes swap(). False where there is nothing to undo."""
    if _SWAP not in module.__dict__:
        return False
    original, names = module.__dict__.pop(_SWAP)
    module.__class__ = original
    for name in names:
        del module.__dict__[name]
    return True


def original_class(module: torch.nn.Module) -> type:
    return module.__dict__[_SWAP][0] if _SWAP in module.__dict__ else type(module)


def has_hooks(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks)


def is_plain(module: torch.nn.Module, *classes: type) -> bool:
    """Whether calling the module does what one of `classes` does and nothing else, so that another operator may do its
    work from its parameters."""
    return type(module) in classes and not has_hooks(module) and "forward" not in module.__dict__


def why_not_swappable(module: torch.nn.Module) -> str:
    """Why the forward of the module cannot be changed, or an empty string."""
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    for name, parameter in module.named_parameters(recurse=False):
        if type(parameter) is not torch.nn.Parameter or type(parameter.data) is not torch.Tensor:
            return f"{name} is a {type(parameter.data).__name__}: sharded or quantised"
        if parameter.layout != torch.strided:
            return f"{name} is sparse"
        if not parameter.is_floating_point():
            return f"{name} is of type {parameter.dtype}"
    return ""
