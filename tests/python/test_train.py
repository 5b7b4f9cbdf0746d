import json

import pytest
import torch
from conftest import ROOT, TEXT

import gantry

ADAMW = {"dtype": "fp32", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1,
         "clip_norm": 0}


def batch(model, rows=4, tokens=24):
    ids = torch.tensor(model.tokenizer.encode(TEXT))
    return ids[:rows * tokens].reshape(rows, tokens)


def losses(trainer, ids, count, **inputs):
    return [trainer.step(ids, **inputs).loss for _ in range(count)]


def test_ten_adamw_steps_equal_torch_s(golden):
    ids = golden.tensors["input_ids"]
    model = gantry.load(golden.folder, dtype="fp32")
    # As Gantry does, and unlike the goldens, norms and biases do not decay.
    parameters = model.parameters().values()
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() == 2], "weight_decay": 0.1},
         {"params": [p for p in parameters if p.dim() != 2], "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    expected = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = model.loss(ids, golden.labels, **golden.inputs)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    trainer = gantry.Trainer(gantry.load(golden.folder), **ADAMW)
    got = losses(trainer, ids, 10, labels=golden.labels, **golden.inputs)
    assert got == pytest.approx(expected, rel=1e-5)
    # The decay of the few vectors moves the goldens' losses by less than this.
    assert got == pytest.approx(golden.json["adamw"]["loss_before_each_step"], rel=3e-3)
    assert trainer.steps_taken == 10


def test_report_tells_what_a_step_did(model):
    ids = batch(model)
    expected = model.loss(ids)
    expected.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters().values()]).norm().item()
    for parameter in model.parameters().values():
        parameter.grad = None
    trainer = gantry.Trainer(model, dtype="fp32", steps=10, warmup_steps=4, learning_rate=8e-3, schedule="linear")
    report = trainer.step(ids)
    assert report.loss == pytest.approx(expected.item(), rel=1e-5)
    assert report.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert report.learning_rate == pytest.approx(2e-3), "the first of four warm-up steps"
    assert report.tokens == 96 and report.applied
    assert "loss=" in repr(report)
    assert trainer.options["learning_rate"] == 8e-3 and trainer.options["beta2"] == 0.95
    assert trainer.model is model


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_loss_falls_and_the_model_is_the_trained_one(scratch_dir, dtype):
    model = gantry.from_scratch(scratch_dir, seed=2)
    ids = batch(model)
    trainer = gantry.Trainer(model, dtype=dtype, learning_rate=3e-3)
    fell = losses(trainer, ids, 30)
    assert fell[-1] < 0.7 * fell[0]
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert not model.training, "evaluation mode is back"
    with torch.no_grad():
        assert model.loss(ids).item() < fell[-1] * 1.02
    assert model.generate("In the", max_tokens=5, ignore_eos=True).ids


def test_labels_choose_what_is_learnt(model):
    ids = batch(model)
    labels = torch.full_like(ids, -100)
    labels[:, 5] = 9
    trainer = gantry.Trainer(model, dtype="fp32", learning_rate=1e-2, weight_decay=0)
    losses(trainer, ids, 20, labels=labels)
    assert (model(ids)[:, 5].argmax(-1) == 9).all()


def test_accumulation_adds_up_to_the_whole_batch(model_dir):
    whole, parts = gantry.load(model_dir), gantry.load(model_dir)
    ids = batch(whole)
    first = losses(gantry.Trainer(whole, **ADAMW), ids, 4)
    second = losses(gantry.Trainer(parts, accumulation=2, **ADAMW), ids, 4)
    assert second == pytest.approx(first, rel=1e-4)


