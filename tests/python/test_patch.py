"""patch() and unpatch() on plain torch models."""
import copy
import pickle

import pytest
import torch
from torch import nn

import gantry
from gantry.nn import patch, unpatch
from gantry.nn.patch_measure import saved_storages

WIDTH = 32


class Block(nn.Module):
    def __init__(self, p=0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.up, self.act, self.down = nn.Linear(WIDTH, 64), nn.SiLU(), nn.Linear(64, WIDTH)
        self.dropout = nn.Dropout(p)

    def forward(self, x):
        x = x + self.dropout(self.mlp(self.norm1(x)))
        return x + self.down(self.act(self.up(self.norm2(x))))


def blocks(p=0.0, dtype=torch.float32):
    torch.manual_seed(3)
    return nn.Sequential(Block(p), Block(p)).to(dtype)


def inputs(dtype=torch.float32):
    return torch.randn(4, 24, WIDTH, generator=torch.Generator().manual_seed(4), dtype=dtype)


def gradients(model, x):
    model.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def saved_bytes(model, x):
    with saved_storages([*model.parameters(), x]) as storages:
        model(x).sum()
    return sum(storages.values())


def test_gradients_equal_those_of_the_stock_model():
    model = blocks()
    loss, expected = gradients(model, inputs())
    patch(model)
    got_loss, got = gradients(model, inputs())
    assert got_loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_less_is_kept_and_the_table_says_by_whom():
    model, x = blocks(p=0.1), inputs()
    stock = saved_bytes(model, x)
    table = patch(model)
    assert len(table) == 10 and not table.refused
    assert [(row.name, row.kind, row.was, row.mode) for row in table][:5] == [
        ("0.norm1", "norm", "LayerNorm", "in-place"),
        ("0.norm2", "norm", "RMSNorm", "in-place"),
        ("0.mlp.1", "activation", "GELU", "in-place"),
        ("0.act", "activation", "SiLU", "in-place"),
        ("0.dropout", "dropout", "Dropout", "recompute"),
    ]
    rows = x.numel() // WIDTH
    # Per block, against a bit an element: the inputs of the activations. Without anything in return: the inputs of both
    # norms, the mean of LayerNorm and what RMSNorm has normalised. The mask of dropout (four bytes an element on the
    # CPU) against a seed. The input of the first norm is x, which does not count.
    wide, narrow = rows * (128 + 64), 4 * rows * WIDTH
    saved = 2 * (4 * wide - wide // 8 + 2 * narrow + 4 * rows + narrow + narrow - 8) - narrow
    assert stock - saved_bytes(model, x) == saved
    text = str(table)
    assert "0-1.norm1" in text and "10 of 10 modules patched" in text


def test_modules_parameters_and_hooks_stay_the_same_objects():
    model = blocks()
    before = [(id(m), type(m)) for m in model.modules()]
    parameters = [id(p) for p in model.parameters()]
    calls = []
    handle = model[0].norm1.register_forward_hook(lambda *arguments: calls.append("norm"))
    patch(model)
    assert [id(m) for m, in zip(model.modules())] == [i for i, _ in before]
    assert [id(p) for p in model.parameters()] == parameters
    assert isinstance(model[0].norm1, nn.LayerNorm) and isinstance(model[0].norm1, gantry.nn.LayerNorm)
    model(inputs())
    assert calls == ["norm"]
    handle.remove()
    model(inputs())
    assert calls == ["norm"]
    assert unpatch(model) == 8
    assert [(id(m), type(m)) for m in model.modules()] == before
    assert "memory" not in model[0].norm1.__dict__ and unpatch(model) == 0


def test_unpatched_model_is_the_stock_model_to_the_bit():
    model = blocks()
    loss, expected = gradients(model, inputs())
    patch(model)
    gradients(model, inputs())
    unpatch(model)
    got_loss, got = gradients(model, inputs())
    assert got_loss == loss and all(torch.equal(got[name], expected[name]) for name in expected)


def test_eval_mode_is_the_stock_model_to_the_bit():
    model = blocks(p=0.3).eval()
    expected = model(inputs())
    patch(model)
    assert torch.equal(model(inputs()), expected) and not model[0].norm1.training
    with torch.no_grad():
        assert torch.equal(model(inputs()), expected)


def test_state_dicts_load_both_ways():
    stock, patched = blocks(), blocks()
    patch(patched)
    assert list(stock.state_dict()) == list(patched.state_dict())
    for a, b in zip(stock.state_dict().values(), patched.state_dict().values(), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(1)
    assert not any(patched.load_state_dict(stock.state_dict(), strict=True))
    assert not any(stock.load_state_dict(patched.state_dict(), strict=True))
    assert torch.equal(patched[1].down.weight, stock[1].down.weight)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=["deepcopy", "pickle"])
def test_a_copy_is_patched_too_and_can_be_unpatched(duplicate):
    model = blocks()
    patch(model)
    other = duplicate(model)
    assert type(other[0].norm1) is type(model[0].norm1) and other[0].norm1.weight is not model[0].norm1.weight
    assert gradients(other, inputs())[0] == gradients(model, inputs())[0]
    assert saved_bytes(other, inputs()) == saved_bytes(model, inputs())
    assert unpatch(other) == 8 and type(other[0].norm1) is nn.LayerNorm
    assert isinstance(model[0].norm1, gantry.nn.LayerNorm)


def test_modes_by_name_pattern_and_kind():
    model = blocks()
    table = patch(model, {"norm": "in-place", "0.*": "store", "0.act": "in-place"})
    assert {row.name for row in table.patched} == {"1.norm1", "1.norm2", "0.act"}
    assert patch(model, "store").patched == [] and type(model[0].act) is nn.SiLU
    again = patch(model, patch(model).modes())
    assert len(again.patched) == 8 and again["0.mlp.1"].mode == "in-place"


class Scaled(nn.LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_cannot_be_patched_says_why():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.ReLU(inplace=True), Scaled(8), nn.SiLU(inplace=True),
                          nn.Dropout(0.0), nn.SiLU(), nn.LayerNorm(8))
    model[6].forward = lambda x: x
    model[7].weight = nn.Parameter(torch.zeros(8).to_sparse())
    reasons = {row.name: row.reason for row in patch(model)}
    assert reasons == {
        "1": "the next module overwrites its output",
        "3": "a subclass of LayerNorm, whose forward may differ",
        "4": "inplace=True overwrites its input",
        "5": "p is 0: nothing to keep",
        "6": "its forward was replaced on the instance",
        "7": "weight is sparse",
    }


@pytest.mark.parametrize("arguments, message", [
    ({"memory": "best"}, "memory is 'best', expected auto"),
    ({"memory": {"0.norm1": "auto"}}, "memory is 'auto', expected auto \\(alone\\)"),
    ({"memory": {"0.norm": "store"}}, "names '0.norm', which is no module.*did you mean '0.norm[12]'"),
    ({"memory": {"0.norm1": "rerun"}}, "0.norm1 \\(LayerNorm\\) has no mode 'rerun', only store, in-place"),
    ({"budget_bytes": 100}, 'budget_bytes needs memory="auto" and an example'),
    ({"budget_bytes": 0, "example": {}}, "budget_bytes is 0"),
])
def test_bad_arguments_are_named(arguments, message):
    model = blocks()
    with pytest.raises(gantry.InputError, match=message):
        patch(model, **arguments)
    assert type(model[0].norm1) is nn.LayerNorm
    with pytest.raises(gantry.InputError, match="model is a dict, expected a torch.nn.Module"):
        patch({})


def test_gradients_with_dropout_are_those_of_finite_differences():
    model, x = blocks(p=0.2, dtype=torch.float64), inputs(torch.float64)
    patch(model)

    def loss():
        torch.manual_seed(7)
        return model(x).square().mean()

    model.zero_grad()
    loss().backward()
    direction = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype)
                 for i, p in enumerate(model.parameters())]
    slope = sum((p.grad * d).sum() for p, d in zip(model.parameters(), direction, strict=True)).item()
    assert loss().item() == loss().item()
    assert finite_difference(model, loss, direction) == pytest.approx(slope, rel=1e-6)


