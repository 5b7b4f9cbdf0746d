"""patch() on models of Hugging Face transformers: tiny ones with random weights."""
import copy
import json
import pickle

import pytest
import torch

transformers = pytest.importorskip("transformers")

from gantry.nn import hf_attention, patch, unpatch  # noqa: E402
from gantry.nn.patch_measure import saved_storages  # noqa: E402

# Before transformers 4.57, BERT had classes of its own for sdpa, and no registry of functions.
BERT_ATTENTION = transformers.models.bert.modeling_bert.BertSelfAttention
REGISTRY = "ALL_ATTENTION_FUNCTIONS" in BERT_ATTENTION.forward.__code__.co_names
GANTRY = hf_attention.AttentionInterface()["gantry"]
FAMILIES = ["bert", "roberta", "gpt2", "llama"]
COMMON = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 128, "max_position_embeddings": 64}


def build(family, p=0.0, attention="sdpa", **options):
    torch.manual_seed(11)
    both = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p, "attn_implementation": attention, **COMMON}
    if family == "bert":
        config = transformers.BertConfig(**{**both, **options})
        return transformers.BertForMaskedLM(config)
    if family == "roberta":
        config = transformers.RobertaConfig(**{**both, **options})
        return transformers.RobertaForMaskedLM(config)
    if family == "gpt2":
        config = transformers.GPT2Config(**{"n_layer": 2, **options}, vocab_size=99, n_embd=64, n_head=4,
                                         n_positions=64, resid_pdrop=p, embd_pdrop=p, attn_pdrop=p,
                                         attn_implementation=attention)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(num_key_value_heads=2, attention_dropout=p, attn_implementation=attention,
                                      **COMMON, **options)
    return transformers.LlamaForCausalLM(config)


def batch(padded=True, rows=3, length=20):
    g = torch.Generator().manual_seed(12)
    ids = torch.randint(5, 99, (rows, length), generator=g)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 13:] = 0
        mask[2, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}


