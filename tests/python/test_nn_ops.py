"""torch.ops.gantry.*: each one registered as torch wants it, and its derivative that of torch's own operators."""
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from nn_support import gradients, leaf
from torch.library import opcheck

import gantry.nn.functional as GF

OPS = torch.ops.gantry
SEED = torch.tensor(1234567, dtype=torch.int64)


def plain(*shape, **options):
    return leaf(*shape, **options).detach()


def heads(*lengths, dtype=torch.float32):
    return [leaf(2, length, 2, 16, seed=i, dtype=dtype) for i, length in enumerate(lengths)]


def norm_inputs():
    x, weight, bias = leaf(3, 5, 32), leaf(32, seed=1), leaf(32, seed=2)
    with torch.no_grad():
        weight[3] = 0  # a column that the output does not determine
    return x, weight, bias


def attention_arguments(keep, mask=None, key_mask=None):
    return (*heads(9, 9, 9), mask, key_mask, SEED, 0.1, 0.25, True, keep)


def loss_arguments(*wanted):
    labels = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(0))
    labels[0, 1] = -100
    return leaf(2, 5, 8), leaf(11, 8, seed=1), leaf(11, seed=2), labels, -100, 0.1, *wanted


def attention_backward_arguments(keep):
    arguments = [x.detach() if isinstance(x, torch.Tensor) else x for x in attention_arguments(keep)]
    results = OPS.attention(*arguments)
    return plain(2, 9, 2, 16), *arguments[:3], *results, *arguments[3:-1], keep == "probabilities", False


CASES = {
    "activation": lambda: (leaf(5, 7), "gelu"),
    "activation transposed": lambda: (leaf(5, 7).detach().t().requires_grad_(), "silu"),
    "activation sliced bf16": lambda: (plain(5, 7, dtype=torch.bfloat16)[:, ::2].requires_grad_(), "gelu_tanh"),
    "activation empty": lambda: (leaf(0, 7), "quick_gelu"),
    "activation_backward": lambda: (plain(5, 7), *OPS.activation(plain(5, 7, seed=1), "gelu"), "gelu"),
    "norm": lambda: (*norm_inputs(), 1e-5, "layer", torch.float32),
    "norm rms": lambda: (leaf(4, 16), None, None, 1e-6, "rms", torch.float32),
    "norm to bf16": lambda: (*norm_inputs(), 1e-5, "layer", torch.bfloat16),
    "norm one row": lambda: (leaf(1, 16), leaf(16), None, 1e-5, "layer", torch.float32),
    "norm empty": lambda: (leaf(0, 16), leaf(16), leaf(16), 1e-5, "layer", torch.float32),
    "norm_backward": lambda: (plain(4, 16), *OPS.norm(plain(4, 16, seed=1), None, None, 1e-5, "layer", torch.float32),
                              None, None, "layer"),
    "dropout": lambda: (leaf(5, 7), SEED, 0.3),
    "dropout bf16": lambda: (leaf(64, dtype=torch.bfloat16), SEED, 0.3),
    "dropout_add_norm": lambda: (leaf(3, 32), leaf(3, 32, seed=4), leaf(32, seed=1), leaf(32, seed=2), SEED, 0.2, 1e-5,
                                 "layer", True),
    "dropout_add_norm alone": lambda: (leaf(3, 32), leaf(3, 32, seed=4), leaf(32, seed=1), None, None, 0.0, 1e-5, "rms",
                                       False),
    "dropout_add_norm_backward": lambda: (
        plain(3, 32), plain(3, 32, seed=1),
        *OPS.dropout_add_norm(plain(3, 32), plain(3, 32), None, None, SEED, 0.2, 1e-5, "layer", False)[::2],
        None, None, SEED, 0.2, "layer"),
    "attention": lambda: attention_arguments("log-sums"),
    "attention stored": lambda: attention_arguments("probabilities"),
    "attention int8": lambda: attention_arguments("int8"),
    "attention masks": lambda: attention_arguments("log-sums", mask=leaf(2, 1, 9, 9, seed=5),
                                                   key_mask=torch.arange(18).view(2, 9) != 4),
    "attention_backward": lambda: attention_backward_arguments("log-sums"),
    "attention_backward stored": lambda: attention_backward_arguments("probabilities"),
    "mlp": lambda: (leaf(2, 3, 8), leaf(12, 8, seed=1), leaf(12, seed=2), leaf(6, 12, seed=3), leaf(6, seed=4), "gelu",
                    "inner"),
    "mlp rerun": lambda: (leaf(2, 3, 8), leaf(12, 8, seed=1), None, leaf(6, 12, seed=3), None, "silu", "nothing"),
    "mlp int8": lambda: (leaf(2, 3, 8), leaf(12, 8, seed=1), None, leaf(6, 12, seed=3), None, "silu", "int8"),
    "mlp frozen": lambda: (leaf(2, 3, 8), plain(12, 8, seed=1), None, leaf(6, 12, seed=3), None, "silu", "inner"),
    "mlp_backward": lambda: (plain(3, 6), plain(3, 8), plain(3, 12), plain(12, 8), plain(12), plain(6, 12), "gelu",
                             [True, False, True, True, True]),
    "gated_mlp": lambda: (leaf(2, 3, 8), leaf(12, 8, seed=1), leaf(12, 8, seed=2), leaf(8, 12, seed=3), "silu",
                          "inner"),
    "gated_mlp rerun": lambda: (leaf(3, 8), leaf(12, 8, seed=1), leaf(12, 8, seed=2), leaf(8, 12, seed=3), "gelu",
                                "nothing"),
    "gated_mlp int8": lambda: (leaf(3, 8), leaf(12, 8, seed=1), leaf(12, 8, seed=2), leaf(8, 12, seed=3), "gelu",
                               "int8"),
    "gated_mlp_backward": lambda: (plain(3, 8), plain(3, 8), plain(3, 24), plain(12, 8), plain(12, 8), plain(8, 12),
                                   "silu", [True, True, False, True]),
    "linear_cross_entropy": lambda: loss_arguments(True, [True, True, True]),
    "linear_cross_entropy_losses": lambda: loss_arguments(),
    "linear_cross_entropy_losses_backward": lambda: (
        plain(2, 5), *[x.detach() if isinstance(x, torch.Tensor) else x for x in loss_arguments()], [True, True, True]),
    "stash": lambda: (plain(3, 50),),
    "unstash": lambda: (*OPS.stash(plain(3, 50)), (3, 50), torch.float32),
    "scaled_gradient": lambda: (plain(), plain(3, 4)),
}