def finite_difference(model, loss, direction, step=1e-5):
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(model.parameters(), direction, strict=True):
                p.add_(d, alpha=sign * step)
            with torch.enable_grad():
                values.append(loss().item())
    return (values[0] - values[1]) / (2 * step)


def test_second_derivatives_raise_instead_of_being_wrong():
    model, x = blocks(), inputs().requires_grad_()
    patch(model)
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        gradient.sum().backward()


def test_gradient_checkpointing_around_patched_blocks():
    model, x = blocks(p=0.2), inputs().requires_grad_()
    patch(model)

    def run(checkpointed):
        torch.manual_seed(5)
        y = x
        for block in model:
            y = torch.utils.checkpoint.checkpoint(block, y, use_reentrant=False) if checkpointed else block(y)
        return torch.autograd.grad(y.square().sum(), [x, *model.parameters()])

    for a, b in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_compiled_patched_model_is_one_graph():
    model, x = blocks(), inputs()
    patch(model)
    loss, expected = gradients(model, x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    model.zero_grad()
    got = compiled(x).square().mean()
    got.backward()
    assert got.item() == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(model[0].up.weight.grad, expected["0.up.weight"], rtol=1e-5, atol=1e-7)


def encoder(p=0.1):
    torch.manual_seed(2)
    layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=p, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def test_torch_s_encoder_layers_keep_no_probabilities():
    stock, model, x = encoder(0.0), encoder(0.0), inputs()
    hidden = torch.zeros(4, 24, dtype=torch.bool)
    hidden[1, 15:] = True
    table = patch(model)
    assert (table["layers.1.self_attn"].mode, table["layers.1.norm2"].mode) == ("recompute", "in-place")
    torch.testing.assert_close(model(x, src_key_padding_mask=hidden), stock(x, src_key_padding_mask=hidden), rtol=1e-4,
                               atol=1e-5)
    assert torch.equal(model.eval()(x), stock.eval()(x))
    stock, model = encoder(), encoder()
    patch(model)
    assert saved_bytes(model, x) < 0.6 * saved_bytes(stock, x)
    unpatch(model)
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention


def test_attention_whose_weights_may_be_wanted_is_refused():
    model = nn.ModuleDict({"free": nn.MultiheadAttention(32, 2, batch_first=True),
                           "layer": nn.TransformerDecoderLayer(32, 2, 64),
                           "small": nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)})
    reasons = {row.name: row.reason for row in patch(model) if row.kind == "attention"}
    elsewhere = "not the self attention of torch's encoder or decoder layer: its weights may be wanted"
    assert reasons == {"free": elsewhere, "layer.multihead_attn": elsewhere,
                       "layer.self_attn": "batch_first is False",
                       "small.self_attn": "its head size is 8, expected a multiple of 16"}
