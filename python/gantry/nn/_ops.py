"""Shapes and derivatives of the operators torch.ops.gantry.*, whose CPU kernels are in the extension (python/ops*.cpp).

Derivatives save what the kernels return for them. Results that only serve a derivative have none of their own: asking
for one raises. The same holds for second derivatives, except those of dropout.
"""

import math

import torch
from torch.library import register_autograd, register_fake

import gantry._core  # noqa: F401 -- registers the kernels

ops = torch.ops.gantry


def _absent(like):
    return like.new_empty((0,))


def _no_second_derivative(name):
    def backward(ctx, *gradients):
        raise RuntimeError(
            f"gantry: second derivatives of {name} are not available; use memory='store' where they are needed")

    register_autograd(f"gantry::{name}_backward", backward)


def _only_first(name, gradients):
    """The gradient of the operator's value, after a check that nothing else has one."""
    if any(gradient is not None for gradient in gradients[1:]):
        raise RuntimeError(f"gantry: only the first result of {name} has a derivative")
    return gradients[0]


# ---- activations


@register_fake("gantry::activation")
def _(x, kind):
    return torch.empty_like(x), x.new_empty(((x.numel() + 7) // 8,), dtype=torch.uint8)


@register_fake("gantry::activation_backward")
def _(dy, y, side, kind):
    return torch.empty_like(y)


def _activation_setup(ctx, inputs, output):
    ctx.kind = inputs[1]
    ctx.save_for_backward(*output)


def _activation_backward(ctx, *gradients):
    y, side = ctx.saved_tensors
    return ops.activation_backward(gradients[0], y, side, ctx.kind), None


register_autograd("gantry::activation", _activation_backward, setup_context=_activation_setup)
_no_second_derivative("activation")

# ---- dropout: linear in x, so that it is its own derivative


@register_fake("gantry::dropout")
def _(x, seed, p):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _dropout_setup(ctx, inputs, output):
    _, seed, ctx.p = inputs
    ctx.save_for_backward(seed)


def _dropout_backward(ctx, dy):
    (seed,) = ctx.saved_tensors
    return ops.dropout(dy, seed, ctx.p), None, None


register_autograd("gantry::dropout", _dropout_backward, setup_context=_dropout_setup)

# ---- norms


def _rows(x):
    return math.prod(x.shape[:-1])


def _rstd(x):
    return x.new_empty((_rows(x),), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _like_or_absent(x, like):
    return _absent(like) if x is None else torch.empty_like(x)


@register_fake("gantry::norm")
def _(x, weight, bias, eps, kind, dtype):
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format), _rstd(x)


@register_fake("gantry::norm_backward")
def _(dy, y, rstd, weight, bias, kind):
    return torch.empty_like(y), _like_or_absent(weight, y), _like_or_absent(bias, y)


def _norm_setup(ctx, inputs, output):
    x, weight, bias, _, ctx.kind, _ = inputs
    ctx.dtype = x.dtype
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, weight, bias)


def _norm_backward(ctx, *gradients):
    dy = _only_first("norm", gradients)
    if dy is None:
        return None, None, None, None, None, None
    y, rstd, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = ops.norm_backward(dy, y, rstd, weight, bias, ctx.kind)
    return (dx.to(ctx.dtype), None if weight is None else dweight, None if bias is None else dbias, None, None, None)


register_autograd("gantry::norm", _norm_backward, setup_context=_norm_setup)
_no_second_derivative("norm")


@register_fake("gantry::dropout_add_norm")
def _(x, residual, weight, bias, seed, p, eps, kind, return_sum):
    def dense():
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    return dense(), dense() if return_sum else _absent(x), _rstd(x)


@register_fake("gantry::dropout_add_norm_backward")
def _(dy, dsum, y, rstd, weight, bias, seed, p, kind):
    return torch.empty_like(y), torch.empty_like(y), _like_or_absent(weight, y), _like_or_absent(bias, y)


def _dropout_add_norm_setup(ctx, inputs, output):
    _, _, weight, bias, seed, ctx.p, _, ctx.kind, _ = inputs
    y, _, rstd = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y, rstd, weight, bias, seed)