def test_every_operator_has_a_case():
    names = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("gantry::")}
    assert names == {case.split()[0] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_operator_is_registered_as_torch_wants_it(case):
    operator = getattr(OPS, case.split()[0]).default
    arguments = CASES[case]()
    opcheck(operator, arguments, test_utils=["test_schema", "test_faketensor", "test_autograd_registration"])
    # Results that only serve the derivative have none of their own, which this check would ask for.
    detached = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments)
    opcheck(operator, detached, test_utils="test_aot_dispatch_dynamic")


def value(case):
    """The operator of a case as a function of its tensors that want gradients; of its value alone."""
    operator, arguments = getattr(OPS, case.split()[0]), CASES[case]()
    places = [i for i, x in enumerate(arguments) if isinstance(x, torch.Tensor) and x.requires_grad]

    def function(*leaves):
        filled = list(arguments)
        for place, given in zip(places, leaves):
            filled[place] = given
        result = operator(*filled)
        return result if isinstance(result, torch.Tensor) else result[0]

    return function, [arguments[place] for place in places]


DIFFERENTIABLE = [case for case in CASES
                  if "backward" not in case and case not in ("scaled_gradient", "stash", "unstash")]


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_traced_operator_gives_the_gradients_of_the_eager_one(case):
    torch._dynamo.reset()
    function, leaves = value(case)
    out, expected = gradients(function, *leaves)
    traced = torch.compile(function, fullgraph=True, backend="aot_eager_decomp_partition")
    traced_out, found = gradients(traced, *leaves)
    torch.testing.assert_close(traced_out, out, rtol=0, atol=0)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


# ---- values and gradients against torch

KINDS = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
         "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1.5e-4), (torch.float64, 1e-7), (torch.bfloat16, 2e-2),
                                              (torch.float16, 8e-3)])
