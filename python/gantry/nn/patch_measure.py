"""Bytes and milliseconds of a training step: what patch() with a budget decides by."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gantry._core import InputError


class Step:
    """One forward and backward pass of `model`, made from patch(example=...), that leaves no trace.

    example: keyword arguments of the model, or a callable that runs forward and backward itself (and no optimizer: a
    changed parameter is an InputError).
    """

    def __init__(self, model: torch.nn.Module, example: dict | Callable[[], Any]):
        if not callable(example) and not isinstance(example, dict):
            raise InputError(f"patch: example must be a dict of inputs or a callable that runs forward and backward, "
                             f"got {type(example).__name__}")
        self.model = model
        self.example = example
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def run(self) -> None:
        if callable(self.example):
            self.example()
        else:
            _scalar(self.model(**self.example)).backward()

    @contextlib.contextmanager
    def traceless(self) -> Iterator[None]:
        """Puts back gradients, buffers, the random state and the training flags; raises if a parameter was changed."""
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters]
        versions = [p._version for p in parameters]
        buffers = [(b, b.clone()) for b in self.model.buffers()]
        training = [(m, m.training) for m in self.model.modules()]
        devices = [self.device.index or 0] if self.device.type == "cuda" else []
        try:
            if not self.model.training:
                self.model.train()
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for module, flag in training:
                module.training = flag
        if any(p._version != v for p, v in zip(parameters, versions, strict=True)):
            raise InputError("patch: the example changed parameters; it must run forward and backward without an "
                             "optimizer step")

    def clear_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def saved_bytes(self) -> int:
        """Bytes of the distinct storages kept for backward, without those of parameters, buffers and inputs."""
        inputs = self.example.values() if isinstance(self.example, dict) else []
        known = [*self.model.parameters(), *self.model.buffers(), *inputs]
        with saved_storages(known) as storages:
            self.clear_gradients()
            self.run()
        return sum(storages.values())

    def peak_bytes(self) -> int:
        """Most bytes that one step holds at a time of what it allocates itself, gradients included."""
        self.clear_gradients()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.run()
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device) - before
        return _cpu_peak(self.run)


class Overwritten(Exception):
    """Something that was saved for backward has been changed before it."""


def _scalar(output: Any) -> torch.Tensor:
    loss = getattr(output, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss
    tensors = [t for t in tensors_of(output) if t.is_floating_point() and t.requires_grad]
    if not tensors:
        raise InputError("patch: the model's output on the example has neither a loss nor a tensor with a gradient")
    return torch.stack([t.float().mean() for t in tensors]).sum()


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in tensors_of(item)]
    return []


@contextlib.contextmanager
def saved_storages(known: Any = ()) -> Iterator[dict[int, int]]:
    """Collects {storage: bytes} of what autograd saves inside, without the storages of the tensors in `known`."""
    skip = {_storage(t) for t in known if isinstance(t, torch.Tensor)}
    storages: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
        key = _storage(tensor)
        if key not in skip:
            storages[key] = tensor.untyped_storage().nbytes()
            alive.append(tensor.untyped_storage())
        return tensor.detach(), tensor._version

    def unpack(packed: tuple[torch.Tensor, int]) -> torch.Tensor:
        tensor, version = packed
        if tensor._version != version:  # autograd does not look where there are hooks
            raise Overwritten
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield storages


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _cpu_peak(run: Callable[[], None]) -> int:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    if not events:
        raise RuntimeError("patch: torch's profiler reported no allocation, so the peak cannot be measured")
    return peak


@dataclasses.dataclass
class Call:
    """The arguments that a module got in the example."""

    args: tuple
    kwargs: dict

    def key(self) -> tuple:
        flat = [*self.args, *self.kwargs.values()]
        return tuple((tuple(t.shape), t.dtype, t.requires_grad) for t in tensors_of(flat))


def recorded_calls(step: Step, modules: list[torch.nn.Module]) -> dict[torch.nn.Module, Call]:
    """The arguments of each module's first call; a module that is not called is absent."""
    calls: dict[torch.nn.Module, Call] = {}

    def record(module, args, kwargs):
        calls.setdefault(module, Call(args, kwargs))

    handles = [m.register_forward_pre_hook(record, with_kwargs=True) for m in modules]
    try:
        step.clear_gradients()
        step.run()
    finally:
        for handle in handles:
            handle.remove()
    return {module: Call(*_detached((call.args, call.kwargs), {})) for module, call in calls.items()}


def _detached(value: Any, done: dict[int, torch.Tensor]) -> Any:
    """Leaves in the place of tensors; one tensor that comes twice stays one."""
    if isinstance(value, torch.Tensor):
        return done.setdefault(id(value), value.detach().requires_grad_(value.requires_grad))
    if isinstance(value, dict):
        return {key: _detached(item, done) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_detached(item, done) for item in value)
    # A key/value cache would grow with every repetition.
    return None if hasattr(value, "get_seq_length") else value


def forward_backward_ms(module: torch.nn.Module, call: Call) -> float:
    """One forward and backward pass of the module alone."""
    inputs = list({id(t): t for t in tensors_of([*call.args, *call.kwargs.values()]) if t.requires_grad}.values())
    wanted = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
    _synchronize(wanted)
    start = time.perf_counter()
    outputs = [t for t in tensors_of(module(*call.args, **call.kwargs)) if t.requires_grad]
    if outputs and wanted:
        torch.autograd.grad(outputs, wanted, [torch.ones_like(t) for t in outputs], allow_unused=True)
    _synchronize(wanted)
    return 1e3 * (time.perf_counter() - start)


def _synchronize(tensors: list[torch.Tensor]) -> None:
    if tensors and tensors[0].is_cuda:
        torch.cuda.synchronize(tensors[0].device)


def interleaved_ms(variants: dict[str, Callable[[], None]], module: torch.nn.Module, call: Call,
                   repeats: int = 7) -> dict[str, float]:
    """Median milliseconds of each variant, set by its callable; the variants take turns, so that drift hits all."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, enter in variants.items():
            enter()
            elapsed = forward_backward_ms(module, call)
            if turn > 0:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}
