import json

import pytest
import torch
from conftest import CONFIG, TEXT

import gantry


def relative_error(got, expected):
    return ((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def test_logits_equal_the_goldens(golden):
    model = gantry.load(golden.folder, dtype="fp32")
    with torch.no_grad():
        logits = model.forward(golden.tensors["input_ids"], **golden.inputs)
    assert logits.dtype == torch.float32
    counted = golden.inputs.get("key_mask", torch.ones(logits.shape[:2], dtype=torch.bool))
    assert relative_error(logits[counted], golden.tensors["logits"][counted]) < 2e-5


def test_loss_and_every_gradient_equal_the_goldens(golden):
    model = gantry.load(golden.folder, dtype="fp32")
    loss = model.loss(golden.tensors["input_ids"], golden.labels, **golden.inputs)
    loss.backward()
    assert abs(loss.item() - golden.json["loss"]) < 5e-6 * golden.json["loss"]
    for name, parameter in model.parameters().items():
        if name.endswith("key.bias"):  # zero in exact arithmetic
            assert parameter.grad.abs().max() < 1e-7
        else:
            assert relative_error(parameter.grad, golden.tensors["grad." + name]) < 1e-5, name


def test_loss_is_the_cross_entropy_of_the_logits(model, ids):
    expected = torch.nn.functional.cross_entropy(model(ids)[:, :-1].reshape(-1, 263), ids[:, 1:].reshape(-1))
    assert model.loss(ids).item() == pytest.approx(expected.item(), rel=1e-5)
    labels = torch.full_like(ids, -100)
    labels[0, 3] = 7
    expected = -torch.log_softmax(model(ids)[0, 3], 0)[7]
    assert model.loss(ids, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_flow_through_logits_into_parameters(model, ids):
    model(ids).square().mean().backward()
    for name, parameter in model.parameters().items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_hidden_states_and_head_make_the_logits(model, ids):
    hidden = model.hidden(ids)
    assert hidden.shape == (2, 12, 32)
    head = model.parameters()["model.embed_tokens.weight"]
    assert torch.allclose(hidden @ head.T, model(ids), atol=1e-4)


def test_packed_documents_do_not_see_each_other(model, ids):
    starts = torch.tensor([[0] * 5 + [5] * 7] * 2)
    positions = torch.tensor([[*range(5), *range(7)]] * 2)
    packed = model(ids, row_starts=starts, positions=positions)
    assert torch.allclose(packed[:, 5:], model(ids[:, 5:]), atol=1e-4)


def test_parameters_share_the_model_s_memory(model_dir, ids):
    model = gantry.load(model_dir)  # views of the mapped file until they are asked for
    before = model(ids)
    parameters = model.parameters()
    assert list(parameters)[0] == "model.embed_tokens.weight"
    assert model.num_parameters == sum(p.numel() for p in parameters.values())
    with torch.no_grad():
        parameters["model.norm.weight"].mul_(2)
    assert torch.allclose(model(ids), 2 * before, atol=1e-4)
    assert torch.equal(gantry.load(model_dir)(ids), before), "the file is as it was"


def test_config_and_dtype_are_visible(model, model_dir):
    assert model.config["hidden_size"] == CONFIG["hidden_size"] and model.config["model_type"] == "llama"
    assert model.dtype == torch.float32
    half = gantry.load(model_dir, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.config["dtype"] == "bfloat16"
    assert "bf16" in repr(half)
    assert not model.training and model.train().training and not model.eval().training


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_saved_model_loads_to_the_same(scratch_dir, tmp_path, ids, dtype):
    model = gantry.from_scratch(scratch_dir, dtype=dtype, seed=3)
    model.save(tmp_path)
    copy = gantry.load(tmp_path)
    assert copy.dtype == model.dtype and copy.config == model.config
    assert torch.equal(copy(ids), model(ids))
    assert copy.tokenizer.encode("the words") == model.tokenizer.encode("the words")
    for (name, saved), (other, original) in zip(copy.parameters().items(), model.parameters().items(), strict=True):
        assert name == other and torch.equal(saved, original)


def test_random_weights_follow_the_seed(scratch_dir):
    weights = [gantry.from_scratch(scratch_dir, seed=seed).parameters()["model.layers.1.mlp.up_proj.weight"]
               for seed in (5, 5, 6)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    bare = gantry.from_scratch(CONFIG)
    assert bare.tokenizer is None and bare.config["vocab_size"] == 263


def test_perplexity_is_that_of_the_windows(model):
    ids = torch.tensor(model.tokenizer.encode(TEXT))[:96].reshape(3, 32)
    with torch.no_grad():
        expected = torch.stack([model.loss(row[None]) for row in ids]).mean().exp().item()
    assert model.perplexity(ids.flatten(), window=32) == pytest.approx(expected, rel=1e-4)
    assert model.perplexity(TEXT, window=32, max_windows=3, batch=2) == pytest.approx(expected, rel=1e-4)


def test_bad_tensors_are_refused(model, ids):
    for bad, message in [
        (ids[0], "expected a tensor \\[batch, tokens\\]"),
        (ids[:, :0], "at least one token"),
        (ids.float(), "ids: expected integers, got Float"),
        (ids + 263, "do not all fit a table of 263 rows"),
        (ids - 1000, "do not all fit"),
    ]:
        with pytest.raises(gantry.InputError, match=message):
            model(bad)
    with pytest.raises(gantry.InputError, match="key_mask: expected the shape of ids, \\[2, 12\\], got \\[2, 3\\]"):
        model(ids, key_mask=ids[:, :3])
    with pytest.raises(gantry.InputError, match="positions: expected 0 to 199999"):
        model(ids, positions=ids + 10**12)
    with pytest.raises(gantry.InputError, match="row_starts"):
        model(ids, row_starts=torch.full_like(ids, 11))
    with pytest.raises(gantry.InputError, match="label 999 is outside"):
        model.loss(ids, torch.full_like(ids, 999))
    with pytest.raises(gantry.InputError, match="at least 2 tokens a row"):
        model.loss(ids[:, :1])


def test_bad_files_are_refused(model_dir, tmp_path):
    with pytest.raises(gantry.InputError, match="no such model"):
        gantry.load(tmp_path / "absent")
    with pytest.raises(gantry.InputError, match="dtype|type"):
        gantry.load(model_dir, dtype="int3")
    with pytest.raises(gantry.InputError, match="torch.float64|Double"):
        gantry.load(model_dir, dtype=torch.float64)
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    weights = (model_dir / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match="model.safetensors"):
        gantry.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(gantry.InputError, match="NaN or infinity"):
        gantry.load(tmp_path)
    with pytest.raises(gantry.InputError, match="hidden_size"):
        gantry.from_scratch({**CONFIG, "hidden_size": -1})
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model_type": "submarine"}))
    with pytest.raises(gantry.InputError, match="submarine"):
        gantry.load(tmp_path)


def test_missing_write_permission_is_an_error(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((gantry.Error, gantry.InputError), match="file"):
        model.save(tmp_path / "file" / "below")