@pytest.mark.parametrize("kind", KINDS)
def test_in_place_activation_has_torch_s_values_and_gradients(kind, dtype, limit):
    x = torch.linspace(-9, 12, 20001, dtype=torch.float64).to(dtype).requires_grad_()
    y = OPS.activation(x, kind)[0]
    (dx,) = torch.autograd.grad(y.sum(), x)
    exact = x.detach().double().requires_grad_()
    expected = KINDS[kind](exact)
    (dexact,) = torch.autograd.grad(expected.sum(), exact)
    scale = 1e-3 if dtype == torch.float16 else torch.finfo(dtype).eps * 4
    torch.testing.assert_close(y.double(), expected.detach(), rtol=scale,
                               atol=1e-7 if dtype != torch.float64 else 1e-12)
    # The gradient of QuickGELU is steeper by a.
    assert (dx.double() - dexact).abs().max() < limit * 1.5


def test_activations_pass_gradcheck_in_float64():
    x = leaf(4, 9, dtype=torch.float64)
    for kind in KINDS:
        assert torch.autograd.gradcheck(lambda x: OPS.activation(x, kind)[0], x)  # noqa: B023


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_pass_gradcheck_in_float64(kind):
    x, weight, bias = (leaf(*shape, dtype=torch.float64, seed=i) for i, shape in enumerate([(3, 8), (8,), (8,)]))
    bias = bias if kind == "layer" else None
    assert torch.autograd.gradcheck(lambda *a: OPS.norm(*a, 1e-5, kind, torch.float64)[0], (x, weight, bias))


def test_mlp_and_loss_pass_gradcheck_in_float64():
    d = torch.float64
    block = (leaf(3, 4, dtype=d), leaf(5, 4, dtype=d), leaf(5, dtype=d), leaf(4, 5, dtype=d), leaf(4, dtype=d))
    for keep in ("inner", "nothing"):
        assert torch.autograd.gradcheck(lambda *a: OPS.mlp(*a, "gelu", keep)[0], block)  # noqa: B023
    hidden, weight, bias = leaf(6, 4, dtype=d), leaf(5, 4, dtype=d, seed=1), leaf(5, dtype=d, seed=2)
    labels = torch.tensor([0, 4, -100, 2, 3, 1])
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda h, w, b: GF.linear_cross_entropy(h, w, labels, b, -100, 0.1, reduction),  # noqa: B023
            (hidden, weight, bias))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("stored", [False, True])
def test_attention_has_torch_s_values_and_gradients(dtype, tolerance, stored):
    q, k, v = (leaf(2, 3, 21, 32, seed=i, dtype=dtype) for i in range(3))
    mask = leaf(1, 1, 21, 21, seed=9, dtype=dtype)
    memory = "in-place" if stored else "recompute"
    for options in ({"is_causal": True}, {"attn_mask": mask}, {"scale": 0.3}, {}):
        ours = functools.partial(GF.scaled_dot_product_attention, memory=memory, **options)
        out, found = gradients(ours, q, k, v)
        expected_out, expected = gradients(functools.partial(F.scaled_dot_product_attention, **options), q, k, v)
        torch.testing.assert_close(out, expected_out, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 3)


def test_attention_mask_has_torch_s_gradient():
    q, k, v, mask = (*(leaf(2, 3, 9, 16, seed=i) for i in range(3)), leaf(3, 9, 9, seed=9))
    _, found = gradients(GF.scaled_dot_product_attention, q, k, v, mask)
    _, expected = gradients(F.scaled_dot_product_attention, q, k, v, mask)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=5e-5)


def test_causal_attention_aligns_the_first_tokens_as_torch_does():
    q, k, v = leaf(1, 2, 5, 16), leaf(1, 2, 9, 16, seed=1), leaf(1, 2, 9, 16, seed=2)
    found = GF.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-5, atol=1e-5)