def _dropout_add_norm_backward(ctx, dy, dsum, drstd):
    _only_first("dropout_add_norm", (dy, drstd))
    if dy is None and dsum is None:
        return (None,) * 9
    y, rstd, weight, bias, seed = ctx.saved_tensors
    dx, dresidual, dweight, dbias = ops.dropout_add_norm_backward(
        dy, dsum, y, rstd, weight, bias, seed, ctx.p, ctx.kind)
    return (dx, dresidual, None if weight is None else dweight, None if bias is None else dbias) + (None,) * 5


register_autograd("gantry::dropout_add_norm", _dropout_add_norm_backward, setup_context=_dropout_add_norm_setup)
_no_second_derivative("dropout_add_norm")

# ---- eight bits, which have no derivative


@register_fake("gantry::stash")
def _(x):
    n = x.numel()
    return x.new_empty((n,), dtype=torch.int8), x.new_empty(((n + 63) // 64,), dtype=torch.bfloat16)


@register_fake("gantry::unstash")
def _(values, scales, sizes, dtype):
    return values.new_empty(sizes, dtype=dtype)


def _no_derivative(name):
    def backward(ctx, *gradients):
        raise RuntimeError(f"gantry: {name} has no derivative")

    register_autograd(f"gantry::{name}", backward)


_no_derivative("stash")
_no_derivative("unstash")

# ---- attention


@register_fake("gantry::attention")
def _(q, k, v, mask, key_mask, seed, p, scale, causal, keep):
    batch, length, heads, _ = q.shape
    if keep == "probabilities":
        return q.new_empty(q.shape), q.new_empty((batch, heads, length, k.shape[1]))
    return q.new_empty(q.shape), q.new_empty((batch, heads, length), dtype=torch.float32)


@register_fake("gantry::attention_backward")
def _(dout, q, k, v, out, kept, mask, key_mask, seed, p, scale, causal, stored, mask_gradient):
    wanted = mask_gradient and mask is not None and mask.dtype.is_floating_point
    dmask = mask.new_empty(mask.shape) if wanted else _absent(q)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dmask


def _attention_setup(ctx, inputs, output):
    q, k, v, mask, key_mask, seed, *ctx.options, ctx.keep = inputs
    ctx.set_materialize_grads(False)
    if ctx.keep == "int8":
        ctx.shapes, ctx.dtype = (q.shape, k.shape, v.shape), q.dtype
        packed = [part for x in (q, k, v) for part in ops.stash(x)]
        ctx.save_for_backward(*packed, mask, key_mask, seed)
    else:
        ctx.save_for_backward(q, k, v, *output, mask, key_mask, seed)


def _attention_kept(ctx):
    if ctx.keep != "int8":
        return ctx.saved_tensors
    *packed, mask, key_mask, seed = ctx.saved_tensors
    q, k, v = (ops.unstash(*packed[2 * i:2 * i + 2], ctx.shapes[i], ctx.dtype) for i in range(3))
    # The sums belong to these very scores, not to those of the forward pass.
    out, kept = ops.attention(q, k, v, mask, key_mask, seed, *ctx.options, "log-sums")
    return q, k, v, out, kept, mask, key_mask, seed


def _attention_backward(ctx, *gradients):
    dout = _only_first("attention", gradients)
    if dout is None:
        return (None,) * 10
    q, k, v, out, kept, mask, key_mask, seed = _attention_kept(ctx)
    needs_mask = mask is not None and ctx.needs_input_grad[3]
    stored = ctx.keep == "probabilities"
    dq, dk, dv, dmask = ops.attention_backward(dout, q, k, v, out, kept, mask, key_mask, seed, *ctx.options, stored,
                                               needs_mask)
    return (dq, dk, dv, dmask if needs_mask else None) + (None,) * 6


register_autograd("gantry::attention", _attention_backward, setup_context=_attention_setup)
_no_second_derivative("attention")

# ---- feed-forward blocks


def _wanted(gradients, wanted):
    return tuple(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True))


def _empty_or_absent(shapes, wanted, like):
    return tuple(like.new_empty(shape) if want else _absent(like) for shape, want in zip(shapes, wanted, strict=True))


@register_fake("gantry::mlp")
def _(x, weight1, bias1, weight2, bias2, kind, keep):
    inner = x.new_empty((_rows(x), weight1.shape[0])) if keep != "nothing" else _absent(x)
    return x.new_empty((*x.shape[:-1], weight2.shape[0])), inner


@register_fake("gantry::mlp_backward")
def _(dout, x, inner, weight1, bias1, weight2, kind, wanted):
    dx_shape = (*dout.shape[:-1], weight1.shape[1])
    shapes = (dx_shape, weight1.shape, weight1.shape[:1], weight2.shape, weight2.shape[:1])
    return _empty_or_absent(shapes, wanted, dout)


def _save_block(ctx, x, inner, x_needed, *weights):
    """What a block keeps: x where the first weights want a gradient, or where the first product runs again."""
    ctx.set_materialize_grads(False)
    ctx.dtype = x.dtype
    if ctx.keep == "int8":
        packed_x = ops.stash(x) if x_needed else (None, None)
        ctx.save_for_backward(*packed_x, *ops.stash(inner), *weights)
    else:
        ctx.save_for_backward(x if x_needed or ctx.keep == "nothing" else None, inner, *weights)


def _kept_block(ctx, dout, in_features, inner_features):
    """(x or None, inner, weights) in the backward pass."""
    if ctx.keep != "int8":
        x, inner, *weights = ctx.saved_tensors
        return x, inner, weights
    x_values, x_scales, values, scales, *weights = ctx.saved_tensors
    x = None if x_values is None else ops.unstash(x_values, x_scales, (*dout.shape[:-1], in_features), ctx.dtype)
    return x, ops.unstash(values, scales, (_rows(dout), inner_features), ctx.dtype), weights


def _mlp_setup(ctx, inputs, output):
    x, weight1, bias1, weight2, _, ctx.kind, ctx.keep = inputs
    ctx.features = (weight1.shape[1], weight1.shape[0])
    _save_block(ctx, x, output[1], ctx.needs_input_grad[1], weight1, bias1, weight2)


def _mlp_backward(ctx, *gradients):
    dout = _only_first("mlp", gradients)
    if dout is None:
        return (None,) * 7
    x, inner, weights = _kept_block(ctx, dout, *ctx.features)
    wanted = list(ctx.needs_input_grad[:5])
    result = ops.mlp_backward(dout, x, inner, *weights, ctx.kind, wanted)
    return (*_wanted(result, wanted), None, None)


register_autograd("gantry::mlp", _mlp_backward, setup_context=_mlp_setup)
_no_second_derivative("mlp")


@register_fake("gantry::gated_mlp")
def _(x, gate, up, down, kind, keep):
    kept = x.new_empty((_rows(x), 2 * gate.shape[0])) if keep != "nothing" else _absent(x)
    return x.new_empty((*x.shape[:-1], down.shape[0])), kept


@register_fake("gantry::gated_mlp_backward")
def _(dout, x, gate_up, gate, up, down, kind, wanted):
    return _empty_or_absent(((*dout.shape[:-1], gate.shape[1]), gate.shape, up.shape, down.shape), wanted, dout)


def _gated_mlp_setup(ctx, inputs, output):
    x, gate, up, down, ctx.kind, ctx.keep = inputs
    ctx.features = (gate.shape[1], 2 * gate.shape[0])
    _save_block(ctx, x, output[1], ctx.needs_input_grad[1] or ctx.needs_input_grad[2], gate, up, down)


def _gated_mlp_backward(ctx, *gradients):
    dout = _only_first("gated_mlp", gradients)
    if dout is None:
        return (None,) * 6
    x, gate_up, weights = _kept_block(ctx, dout, *ctx.features)
    wanted = list(ctx.needs_input_grad[:4])
    result = ops.gated_mlp_backward(dout, x, gate_up, *weights, ctx.kind, wanted)
    return (*_wanted(result, wanted), None, None)


register_autograd("gantry::gated_mlp", _gated_mlp_backward, setup_context=_gated_mlp_setup)
_no_second_derivative("gated_mlp")

# ---- linear and cross entropy


def _wide(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _loss_shapes(hidden, weight):
    return hidden.shape, weight.shape, weight.shape[:1]


def _present(wanted, bias):
    return wanted[0], wanted[1], wanted[2] and bias is not None


@register_fake("gantry::linear_cross_entropy")
def _(hidden, weight, bias, labels, ignore_index, smoothing, mean, wanted):
    # float16 has no room for gradients before they are scaled.
    like = hidden.new_empty((), dtype=_wide(hidden) if hidden.dtype == torch.float16 else hidden.dtype)
    gradients = _empty_or_absent(_loss_shapes(hidden, weight), _present(wanted, bias), like)
    absent = _absent(hidden)
    return (hidden.new_empty((), dtype=_wide(hidden)),
            *(gradient if want else absent for gradient, want in zip(gradients, _present(wanted, bias), strict=True)))


def _linear_cross_entropy_setup(ctx, inputs, output):
    ctx.wanted, ctx.dtype = _present(inputs[7], inputs[2]), inputs[0].dtype
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])


