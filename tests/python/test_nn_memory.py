"""Bytes kept for the backward pass, counted by distinct storages, to the byte."""
import pytest
import torch
from nn_support import leaf, saved_bytes

from gantry import nn as gnn

TYPES = [torch.float32, torch.bfloat16]


def bits(n):
    return (n + 7) // 8


def eight_bits(n):
    return n + 2 * ((n + 63) // 64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(64, 48), (3, 7, 5), (1, 1)])
@pytest.mark.parametrize("layer", [gnn.GELU(), gnn.GELU("tanh"), gnn.SiLU(), gnn.QuickGELU()])
def test_activation_keeps_its_output_and_a_bit_an_element(layer, shape, dtype):
    x = leaf(*shape, dtype=dtype)
    kept, y = saved_bytes(lambda: layer(x))
    assert kept == y.numel() * y.element_size() + bits(y.numel())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layer", [gnn.LayerNorm(48), gnn.RMSNorm(48), gnn.LayerNorm(48, elementwise_affine=False)])
def test_norm_keeps_its_output_and_four_bytes_a_row(layer, dtype):
    x = leaf(6, 8, 48, dtype=dtype)
    kept, y = saved_bytes(lambda: layer(x), *layer.parameters())
    assert kept == y.numel() * y.element_size() + 4 * 48


def test_norm_keeps_columns_that_its_output_does_not_determine():
    layer, x = gnn.LayerNorm(48), leaf(6, 48)
    with torch.no_grad():
        layer.weight[[1, 5]] = 0
    kept, y = saved_bytes(lambda: layer(x), *layer.parameters())
    assert kept == 4 * (y.numel() + 6 + 6 * 2)
    with torch.no_grad():
        layer.weight.zero_()  # then the normalised input of all columns
    kept, y = saved_bytes(lambda: layer(x), *layer.parameters())
    assert kept == 4 * (2 * y.numel() + 6)


def test_a_copy_of_rstd_that_lost_the_columns_is_noticed():
    layer, x = gnn.LayerNorm(48), leaf(6, 48)
    with torch.no_grad():
        layer.weight[1] = 0
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
        loss = layer(x).sum()
    with pytest.raises(RuntimeError, match="the 1 columns kept beside the output are lost"):
        loss.backward()


def norm_and_linear(norm, linear, autocast):
    def run(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return linear(norm(x))

    return run


@pytest.mark.parametrize("autocast", [False, True])
def test_the_next_linear_shares_the_output_of_a_norm(autocast):
    x, linear = leaf(40, 48), torch.nn.Linear(48, 32)
    size = 2 if autocast else 4
    weight_copies = size * 48 * 32 if autocast else 0
    norm = gnn.LayerNorm(48)
    kept, _ = saved_bytes(lambda: norm_and_linear(norm, linear, autocast)(x), *linear.parameters(), *norm.parameters())
    assert kept == size * 40 * 48 + 4 * 40 + weight_copies
    norm = gnn.LayerNorm(48, memory="store")
    stock, _ = saved_bytes(lambda: norm_and_linear(norm, linear, autocast)(x), *linear.parameters(), *norm.parameters())
    assert stock >= 4 * 40 * 48 + size * 40 * 48 + 8 * 40 + weight_copies


@pytest.mark.parametrize("memory", ["in-place", "recompute", "rerun", "int8", "store"])
def test_mlp_keeps_what_its_mode_says(memory):
    layer, x = gnn.FusedMLP(32, 128, memory=memory), leaf(20, 32)
    kept, _ = saved_bytes(lambda: layer(x), *layer.parameters())
    inner = 20 * 128
    if memory == "int8":
        assert kept == eight_bits(inner) + eight_bits(20 * 32)
        return
    assert kept == 4 * 20 * 32 + {"in-place": 4 * inner + bits(inner), "recompute": 4 * inner, "rerun": 0,
                                  "store": 8 * inner}[memory]


@pytest.mark.parametrize("memory", ["recompute", "rerun", "int8", "store"])
def test_gated_mlp_keeps_what_its_mode_says(memory):
    layer, x = gnn.FusedGatedMLP(32, 96, memory=memory), leaf(20, 32)
    kept, _ = saved_bytes(lambda: layer(x), *layer.parameters())
    inner = 20 * 96
    if memory == "int8":
        assert kept == eight_bits(2 * inner) + eight_bits(20 * 32)
        return
    assert kept == 4 * 20 * 32 + 4 * inner * {"recompute": 2, "rerun": 0, "store": 4}[memory]


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("memory", ["recompute", "in-place"])
def test_attention_keeps_what_its_mode_says(memory, dtype, p):
    q, k, v = (leaf(2, 4, 40, 32, seed=i, dtype=dtype) for i in range(3))
    kept, out = saved_bytes(lambda: gnn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, memory=memory))
    inside = 4 * 2 * 4 * 40 if memory == "recompute" else out.element_size() * 2 * 4 * 40 * 40
    assert kept == 4 * out.numel() * out.element_size() + inside + (8 if p else 0)


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("memory", ["recompute", "in-place", "rerun", "int8"])
def test_self_attention_keeps_what_its_mode_says(memory, p):
    layer, x = gnn.SelfAttention(64, 4, dropout=p, batch_first=True, memory=memory), leaf(2, 40, 64)
    kept, _ = saved_bytes(lambda: layer(x, need_weights=False), *layer.parameters())
    n, seed = 4 * 2 * 40 * 64, 8 if p else 0
    if memory == "rerun":
        assert kept == n + seed  # the input alone
    elif memory == "int8":  # and what the two linear layers keep
        assert kept == 2 * n + 3 * eight_bits(n // 4) + seed
    else:
        inside = 4 * 2 * 4 * 40 if memory == "recompute" else 4 * 2 * 4 * 40 * 40
        assert kept == 5 * n + inside + seed


def test_a_frozen_first_layer_needs_no_input():
    layer, x = gnn.FusedMLP(32, 128), leaf(20, 32)
    layer.linear1.requires_grad_(False)
    assert saved_bytes(lambda: layer(x), *layer.parameters())[0] == 4 * 20 * 128


def test_dropout_keeps_a_seed():
    x = leaf(1000)
    assert saved_bytes(lambda: gnn.Dropout(0.1)(x))[0] == 8
    y, residual, norm = leaf(10, 100), leaf(10, 100, seed=1), torch.nn.LayerNorm(100)
    kept, _ = saved_bytes(lambda: gnn.functional.dropout_add_norm(y, residual, norm.weight, norm.bias, p=0.1),
                          *norm.parameters())
    assert kept == 4 * 1000 + 4 * 10 + 8


def test_loss_keeps_gradients_but_no_logits():
    hidden, head = leaf(64, 16), torch.nn.Linear(16, 500)
    target = torch.zeros(64, dtype=torch.int64)
    kept, _ = saved_bytes(lambda: gnn.LinearCrossEntropy(head)(hidden, target), *head.parameters())
    assert kept == 4 * (64 * 16 + 500 * 16 + 500)


def test_nothing_is_kept_without_gradients():
    x = leaf(2, 40, 64)
    attention = gnn.SelfAttention(64, 4, dropout=0.1, batch_first=True)
    layers = [gnn.GELU(), gnn.LayerNorm(64), gnn.Dropout(0.1), gnn.FusedMLP(64, 96),
              lambda x: attention(x, need_weights=False)]
    with torch.no_grad():
        assert [saved_bytes(lambda: layer(x))[0] for layer in layers] == [0] * 5  # noqa: B023


def test_a_block_keeps_less_than_torch_s():
    def block(library, **options):
        torch.manual_seed(0)
        return torch.nn.ModuleList([library.LayerNorm(64), torch.nn.Linear(64, 256), library.GELU(),
                                    torch.nn.Linear(256, 64), library.Dropout(0.1)])

    def kept(layers):
        x = leaf(50, 64)

        def run():
            norm, linear1, activation, linear2, dropout = layers
            return x + dropout(linear2(activation(linear1(norm(x)))))

        return saved_bytes(run, x, *layers.parameters())[0]

    n = 50 * 64
    assert kept(block(gnn)) == 4 * n + 4 * 50 + 16 * n + bits(4 * n) + 8
    # torch's: two outputs, the activation's input, mean and deviation; the mask, whose type is torch's business.
    assert kept(block(torch.nn)) >= 4 * n + 8 * 50 + 32 * n + n