def test_grouped_heads_share_keys_as_in_torch():
    q, k, v = leaf(2, 6, 7, 16), leaf(2, 2, 7, 16, seed=1), leaf(2, 2, 7, 16, seed=2)
    _, found = gradients(lambda *a: GF.scaled_dot_product_attention(*a, enable_gqa=True), q, k, v)
    _, expected = gradients(lambda *a: F.scaled_dot_product_attention(*a, enable_gqa=True), q, k, v)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_a_query_that_sees_nothing_gives_zeros():
    q, k, v = (leaf(1, 1, 4, 16, seed=i) for i in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    out, found = gradients(lambda *a: GF.scaled_dot_product_attention(*a, attn_mask=mask), q, k, v)
    assert out[0, 0, 2].eq(0).all() and found[0][0, 0, 2].eq(0).all()
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize("keep", ["log-sums", "probabilities"])
def test_attention_dropout_is_the_derivative_of_its_own_mask(keep):
    # Finite differences under one seed: another mask in the backward pass would show.
    q, k, v = heads(6, 6, 6)
    direction = plain(2, 6, 2, 16, seed=8)

    def run(v):
        return OPS.attention(q, k, v, None, None, SEED, 0.4, 0.25, False, keep)[0].sum()

    (dv,) = torch.autograd.grad(run(v), v)
    with torch.no_grad():
        change = run(v + 0.5 * direction) - run(v - 0.5 * direction)
    assert change.item() == pytest.approx((dv * direction).sum().item(), rel=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_is_torch_s(reduction, smoothing, dtype):
    hidden, weight, bias = (leaf(*shape, seed=i, dtype=dtype) for i, shape in enumerate([(3, 70, 16), (50, 16), (50,)]))
    labels = torch.randint(0, 50, (3, 70), generator=torch.Generator().manual_seed(0))
    labels[1, :30] = 7

    def stock(hidden, weight, bias):
        logits = F.linear(hidden, weight, bias).float().reshape(-1, 50)
        loss = F.cross_entropy(logits, labels.reshape(-1), ignore_index=7, reduction=reduction,
                               label_smoothing=smoothing)
        return loss.reshape(labels.shape) if reduction == "none" else loss

    tolerance = 2e-5 if dtype == torch.float32 else 4e-2
    loss, found = gradients(lambda h, w, b: GF.linear_cross_entropy(h, w, labels, b, 7, smoothing, reduction), hidden,
                            weight, bias)
    expected_loss, expected = gradients(stock, hidden, weight, bias)
    torch.testing.assert_close(loss, expected_loss, rtol=tolerance, atol=tolerance)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_mean_loss_over_no_label_is_nan_as_in_torch():
    hidden, weight = leaf(4, 8), leaf(5, 8, seed=1)
    ignored = torch.full((4,), -100)
    loss, (dhidden, dweight) = gradients(lambda h, w: GF.linear_cross_entropy(h, w, ignored), hidden, weight)
    assert loss.isnan() and dhidden.eq(0).all() and dweight.eq(0).all()


def test_loss_names_a_label_outside_the_vocabulary():
    with pytest.raises(RuntimeError, match="label 5 is outside a vocabulary of 5"):
        GF.linear_cross_entropy(leaf(4, 8), leaf(5, 8), torch.tensor([0, 1, 5, 2]))
    with pytest.raises(RuntimeError, match="label -1 is outside"):
        GF.linear_cross_entropy(leaf(4, 8), leaf(5, 8), torch.tensor([0, 1, -1, 2]))


@pytest.mark.parametrize("keep", ["inner", "nothing"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 4e-2)])
def test_gated_block_is_its_composition(keep, dtype, tolerance):
    x, gate, up, down = (leaf(*shape, seed=i, dtype=dtype) for i, shape in
                         enumerate([(2, 9, 16), (24, 16), (24, 16), (16, 24)]))
    out, found = gradients(lambda *a: OPS.gated_mlp(*a, "silu", keep)[0], x, gate, up, down)
    expected_out, expected = gradients(
        lambda x, gate, up, down: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down), x, gate, up, down)
    for a, b in zip((out, *found), (expected_out, *expected)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_dropout_add_norm_is_its_composition(kind):
    x, residual, weight = leaf(40, 32), leaf(40, 32, seed=1), leaf(32, seed=2)
    bias = leaf(32, seed=3) if kind == "layer" else None

    def composed(x, residual, weight, bias):
        total = residual + OPS.dropout(x, SEED, 0.3)
        if kind == "layer":
            return F.layer_norm(total, (32,), weight, bias) * total
        return F.rms_norm(total, (32,), weight, 1e-5) * total

    def fused(x, residual, weight, bias):
        y, total, _ = OPS.dropout_add_norm(x, residual, weight, bias, SEED, 0.3, 1e-5, kind, True)
        return y * total

    out, found = gradients(fused, x, residual, weight, bias)
    expected_out, expected = gradients(composed, x, residual, weight, bias)
    torch.testing.assert_close(out, expected_out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_dropout_keeps_its_rate_and_scale():
    x = torch.ones(100000)
    y = OPS.dropout(x, SEED, 0.25)
    kept = y.ne(0).float().mean().item()
    assert abs(kept - 0.75) < 5 * math.sqrt(0.75 * 0.25 / x.numel())
    torch.testing.assert_close(y[y.ne(0)], torch.full_like(y[y.ne(0)], 4 / 3))
    assert OPS.dropout(x, SEED, 1.0).eq(0).all()
    assert OPS.dropout(x, SEED, 0.25).equal(y) and not OPS.dropout(x, SEED + 1, 0.25).equal(y)


def test_dropout_can_be_differentiated_twice():
    x = leaf(50)
    (first,) = torch.autograd.grad((OPS.dropout(x, SEED, 0.5) ** 2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert second.eq(8).logical_or(second.eq(0)).all() and second.ne(0).any()


@pytest.mark.parametrize("case", ["attention", "mlp", "gated_mlp"])
def test_eight_bits_change_gradients_little(case):
    sizes = {"attention": [(4, 33, 2, 32)] * 3, "mlp": [(300, 64), (128, 64), (64, 128)],
             "gated_mlp": [(300, 64), (128, 64), (128, 64), (64, 128)]}[case]
    leaves = [leaf(*size, seed=i, scale=1 if case == "attention" or i == 0 else 0.1) for i, size in enumerate(sizes)]

    def run(keep):
        if case == "attention":
            return lambda *a: OPS.attention(*a, None, None, SEED, 0.2, 0.2, True, keep)[0]
        if case == "mlp":
            return lambda x, w1, w2: OPS.mlp(x, w1, None, w2, None, "gelu", keep)[0]
        return lambda *a: OPS.gated_mlp(*a, "silu", keep)[0]

    out, exact = gradients(run("log-sums" if case == "attention" else "inner"), *leaves)
    coarse_out, coarse = gradients(run("int8"), *leaves)
    assert coarse_out.equal(out)
    for a, b in zip(coarse, exact, strict=True):
        assert 0 < (a - b).norm() < 0.02 * b.norm()


# ---- errors


@pytest.mark.parametrize("case", [case for case in DIFFERENTIABLE
                                  if case.split()[0] != "dropout" and "empty" not in case])
def test_second_derivatives_raise(case):
    function, leaves = value(case)
    out = function(*leaves)
    first = torch.autograd.grad((out.float() ** 2).sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of .* are not available"):
        torch.autograd.grad(sum(gradient.float().sum() for gradient in first), leaves)


def test_results_that_serve_the_derivative_have_none():
    x = leaf(4, 8)
    _, rstd = OPS.norm(x, None, None, 1e-5, "layer", torch.float32)
    with pytest.raises(RuntimeError, match="only the first result of norm has a derivative"):
        torch.autograd.grad(rstd.sum(), x)


def test_kernels_name_what_they_expect():
    with pytest.raises(RuntimeError, match="kind is 'relu', expected gelu"):
        OPS.activation(torch.ones(3), "relu")
    with pytest.raises(RuntimeError, match="p is 2"):
        OPS.dropout(torch.ones(3), SEED, 2.0)
    with pytest.raises(RuntimeError, match="expected one int64 on the CPU"):
        OPS.dropout(torch.ones(3), torch.zeros(2), 0.5)
    with pytest.raises(RuntimeError, match="weight or bias .* does not fit input"):
        OPS.norm(torch.ones(2, 3), torch.ones(4), None, 1e-5, "layer", torch.float32)
    with pytest.raises(RuntimeError, match="rstd .* does not fit output"):
        OPS.norm_backward(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3), None, None, "layer")
    with pytest.raises(RuntimeError, match="inner .* does not fit gradient"):
        OPS.mlp_backward(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 5), torch.ones(4, 3), None, torch.ones(3, 4),
                         "gelu", [True] * 5)
    with pytest.raises(RuntimeError, match="gate_up .* does not fit gradient"):
        OPS.gated_mlp_backward(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 4), torch.ones(4, 3), torch.ones(4, 3),
                               torch.ones(3, 4), "gelu", [True] * 4)
    with pytest.raises(RuntimeError, match="does not fit queries .* and keys"):
        q = torch.ones(1, 2, 1, 16)
        OPS.attention_backward(q, q, q, q, q, torch.ones(3), None, None, None, 0.0, 1.0, False, False, False)
    with pytest.raises(RuntimeError, match="1 values and 1 scales do not fit"):
        OPS.unstash(torch.ones(1, dtype=torch.int8), torch.ones(1, dtype=torch.bfloat16), (2,), torch.float32)
    with pytest.raises(RuntimeError, match="multiple of 16"):
        q = torch.ones(1, 2, 1, 8)
        OPS.attention(q, q, q, None, None, None, 0.0, 1.0, False, "log-sums")
