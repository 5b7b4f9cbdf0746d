"""Layers under torch.compile(fullgraph=True) and under activation checkpointing: same masks, same gradients."""
import copy

import pytest
import torch
from nn_support import leaf
from torch.utils.checkpoint import checkpoint

from gantry import nn as gnn

PARTITIONED = "aot_eager_decomp_partition"  # the min-cut partitioner of the default backend, without its code generator


class Block(torch.nn.Module):
    """A pre-norm transformer block with every kind of dropout."""

    def __init__(self, memory=None, p=0.2):
        super().__init__()
        self.norm1, self.norm2 = gnn.LayerNorm(32), gnn.RMSNorm(32)
        self.attention = gnn.SelfAttention(32, 2, dropout=p, batch_first=True, memory=memory)
        self.dropout = gnn.Dropout(p)
        self.mlp = gnn.FusedMLP(32, 64, activation="gelu_tanh", memory=memory)
        self.act = gnn.GELU()

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x), need_weights=False)[0])
        return x + self.dropout(self.act(self.mlp(self.norm2(x))))


def block(memory=None):
    torch.manual_seed(0)
    return Block(memory)


def step(layer, run, x, seed):
    torch.manual_seed(seed)
    layer.zero_grad()
    x = x.detach().requires_grad_()
    out = run(x)
    out.square().sum().backward()
    return [out.detach(), x.grad, *[parameter.grad.clone() for parameter in layer.parameters()]]


def assert_same(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("memory", [None, "in-place", "rerun", "int8"])
def test_compiled_block_has_the_eager_masks_and_gradients(memory):
    torch._dynamo.reset()
    layer, x = block(memory), leaf(2, 9, 32)
    compiled = torch.compile(layer, fullgraph=True, backend=PARTITIONED)
    assert_same(step(layer, compiled, x, 5), step(layer, layer, x, 5))


def test_compiled_block_draws_a_new_mask_each_time():
    torch._dynamo.reset()
    layer, x = block(), leaf(2, 9, 32).detach()
    compiled = torch.compile(layer, fullgraph=True, backend=PARTITIONED)
    torch.manual_seed(1)
    first, second = compiled(x), compiled(x)
    torch.manual_seed(1)
    assert not first.equal(second) and compiled(x).equal(first)


def test_default_backend_has_one_mask_in_both_passes():
    # It draws its own random numbers, so that finite differences stand in for the eager gradient.
    torch._dynamo.reset()
    layer, x, direction = block(), leaf(2, 9, 32), leaf(2, 9, 32, seed=1).detach()
    compiled = torch.compile(layer, fullgraph=True)

    def loss(x):
        torch.manual_seed(5)
        return compiled(x).square().sum()

    loss(x).backward()
    slope = (loss(x + 0.01 * direction) - loss(x - 0.01 * direction)) / 0.02
    assert slope.item() == pytest.approx((x.grad * direction).sum().item(), rel=2e-2)


def test_compiled_shapes_may_change():
    torch._dynamo.reset()
    layer = block()
    compiled = torch.compile(layer, fullgraph=True, backend=PARTITIONED, dynamic=True)
    for length in (9, 12, 17):
        x = leaf(3, length, 32)
        assert_same(step(layer, compiled, x, 5), step(layer, layer, x, 5))


def test_compiled_loss_has_the_eager_gradients():
    torch._dynamo.reset()
    loss = gnn.LinearCrossEntropy(torch.nn.Linear(16, 40), label_smoothing=0.1)
    target = torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(loss, fullgraph=True, backend=PARTITIONED)
    assert_same(step(loss, lambda x: compiled(x, target), leaf(2, 7, 16), 0),
                step(loss, lambda x: loss(x, target), leaf(2, 7, 16), 0))


def test_compiled_autocast_emits_the_compute_type():
    torch._dynamo.reset()
    layer, x = block(), leaf(2, 9, 32)
    compiled = torch.compile(layer, fullgraph=True, backend=PARTITIONED)

    def under_autocast(run):
        def call(x):
            with torch.autocast("cpu", torch.bfloat16):
                return run(x)

        return call

    assert_same(step(layer, under_autocast(compiled), x, 5), step(layer, under_autocast(layer), x, 5), 2e-2)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("memory", [None, "in-place", "rerun", "int8"])
def test_checkpointing_replays_the_masks(use_reentrant, memory):
    layer, x = block(memory), leaf(2, 9, 32)
    expected = step(layer, layer, x, 5)
    assert_same(step(layer, lambda x: checkpoint(layer, x, use_reentrant=use_reentrant), x, 5), expected, 1e-6)


def test_columns_kept_beside_the_output_survive_compilation():
    torch._dynamo.reset()
    norm, x = gnn.LayerNorm(64), leaf(5, 64)
    stock = copy.deepcopy(norm)
    with torch.no_grad():
        for layer in (norm, stock):
            layer.weight[[3, 40]] = 0
            layer.bias[7] = 1e4
    stock.memory = "store"
    compiled = torch.compile(norm, fullgraph=True, backend=PARTITIONED)
    assert_same(step(norm, compiled, x, 0), step(stock, stock, x, 0), 2e-5)