def losses(model, inputs, steps, autocast=False):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("memory", ["auto", "in-place", "recompute", "rerun"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_equals_the_stock_model(family, memory, attention):
    expected = losses(build(family, attention=attention).train(), batch(), 6)
    model = build(family, attention=attention).train()
    table = patch(model, memory)
    assert len(table.patched) >= 7
    assert losses(model, batch(), 6) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0] - 0.1


@pytest.mark.parametrize("memory", ["auto", "in-place"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_under_autocast_equals_the_stock_model(family, memory):
    expected = losses(build(family).train(), batch(), 6, autocast=True)
    model = build(family).train()
    patch(model, memory)
    assert losses(model, batch(), 6, autocast=True) == pytest.approx(expected, rel=4e-3)
    assert model.get_input_embeddings().weight.grad.dtype == torch.float32


def kinds(table):
    return {(row.kind, row.was): row.mode for row in table}


def test_what_is_patched_in_each_family():
    assert kinds(patch(build("bert", p=0.1))) == {
        ("norm", "LayerNorm"): "in-place",
        ("dropout", "Dropout"): "recompute",
        ("attention", "BertSelfAttention (sdpa)" if REGISTRY else "BertSdpaSelfAttention"): "recompute",
        ("residual_norm", "BertSelfOutput (Dropout, add, LayerNorm)"): "in-place",
        ("mlp", "BertLayer (GELUActivation)"): "recompute",
        ("residual_norm", "BertOutput (Dropout, add, LayerNorm)"): "in-place",
        ("activation", "GELUActivation"): "in-place",
    }
    assert kinds(patch(build("gpt2", p=0.1))) == {
        ("norm", "LayerNorm"): "in-place",
        ("dropout", "Dropout"): "recompute",
        ("attention", "GPT2Attention (sdpa)"): "recompute",
        ("mlp", "GPT2MLP (NewGELUActivation)"): "recompute",
    }
    silu = type(build("llama").model.layers[0].mlp.act_fn).__name__  # SiLUActivation, or SiLU in older versions
    assert kinds(patch(build("llama"))) == {
        ("norm", "LlamaRMSNorm"): "in-place",
        ("attention", "LlamaAttention (sdpa)"): "recompute",
        ("mlp", f"LlamaMLP ({silu})"): "recompute",
    }
    roberta = kinds(patch(build("roberta", p=0.1, attention="eager")))
    assert roberta["mlp", "RobertaLayer (GELUActivation)"] == "recompute"


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits_only_where_asked_for(family):
    expected = losses(build(family).train(), batch(), 6)
    model = build(family).train()
    modes = kinds(patch(model, "int8"))
    assert {mode for (kind, _), mode in modes.items() if kind in ("attention", "mlp")} == {"int8"}
    assert {mode for (kind, _), mode in modes.items() if kind in ("norm", "residual_norm")} == {"in-place"}
    assert losses(model, batch(), 6) == pytest.approx(expected, rel=1e-3)
    for memory in ("auto", "rerun"):
        assert "int8" not in patch(model, memory).modes().values()
    assert "int8" not in patch(model, example=batch()).modes().values()


def test_attention_without_dropout_is_left_to_sdpa():
    row = patch(build("bert"))["bert.encoder.layer.0.attention.self"]
    assert (row.mode, row.reason) == ("store", "torch's SDPA keeps as little where nothing is dropped")
    assert patch(build("bert", attention="eager"))[row.name].mode == ("recompute" if REGISTRY else "store")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_eval_mode_is_the_stock_model_to_the_bit(family, attention):
    model = build(family, p=0.1, attention=attention).eval()
    with torch.no_grad():
        expected = [model(**batch(padded)).logits for padded in (True, False)]
        table = patch(model)
        if REGISTRY or attention == "sdpa":
            assert all(row.mode == "recompute" for row in table if row.kind == "attention")
        assert all(torch.equal(model(**batch(padded)).logits, want)
                   for padded, want in zip((True, False), expected, strict=True))


def test_generation_is_that_of_the_stock_model():
    model = build("gpt2", p=0.1).eval()
    prompt = batch(padded=False)["input_ids"][:, :5]
    expected = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    patch(model)
    assert torch.equal(model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_with_dropout_learns_and_is_reproducible(family, attention):
    runs = []
    for _ in range(2):
        model = build(family, p=0.1, attention=attention).train()
        patch(model)
        torch.manual_seed(1)
        runs.append(losses(model, batch(), 8))
    assert runs[0] == runs[1] and runs[0][-1] < runs[0][0] - 0.1
    torch.manual_seed(2)
    assert model(**batch()).loss.item() != model(**batch()).loss.item(), "every pass draws its own masks"


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_with_dropout_are_those_of_finite_differences(family):
    model = build(family, p=0.1).double().train()
    patch(model)
    inputs = batch(rows=2, length=10, padded=False)

    def loss():
        torch.manual_seed(7)
        logits = model(inputs["input_ids"]).logits  # transformers' own loss is float32
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten())

    loss().backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    direction = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype) / 8
                 for i, p in enumerate(parameters)]
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True)).item()
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * 1e-5)
            with torch.enable_grad():
                values.append(loss().item())
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


class Attention(torch.nn.Module):
    def __init__(self, heads, kv_heads, causal):
        super().__init__()
        self.num_key_value_groups = heads // kv_heads
        self.is_causal = causal