def test_checkpoint_goes_on_bit_for_bit(model_dir, tmp_path):
    model = gantry.load(model_dir)
    ids = batch(model)
    trainer = gantry.Trainer(model, dtype="bf16", learning_rate=1e-3)
    losses(trainer, ids, 2)
    folder = trainer.save_checkpoint(tmp_path)
    assert folder == tmp_path / "checkpoint-2" and (folder / "config.json").exists()
    uninterrupted = losses(trainer, ids, 3)

    resumed = gantry.Trainer(gantry.load(model_dir), dtype="bf16", learning_rate=1e-3)
    resumed.load_checkpoint(folder)
    assert resumed.steps_taken == 2
    assert losses(resumed, ids, 3) == uninterrupted
    with pytest.raises(gantry.InputError):
        gantry.Trainer(gantry.load(model_dir), dtype="fp32").load_checkpoint(folder)


def test_low_rank_updates_train_merge_and_save(model_dir, tmp_path):
    model = gantry.load(model_dir)
    ids = batch(model)
    before = {name: parameter.clone() for name, parameter in model.parameters().items()}
    trainer = gantry.Trainer(model, dtype="fp32", lora_rank=4, learning_rate=1e-2)
    fell = losses(trainer, ids, 20)
    assert fell[-1] < fell[0] - 0.1
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.parameters().items())
    with pytest.raises(gantry.InputError, match="merge_lora"):
        model.save(tmp_path / "whole")
    trainer.save_adapter(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    with torch.no_grad():
        updated = model(ids)
    trainer.merge_lora()
    model.save(tmp_path / "whole")
    assert torch.allclose(gantry.load(tmp_path / "whole")(ids), updated, atol=1e-3)
    with pytest.raises(gantry.InputError, match="no longer owns"):
        trainer.step(ids)


def test_the_newest_trainer_owns_the_model(model):
    ids = batch(model)
    old = gantry.Trainer(model, dtype="fp32")
    new = gantry.Trainer(model, dtype="fp32")
    with pytest.raises(gantry.InputError, match="newer one"):
        old.step(ids)
    assert new.step(ids).applied


def test_a_step_needs_no_gradient_mode_and_refuses_bad_batches(model):
    ids = batch(model)
    trainer = gantry.Trainer(model, dtype="fp32", accumulation=2)
    with torch.no_grad():
        assert trainer.step(ids).applied
    for bad, labels, message in [
        (ids[:3], None, "3 rows can't be split"),
        (ids, ids[:, :3], "labels: expected the shape of ids"),
        (ids, torch.full_like(ids, -100), "none of them counts"),
        (ids, torch.full_like(ids, 5000), "label 5000 is outside"),
        (ids + 5000, None, "do not all fit"),
        (ids[:, :1], None, "at least 2 tokens"),
    ]:
        with pytest.raises(gantry.InputError, match=message):
            trainer.step(bad, labels)
    assert trainer.steps_taken == 1 and trainer.step(ids).applied


def test_an_overflowing_step_is_not_applied(model):
    ids = batch(model)
    trainer = gantry.Trainer(model, dtype="fp32")
    with torch.no_grad():
        model.parameters()["model.norm.weight"].fill_(float("inf"))
    report = trainer.step(ids)
    assert not report.applied and trainer.steps_taken == 0


def test_bad_trainer_options_are_refused(model):
    with pytest.raises(TypeError, match=r"Trainer\(\) has no option 'data'; its options are steps, .*clip_norm"):
        gantry.Trainer(model, data=["x"])
    with pytest.raises(TypeError, match="learning_rate: expected a number, got str"):
        gantry.Trainer(model, learning_rate="1e-4")
    for options, message in [
        ({"learning_rate": -1.0}, "learning-rate"),
        ({"dtype": "int8"}, "dtype"),
        ({"schedule": "cosine"}, "needs steps"),
        ({"schedule": "stepwise", "steps": 3}, "stepwise"),
        ({"steps": 0}, "steps"),
        ({"accumulation": 0}, "accumulation"),
        ({"lora_rank": 4, "dtype": "bf16"}, 'load the model with dtype="bf16"'),
    ]:
        with pytest.raises(gantry.InputError, match=message):
            gantry.Trainer(model, **options)


def test_a_whole_run_trains_resumes_and_refuses(scratch_dir, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 20)
    run = {"data": tmp_path / "text.txt", "out": tmp_path / "run", "batch": 2, "sequence_length": 32,
           "dtype": "fp32", "learning_rate": 5e-3, "from_scratch": True, "validation_fraction": 0.1}
    result = gantry.train(scratch_dir, steps=12, **run)
    assert result.steps == 12 and not result.interrupted and result.tokens_per_s > 0
    assert result.final_loss < result.first_loss
    assert 0 < result.validation_after < result.validation_before
    trained = gantry.load(tmp_path / "run")
    assert trained.perplexity(TEXT, window=32) < gantry.from_scratch(scratch_dir).perplexity(TEXT, window=32)
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert events.count("step") == 12 and events[-1] == "end"
    with pytest.raises(gantry.InputError, match="resume"):
        gantry.train(scratch_dir, steps=12, **run)
    with pytest.raises(gantry.InputError, match="absent.txt"):
        gantry.train(scratch_dir, steps=2, **{**run, "data": [tmp_path / "absent.txt"], "out": tmp_path / "other"})
    with pytest.raises(TypeError, match=r"train\(\) has no option 'stepz'"):
        gantry.train(scratch_dir, stepz=2, **run)
    with pytest.raises(gantry.InputError, match="data"):
        gantry.train(scratch_dir, out=tmp_path / "none", steps=1)


def test_the_micro_batch_is_looked_for(scratch_dir, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 20)
    run = {"data": tmp_path / "text.txt", "sequence_length": 32, "dtype": "fp32", "steps": 2, "from_scratch": True}
    result = gantry.train(scratch_dir, out=tmp_path / "auto", batch="auto", global_batch=3, memory_budget="64GiB", **run)
    assert [trial["micro_batch"] for trial in result.micro_batches] == [1, 2, 3]
    chosen = [trial for trial in result.micro_batches if trial["chosen"]]
    assert [(trial["micro_batch"], trial["accumulation"]) for trial in chosen] == [(result.micro_batch, result.accumulation)]
    plain = gantry.train(scratch_dir, out=tmp_path / "plain", batch=2, global_batch=3, **run)
    assert (plain.micro_batch, plain.accumulation, plain.micro_batches) == (2, 2, None)
    assert plain.final_loss == pytest.approx(result.final_loss, rel=1e-4)
    assert gantry.train_options()["batch"][0] == 4 and gantry.train_options()["global_batch"][0] is None
    with pytest.raises(gantry.Error, match="no choice of memory modes fits"):
        gantry.train(scratch_dir, out=tmp_path / "none", batch="auto", memory_budget="1MiB", **run)
    with pytest.raises(gantry.InputError, match="batch is 'fast', expected an integer or 'auto'"):
        gantry.train(scratch_dir, out=tmp_path / "none", batch="fast", **run)
    with pytest.raises(TypeError, match="batch: expected an integer or 'auto', got float"):
        gantry.train(scratch_dir, out=tmp_path / "none", batch=1.5, **run)


def test_examples_run_as_written(model_dir, tmp_path):
    import subprocess
    import sys

    (tmp_path / "text.txt").write_text(TEXT * 20)
    examples = ROOT / "examples" / "python"
    said = subprocess.run([sys.executable, examples / "generate.py", model_dir, "Say a word.", "--max-tokens", "8"],
                          check=True, capture_output=True, text=True).stdout
    assert "tokens/s" in said
    said = subprocess.run([sys.executable, examples / "finetune.py", model_dir, tmp_path / "text.txt", tmp_path / "out",
                           "--steps", "4", "--tokens", "32"], check=True, capture_output=True, text=True).stdout
    assert "perplexity" in said
    assert gantry.load(tmp_path / "out").tokenizer is not None
