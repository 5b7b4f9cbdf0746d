"""gantry.nn's layers against torch's: the same arguments, state dicts, values and gradients; what they refuse."""
import copy
import inspect
import io
import pickle

import pytest
import torch
from nn_support import gradients, leaf

from gantry import nn as gnn


def embedding_head():
    torch.manual_seed(0)
    return gnn.LinearCrossEntropy(torch.nn.Linear(16, 11))


LAYERS = {
    "GELU": (lambda **k: gnn.GELU(**k), torch.nn.GELU),
    "GELU tanh": (lambda **k: gnn.GELU("tanh", **k), lambda: torch.nn.GELU("tanh")),
    "SiLU": (lambda **k: gnn.SiLU(**k), torch.nn.SiLU),
    "LayerNorm": (lambda **k: gnn.LayerNorm(16, **k), lambda: torch.nn.LayerNorm(16)),
    "LayerNorm 2 axes": (lambda **k: gnn.LayerNorm((3, 16), 1e-3, **k), lambda: torch.nn.LayerNorm((3, 16), 1e-3)),
    "LayerNorm plain": (lambda **k: gnn.LayerNorm(16, elementwise_affine=False, **k),
                        lambda: torch.nn.LayerNorm(16, elementwise_affine=False)),
    "LayerNorm no bias": (lambda **k: gnn.LayerNorm(16, bias=False, **k), lambda: torch.nn.LayerNorm(16, bias=False)),
    "RMSNorm": (lambda **k: gnn.RMSNorm(16, **k), lambda: torch.nn.RMSNorm(16)),
    "RMSNorm plain": (lambda **k: gnn.RMSNorm(16, 1e-4, elementwise_affine=False, **k),
                      lambda: torch.nn.RMSNorm(16, 1e-4, elementwise_affine=False)),
    "Dropout": (lambda **k: gnn.Dropout(0.0, **k), lambda: torch.nn.Dropout(0.0)),
}


def pair(name, seed=0):
    """A layer and torch's with the same parameters, not the initial ones."""
    make, make_stock = LAYERS[name]
    layer, stock = make(), make_stock()
    for i, parameter in enumerate(stock.parameters()):
        parameter.data = leaf(*parameter.shape, seed=seed + i).detach()
    layer.load_state_dict(stock.state_dict(), strict=True)
    return layer, stock


@pytest.mark.parametrize("name", ["GELU", "SiLU", "LayerNorm", "RMSNorm", "Dropout"])
def test_signature_is_torch_s_and_memory(name):
    found = inspect.signature(getattr(gnn, name)).parameters
    expected = inspect.signature(getattr(torch.nn, name)).parameters
    assert [(p.name, p.default) for p in expected.values()] == [(p.name, p.default) for p in found.values()][:-1]
    assert list(found)[-1] == "memory" and found["memory"].default is None
    assert found["memory"].kind is inspect.Parameter.KEYWORD_ONLY