@pytest.mark.parametrize("memory", ["in-place", "recompute"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("case", ["plain", "causal", "padding", "float", "longer keys", "one query"])
def test_attention_function_equals_sdpa(case, kv_heads, memory):
    g = torch.Generator().manual_seed(2)
    queries, keys = (1 if case == "one query" else 9), (12 if case in ("longer keys", "one query") else 9)
    q, k, v = (torch.randn(2, heads, length, 16, generator=g, requires_grad=True)
               for heads, length in ((4, queries), (kv_heads, keys), (kv_heads, keys)))
    mask = None
    if case == "padding":
        mask = torch.ones(2, 1, queries, keys, dtype=torch.bool)
        mask[1, :, :, 5:] = False
    if case == "float":
        hidden = torch.rand(2, 1, queries, keys, generator=g) < 0.2
        mask = torch.randn(2, 4, queries, keys, generator=g).masked_fill(hidden, torch.finfo(torch.float32).min)
    module = Attention(4, kv_heads, causal=case in ("causal", "longer keys", "one query"))
    module.gantry_memory = memory
    results = []
    for function in (hf_attention.sdpa_attention_forward, GANTRY):
        out, weights = function(module, q, k, v, mask, dropout=0.0, scaling=0.3)
        assert weights is None and out.shape == (2, queries, 4, 16) and out.is_contiguous()
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_attention_dropout_scales_what_it_keeps():
    module = Attention(4, 4, causal=False)
    q, k = torch.zeros(2, 1, 4, 64, 16)
    v = torch.ones(1, 4, 64, 16)
    torch.manual_seed(0)
    out, _ = GANTRY(module, q, k, v, None, dropout=0.5, scaling=1.0)
    # Each output is the kept share of 64 equal weights times two: mean 1, deviation 1/8.
    rates = out[..., 0].flatten()
    assert rates.mean().item() == pytest.approx(1, abs=0.05) and rates.std().item() == pytest.approx(0.125, rel=0.2)
    module.eval()
    assert torch.equal(GANTRY(module, q, k, v, None, dropout=0.0, scaling=1.0)[0],
                       torch.ones(1, 64, 4, 16))


def test_gantry_is_an_attention_implementation_by_name():
    model = build("llama", p=0.1, attention="gantry").train()
    assert model.config._attn_implementation == "gantry"
    expected = build("llama").eval()(**batch()).logits
    assert torch.equal(model.eval()(**batch()).logits, expected)
    table = patch(model.train(), {"norm": "in-place"})
    unpatch(model)
    assert model.config._attn_implementation == "gantry" and len(table.patched) == 5


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_is_patched_too_and_can_be_unpatched(family, duplicate):
    model = build(family, p=0.1).train()
    stock = build(family, p=0.1).train()
    count = len(patch(model).patched)
    other = duplicate(model)
    results = []
    for each in (model, other):
        torch.manual_seed(4)
        results.append(each(**batch()).loss.item())
    assert results[0] == results[1]
    assert unpatch(other) >= count
    torch.manual_seed(4)
    got = other(**batch()).loss.item()
    torch.manual_seed(4)
    assert got == stock(**batch()).loss.item() and other.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == (
        "gantry_sdpa" if REGISTRY or family not in ("bert", "roberta") else "sdpa")
    assert b"gantry.nn.hf_" in pickle.dumps(model), "loading it imports what registers the attention"


def test_models_that_share_a_config_are_patched_one_by_one():
    patched = build("gpt2", p=0.1).train()
    other = type(patched)(patched.config).train()
    other.load_state_dict(patched.state_dict())
    torch.manual_seed(4)
    expected = other(**batch()).loss.item()
    patch(patched)
    assert other.config is patched.config and other.config._attn_implementation == "gantry_sdpa"
    torch.manual_seed(4)
    assert other(**batch()).loss.item() == expected
    patch(other, "store")
    unpatch(patched)
    assert other.config._attn_implementation == "sdpa"


def test_other_models_that_run_the_same_code():
    config = transformers.MistralConfig(num_key_value_heads=2, **COMMON)
    torch.manual_seed(1)
    model = transformers.MistralForCausalLM(config).train()
    expected = torch.autograd.grad(model(**batch()).loss, list(model.parameters()))
    assert {row.kind: row.mode for row in patch(model)} == {"attention": "recompute", "mlp": "recompute",
                                                            "norm": "in-place"}
    for got, want in zip(torch.autograd.grad(model(**batch()).loss, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_attention_with_a_position_bias_is_refused():
    config = transformers.T5Config(vocab_size=99, d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4)
    reasons = {row.reason for row in patch(transformers.T5ForConditionalGeneration(config)) if row.kind == "attention"}
    assert reasons <= {"it passes position_bias"}


@pytest.mark.parametrize("family", FAMILIES)
def test_saving_while_patched_is_saving_the_stock_model(family, tmp_path):
    model = build(family, p=0.1)
    model.save_pretrained(tmp_path / "stock")
    keys = list(model.state_dict())
    table = patch(model)
    assert list(model.state_dict()) == keys
    model.save_pretrained(tmp_path / "patched")
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("stock", "patched")]
    assert files[0] == files[1]
    for name in files[0]:
        assert (tmp_path / "stock" / name).read_bytes() == (tmp_path / "patched" / name).read_bytes()
    assert "gantry" not in json.dumps(model.config.to_dict())
    again = type(model).from_pretrained(tmp_path / "patched")
    assert len(patch(again).patched) == len(table.patched)
    assert not any(again.load_state_dict(model.state_dict(), strict=True))
    unpatch(model)
    assert not any(model.load_state_dict(again.state_dict(), strict=True))
    assert type(model).from_pretrained(tmp_path / "patched").config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family, path", [("bert", "bert.encoder.layer.0.intermediate.dense"),
                                          ("gpt2", "transformer.h.0.mlp.c_fc"),
                                          ("llama", "model.layers.0.mlp.up_proj")])
def test_hooks_on_parts_of_a_fused_block_are_not_passed_over(family, path):
    model = build(family).train()
    patch(model)
    calls = []
    handle = model.get_submodule(path).register_forward_hook(lambda *arguments: calls.append(path))
    with pytest.warns(UserWarning, match="runs its stock forward: its (Linear|Conv1D) has hooks"):
        model(**batch())
    assert calls == [path]
    handle.remove()
    model(**batch())
    assert calls == [path]


def test_a_replaced_projection_is_used():
    class Adapted(torch.nn.Linear):
        pass

    model = build("bert").train()
    patch(model)
    layer = model.bert.encoder.layer[0]
    layer.intermediate.dense = Adapted(64, 128)
    with pytest.warns(UserWarning, match="BertLayer runs its stock forward: its Linear is now a Adapted"):
        model(**batch()).loss.backward()
    assert layer.intermediate.dense.weight.grad is not None
    row = patch(model)["bert.encoder.layer.0"]
    assert (row.mode, row.reason) == ("in-place", "activation only: a projection is a Adapted")


def test_gradient_checkpointing_around_patched_layers():
    gradients = []
    for checkpointed in (False, True):
        model = build("bert", p=0.1).train()
        patch(model)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(3)
        model(**batch()).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_less_is_kept():
    for family in FAMILIES:
        model, inputs = build(family, p=0.1).train(), batch(padded=False)
        kept = []
        for memory in ("store", "in-place", "auto"):
            patch(model, memory)
            with saved_storages([*model.parameters(), *model.buffers(), *inputs.values()]) as storages:
                model(**inputs)
            kept.append(sum(storages.values()))
        assert kept[2] < kept[1] < kept[0] and kept[2] < 0.75 * kept[0], (family, kept)


def test_unsupported_attention_is_refused():
    row = patch(build("bert", p=0.1, hidden_size=48))["bert.encoder.layer.0.attention.self"]
    assert (row.mode, row.reason) == ("store", "its head size is 12, expected a multiple of 16")
    model = build("gpt2", p=0.1, attention="eager", reorder_and_upcast_attn=True)
    assert patch(model)["transformer.h.0.attn"].reason == "it reorders and upcasts its scores"
    model = build("bert", p=0.1, attention="eager", output_attentions=True)
    assert ("its config asks for attention weights" if REGISTRY else "it does not ask transformers' registry") in patch(
        model)["bert.encoder.layer.1.attention.self"].reason
    assert len(model(**batch()).attentions) == 2


def test_hidden_states_can_still_be_recorded():
    model = build("bert").train()
    expected = model(**batch(), output_hidden_states=True).hidden_states
    patch(model)
    got = model(**batch(), output_hidden_states=True).hidden_states
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family, p", [("bert", 0.1), ("gpt2", 0.0)])
def test_a_compiled_patched_model_is_one_graph(family, p):
    model = build(family, p=p, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 1}).train()
    patch(model, "recompute")
    inputs = {"input_ids": batch()["input_ids"]}
    expected = model(**inputs).logits.square().mean()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got = compiled(**inputs).logits.square().mean()
    got.backward()
    assert got.item() == pytest.approx(expected.item(), rel=1e-5 if p == 0 else 0.2)