def _linear_cross_entropy_backward(ctx, *gradients):
    dloss = _only_first("linear_cross_entropy", gradients)
    if dloss is None:
        return (None,) * 8
    needed = ctx.needs_input_grad[:3]
    if any(need and not made for need, made in zip(needed, ctx.wanted, strict=True)):
        raise RuntimeError("gantry: linear_cross_entropy was not asked for this gradient (argument wanted)")
    parts = [ops.scaled_gradient(dloss, part).to(ctx.dtype) if need else None
             for part, need in zip(ctx.saved_tensors, needed, strict=True)]
    return (*parts, None, None, None, None, None)


register_autograd("gantry::linear_cross_entropy", _linear_cross_entropy_backward,
                  setup_context=_linear_cross_entropy_setup)


@register_fake("gantry::scaled_gradient")
def _(dloss, part):
    return torch.empty_like(part)


def _scaled_gradient_backward(ctx, *gradients):
    raise RuntimeError("gantry: second derivatives of linear_cross_entropy are not available; use torch's own loss "
                       "where they are needed")


register_autograd("gantry::scaled_gradient", _scaled_gradient_backward)


@register_fake("gantry::linear_cross_entropy_losses")
def _(hidden, weight, bias, labels, ignore_index, smoothing):
    return hidden.new_empty(labels.shape, dtype=_wide(hidden))


@register_fake("gantry::linear_cross_entropy_losses_backward")
def _(dlosses, hidden, weight, bias, labels, ignore_index, smoothing, wanted):
    return _empty_or_absent(_loss_shapes(hidden, weight), _present(wanted, bias), hidden)


def _losses_setup(ctx, inputs, output):
    *tensors, ctx.ignore_index, ctx.smoothing = inputs
    ctx.save_for_backward(*tensors)


def _losses_backward(ctx, dlosses):
    wanted = list(ctx.needs_input_grad[:3])
    result = ops.linear_cross_entropy_losses_backward(
        dlosses, *ctx.saved_tensors, ctx.ignore_index, ctx.smoothing, wanted)
    return (*_wanted(result, wanted), None, None, None)


register_autograd("gantry::linear_cross_entropy_losses", _losses_backward, setup_context=_losses_setup)
_no_second_derivative("linear_cross_entropy_losses")