def test_attention_s_signature_is_torch_s_and_memory():
    found = list(inspect.signature(gnn.SelfAttention).parameters)
    assert found == [*inspect.signature(torch.nn.MultiheadAttention).parameters, "memory"]
    for name in inspect.signature(torch.nn.MultiheadAttention.forward).parameters:
        assert name in inspect.signature(gnn.SelfAttention.forward).parameters


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_torch_s_in_kind_state_and_text(name):
    layer, stock = pair(name)
    assert isinstance(layer, type(stock))
    assert {k: v.shape for k, v in layer.state_dict().items()} == {k: v.shape for k, v in stock.state_dict().items()}
    stock.load_state_dict(layer.state_dict(), strict=True)
    assert repr(layer).startswith(repr(stock)[:-1]) and "memory=" in repr(layer)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_survives_pickling_and_copying(name):
    make, _ = LAYERS[name]
    layer = make(memory="store")
    x = leaf(2, 3, 16)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for copied in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert copied.memory == "store" and copied(x).equal(layer(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_has_torch_s_values_and_gradients(name, dtype):
    layer, stock = pair(name)
    layer, stock = layer.to(dtype), stock.to(dtype)
    x = leaf(4, 3, 16, dtype=dtype)
    out, found = gradients(lambda x, *_: layer(x), x, *layer.parameters())
    expected_out, expected = gradients(lambda x, *_: stock(x), x, *stock.parameters())
    tolerance = {torch.float32: 2e-4, torch.bfloat16: 6e-2, torch.float64: 1e-7}[dtype]
    assert out.dtype == expected_out.dtype
    torch.testing.assert_close(out, expected_out, rtol=tolerance, atol=tolerance)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("view", [
    lambda x: x.transpose(1, 2)[..., ::2],  # [4, 3, 16]
    lambda x: x[:, :16].permute(2, 0, 1)[:, :3],
    lambda x: x[:, :16, :0].permute(2, 0, 1)[:, :3],
    lambda x: x[:1, ::2].transpose(1, 2),
    lambda x: x[:, :16, :1].transpose(1, 2).expand(4, 3, 16),
], ids=["gaps", "permuted", "empty", "one row", "expanded"])
def test_inputs_may_have_any_strides_and_sizes(name, view):
    layer, stock = pair(name)
    base = leaf(4, 32, 3)
    out, (found,) = gradients(lambda base: layer(view(base)), base)
    expected_out, (expected,) = gradients(lambda base: stock(view(base)), base)
    torch.testing.assert_close(out, expected_out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["GELU", "GELU tanh", "SiLU", "LayerNorm", "RMSNorm"])
def test_nan_and_infinity_pass_as_in_torch(name):
    layer, stock = pair(name)
    x = leaf(6, 16).detach()
    x[0, 3], x[1, 4], x[2, 5] = float("nan"), float("inf"), -float("inf")
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = layer(a), stock(b)
    if name == "GELU":
        assert y[1, 4] == float("inf")  # torch's vector code gives NaN here, its scalar code infinity
        expected = torch.where(x.isinf() & (x > 0), x, expected)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    y.sum().backward()
    expected.sum().backward()
    assert a.grad[3:].isfinite().all()
    assert a.grad[0, 3].isnan()
    clean = b.grad.isfinite()
    torch.testing.assert_close(a.grad[3:][clean[3:]], b.grad[3:][clean[3:]], rtol=2e-4, atol=2e-4)


# ---- eval mode


@pytest.mark.parametrize("name", LAYERS)
def test_eval_without_gradients_is_torch_s_forward_bit_for_bit(name):
    layer, stock = pair(name)
    x = leaf(4, 3, 16).detach() * 3
    with torch.no_grad():
        assert layer.eval()(x).equal(stock.eval()(x))


@pytest.mark.parametrize("name", LAYERS)
def test_eval_with_gradients_works(name):
    layer, stock = pair(name)
    _, found = gradients(layer.eval(), leaf(4, 3, 16))
    _, expected = gradients(stock.eval(), leaf(4, 3, 16))
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_dropout_drops_nothing_in_eval():
    x = leaf(100)
    assert gnn.Dropout(0.5).eval()(x) is x
    assert gnn.Dropout(0.5)(x).eq(0).any() and gnn.Dropout(1.0)(x).eq(0).all()


def test_dropout_in_place_writes_its_input():
    x = leaf(1000).detach()
    y = gnn.Dropout(0.5, inplace=True)(x)
    assert y is x and 350 < x.eq(0).sum() < 650
    source = leaf(1000)
    z = source * 1
    gnn.Dropout(0.5, inplace=True)(z).sum().backward()
    assert source.grad.eq(0).equal(z.detach().eq(0)) and source.grad.ne(0).any()


def test_masks_follow_manual_seed():
    layer, x = gnn.Dropout(0.5), torch.ones(100)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert layer(x).equal(first) and not first.equal(second)


# ---- autograd


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
def test_weights_that_step_before_backward_raise(name):
    layer, _ = pair(name)
    loss = layer(leaf(4, 16)).sum()
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", ["GELU", "SiLU", "LayerNorm", "RMSNorm"])
def test_outputs_that_change_before_backward_raise(name):
    layer, _ = pair(name)
    y = layer(leaf(4, 16))
    loss = (y * 2).sum()
    with torch.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_inputs_that_change_before_backward_raise_or_do_not_matter():
    mlp, attention = gnn.FusedMLP(16, 32), gnn.SelfAttention(32, 2, batch_first=True)
    for layer, width in ((mlp, 16), (lambda x: attention(x, need_weights=False)[0], 32)):
        x = leaf(2, 3, width) * 1
        loss = layer(x).sum()
        with torch.no_grad():
            x.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    # A norm keeps its output: the input may be overwritten.
    x = leaf(4, 16)
    y = x * 1
    loss = (gnn.LayerNorm(16)(y) * torch.arange(16.0)).sum()
    with torch.no_grad():
        y.zero_()
    loss.backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("memory", ["in-place", "recompute", "rerun"])
def test_graph_can_be_used_twice(memory):
    mlp = gnn.FusedMLP(16, 32, memory=memory)
    norm = gnn.LayerNorm(16)
    attention = gnn.SelfAttention(16, 1, dropout=0.2, batch_first=True, memory=memory)
    x = leaf(2, 5, 16)
    out = attention(norm(mlp(x)), need_weights=False)[0]
    (first,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(out.square().sum(), x)
    assert first.equal(second)


def test_layer_used_twice_adds_up():
    layer, stock = pair("LayerNorm")
    _, found = gradients(lambda x, *_: layer(layer(x) * 2), leaf(4, 16), *layer.parameters())
    _, expected = gradients(lambda x, *_: stock(stock(x) * 2), leaf(4, 16), *stock.parameters())
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_frozen_parameters_get_no_gradient():
    layer = gnn.FusedMLP(16, 32)
    layer.linear1.requires_grad_(False)
    layer(leaf(3, 16).detach()).sum().backward()
    assert layer.linear1.weight.grad is None and layer.linear2.weight.grad is not None
    norm = gnn.LayerNorm(16).requires_grad_(False)
    norm(leaf(3, 16)).sum().backward()
    assert norm.weight.grad is None


def test_second_derivatives_raise():
    for layer in (gnn.GELU(), gnn.LayerNorm(16), gnn.FusedMLP(16, 32)):
        x = leaf(3, 16)
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivatives .* use memory='store'"):
            first.sum().backward()


# ---- autocast


def test_autocast_emits_the_compute_type():
    x = leaf(4, 16)
    for layer in (gnn.GELU(), gnn.SiLU(), gnn.LayerNorm(16), gnn.RMSNorm(16), gnn.FusedMLP(16, 32)):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
    assert x.grad.dtype == torch.float32


def test_norm_under_autocast_is_the_float32_one_rounded():
    layer, stock = pair("LayerNorm")
    x = leaf(32, 16, scale=0.01).detach() + 100  # mean far from zero: rounding the input first would show
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    torch.testing.assert_close(y, stock(x).bfloat16(), rtol=8e-3, atol=1e-2)
    _, found = gradients(lambda x, *_: layer(x), x.requires_grad_(), *layer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        _, cast = gradients(lambda x, *_: layer(x), x, *layer.parameters())
    for a, b in zip(cast, found, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=5e-2, atol=3e-2 * b.abs().max().item())


# ---- attention


def attention_pair(p=0.0, **options):
    torch.manual_seed(0)
    stock = torch.nn.MultiheadAttention(32, 2, dropout=p, batch_first=True)
    torch.nn.init.normal_(stock.in_proj_bias)
    layer = gnn.SelfAttention(32, 2, dropout=p, batch_first=True, **options)
    layer.load_state_dict(stock.state_dict(), strict=True)
    stock.load_state_dict(layer.state_dict(), strict=True)
    return layer, stock


def attention_masks():
    generator = torch.Generator().manual_seed(0)
    padding = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    added = torch.randn(7, 7, generator=generator)
    heads = torch.randn(4, 7, 7, generator=generator)
    return {
        "none": {}, "padding": {"key_padding_mask": padding}, "causal": {"attn_mask": causal, "is_causal": True},
        "added": {"attn_mask": added}, "per head": {"attn_mask": heads},
        "padding and causal": {"key_padding_mask": padding, "attn_mask": causal},
        "padding and causal hint": {"key_padding_mask": padding, "attn_mask": causal, "is_causal": True},
        "padding and added": {"key_padding_mask": torch.zeros(2, 7).masked_fill(padding, -float("inf")),
                              "attn_mask": added},
        "added padding and causal": {"key_padding_mask": padding.float() * -3, "attn_mask": causal.float() * -1e4},
        "added padding per head": {"key_padding_mask": padding.float() * -3, "attn_mask": heads},
    }


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("mask", attention_masks())
@pytest.mark.parametrize("memory", ["in-place", "recompute", "rerun"])
def test_attention_is_torch_s(mask, memory):
    layer, stock = attention_pair(memory=memory)
    options = {**attention_masks()[mask], "need_weights": False}
    x = leaf(2, 7, 32)
    out, found = gradients(lambda x, *_: layer(x, x, x, **options)[0], x, *layer.parameters())
    expected_out, expected = gradients(lambda x, *_: stock(x, x, x, **options)[0], x, *stock.parameters())
    torch.testing.assert_close(out, expected_out, rtol=1e-4, atol=1e-5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_attention_takes_a_single_sequence():
    layer, stock = attention_pair()
    x = leaf(7, 32)
    torch.testing.assert_close(layer(x, x, x, need_weights=False)[0], stock(x, x, x, need_weights=False)[0], rtol=1e-4,
                               atol=1e-5)


def test_attention_in_eval_without_gradients_is_torch_s_bit_for_bit():
    layer, stock = attention_pair(p=0.5)
    x = leaf(2, 7, 32).detach()
    with torch.no_grad():
        found, expected = layer.eval()(x, x, x), stock.eval()(x, x, x)
    assert found[0].equal(expected[0]) and found[1].equal(expected[1])


def test_attention_modes_drop_the_same_probabilities():
    layers = [attention_pair(p=0.3, memory=memory)[0] for memory in ("in-place", "recompute", "rerun")]
    results = [gradients(lambda x: layer(x, need_weights=False)[0], leaf(2, 7, 32)) for layer in layers]  # noqa: B023
    for out, found in results[1:]:
        torch.testing.assert_close(out, results[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found, results[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_attention_without_a_kernel_takes_torch_s():
    torch.manual_seed(0)
    layer = gnn.SelfAttention(20, 2, batch_first=True)  # heads of 10
    stock = torch.nn.MultiheadAttention(20, 2, batch_first=True)
    stock.load_state_dict(layer.state_dict())
    x = leaf(2, 7, 20)
    padding = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    for options in ({"key_padding_mask": padding}, {"key_padding_mask": padding, "attn_mask": torch.randn(7, 7)}, {},
                    {"attn_mask": causal, "is_causal": True}, {"attn_mask": causal},
                    {"key_padding_mask": padding, "attn_mask": causal, "is_causal": True}):
        found = layer(x, x, x, need_weights=False, **options)[0]
        torch.testing.assert_close(found, stock(x, x, x, need_weights=False, **options)[0], rtol=1e-4, atol=1e-5)


def test_attention_serves_torch_s_encoder_layer():
    torch.manual_seed(0)
    stock = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    layer = copy.deepcopy(stock)
    layer.self_attn = gnn.SelfAttention.share(layer.self_attn)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7)
    for options in ({}, {"src_mask": mask, "is_causal": True}):
        out, found = gradients(lambda x: layer(x, **options), leaf(2, 7, 32))  # noqa: B023
        expected_out, expected = gradients(lambda x: stock(x, **options), leaf(2, 7, 32))  # noqa: B023
        torch.testing.assert_close((out, *found), (expected_out, *expected), rtol=1e-4, atol=1e-5)


# ---- other devices


def test_other_devices_take_torch_s_operators():
    # On the meta device a kernel of ours would show its absence.
    x = torch.empty(2, 7, 32, device="meta", requires_grad=True)
    attention = gnn.SelfAttention(32, 2, dropout=0.1, batch_first=True, device="meta")
    layers = [gnn.GELU(), gnn.SiLU(), gnn.QuickGELU(), gnn.LayerNorm(32, device="meta"), gnn.RMSNorm(32, device="meta"),
              gnn.Dropout(0.1), gnn.FusedMLP(32, 64, device="meta"), gnn.FusedGatedMLP(32, 64, device="meta"),
              lambda x: attention(x, need_weights=False)[0]]
    for layer in layers:
        y = layer(x)
        assert y.shape == x.shape and not str(y.grad_fn).startswith("<GeneratedBackwardFor_gantry")
        y.sum().backward()


# ---- blocks


@pytest.mark.parametrize("memory", ["store", "in-place", "recompute", "rerun"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "quick_gelu"])
def test_fused_mlp_is_the_sequential(memory, activation):
    stock = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Identity(), torch.nn.Linear(32, 8))
    stock[1].forward = lambda x: gnn.functional._plain_activation(x, activation)
    layer = gnn.FusedMLP.from_linears(stock[0], stock[2], activation, memory=memory)
    assert layer.linear1.weight is stock[0].weight
    x = leaf(3, 5, 16)
    out, found = gradients(lambda x, *_: layer(x), x, *layer.parameters())
    expected_out, expected = gradients(lambda x, *_: stock(x), x, *stock.parameters())
    torch.testing.assert_close((out, *found), (expected_out, *expected), rtol=2e-4, atol=2e-4)


def test_fused_mlp_without_biases():
    layer = gnn.FusedMLP(16, 32, bias=False)
    assert list(layer.state_dict()) == ["linear1.weight", "linear2.weight"]
    _, found = gradients(lambda x, *_: layer(x), leaf(3, 16), *layer.parameters())
    layer.memory = "store"
    _, expected = gradients(lambda x, *_: layer(x), leaf(3, 16), *layer.parameters())
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("memory", ["recompute", "rerun"])
def test_fused_gated_mlp_is_its_composition(memory):
    layer = gnn.FusedGatedMLP(16, 32, memory=memory)
    _, found = gradients(lambda x, *_: layer(x), leaf(3, 16), *layer.parameters())
    layer.memory = "store"
    _, expected = gradients(lambda x, *_: layer(x), leaf(3, 16), *layer.parameters())
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_loss_shares_its_weight():
    embedding = torch.nn.Embedding(11, 16)
    loss = gnn.LinearCrossEntropy(embedding)
    assert loss.weight is embedding.weight and loss.bias is None
    loss(leaf(4, 16), torch.tensor([1, 2, 3, -100])).backward()
    assert embedding.weight.grad.ne(0).any()


def test_loss_in_store_mode_is_the_same():
    target = torch.tensor([[1, 2, -100], [4, 0, 3]])
    for reduction in ("mean", "sum", "none"):
        loss = gnn.LinearCrossEntropy(torch.nn.Linear(16, 11), label_smoothing=0.1, reduction=reduction)
        _, found = gradients(lambda x: loss(x, target), leaf(2, 3, 16))  # noqa: B023
        loss.memory = "store"
        _, expected = gradients(lambda x: loss(x, target), leaf(2, 3, 16))  # noqa: B023
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_share_keeps_parameters_options_and_mode():
    stock = torch.nn.LayerNorm(16, eps=1e-3).eval()
    calls = []
    stock.register_forward_hook(lambda *_: calls.append(1))
    layer = gnn.LayerNorm.share(stock)
    assert layer.weight is stock.weight and layer.eps == 1e-3 and not layer.training and layer.memory == "in-place"
    layer(leaf(2, 16))
    assert calls
    attention = torch.nn.MultiheadAttention(32, 2, batch_first=True)
    assert gnn.SelfAttention.share(attention, "in-place").out_proj is attention.out_proj


# ---- refusals


@pytest.mark.parametrize(("make", "reason"), [
    (lambda: gnn.GELU(memory="recompute"), "nothing to make its input from; use FusedMLP"),
    (lambda: gnn.GELU(memory="int8"), "the next layer keeps the output anyway"),
    (lambda: gnn.LayerNorm(8, memory="int8"), "costs more than 'in-place'"),
    (lambda: gnn.GELU(memory="fast"), "'fast' is no mode, expected one of store, in-place"),
    (lambda: gnn.GELU("erf"), "approximate is 'erf'"),
    (lambda: gnn.SiLU(inplace=True, memory="in-place"), "inplace=True overwrites the input"),
    (lambda: gnn.Dropout(memory="in-place"), "use 'recompute'"),
    (lambda: gnn.FusedGatedMLP(16, 32, memory="in-place"), "the product needs both factors"),
    (lambda: gnn.FusedMLP(16, 32, activation="relu"), "activation is 'relu'"),
    (lambda: gnn.LinearCrossEntropy(torch.ones(3, 4), memory="in-place"), "no output that another layer keeps"),
    (lambda: gnn.LinearCrossEntropy(torch.ones(3)), r"weight has shape \[3\]"),
    (lambda: gnn.SelfAttention(32, 2), "batch_first is False"),
    (lambda: gnn.SelfAttention(32, 2, kdim=16, batch_first=True), "kdim or vdim differs"),
    (lambda: gnn.SelfAttention(32, 2, add_bias_kv=True, batch_first=True), "append keys that are no tokens"),
])
def test_refusals_give_their_reason(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_attention_refuses_what_it_does_not_keep():
    layer, x, y = gnn.SelfAttention(32, 2, batch_first=True), leaf(2, 7, 32), leaf(2, 7, 32, seed=1)
    with pytest.raises(ValueError, match="need_weights=True asks for the probabilities"):
        layer(x, x, x)
    with pytest.raises(ValueError, match="must be one tensor"):
        layer(x, y, y, need_weights=False)
    with pytest.raises(ValueError, match="is_causal=True needs attn_mask"):
        layer(x, x, x, need_weights=False, is_causal=True)
    assert gnn.SelfAttention(32, 2, memory="store")(x, y, y)[1] is not None


def test_wrong_shapes_are_named():
    with pytest.raises(RuntimeError, match=r"Given normalized_shape=\[16\]"):
        gnn.LayerNorm(16)(leaf(3, 8))
    with pytest.raises(ValueError, match="class probabilities are not supported"):
        embedding_head()(leaf(3, 16), torch.rand(3, 11))
