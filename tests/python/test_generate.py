import os
import signal
import threading
import time

import pytest
import torch

import gantry


def test_greedy_ids_equal_the_goldens(golden):
    model = gantry.load(golden.folder, dtype="fp32")
    if "greedy" not in golden.json:
        with pytest.raises(gantry.InputError, match="encoder"):
            model.generate([1, 2])
        return
    assert model.tokenizer is None
    for case in golden.json["greedy"]:
        result = model.generate(torch.tensor([case["prompt"]]), max_tokens=len(case["output"]), ignore_eos=True)
        assert result.ids == case["output"]
        assert result.text == "" and result.finish_reason == "length"


def test_pieces_join_to_the_text(model):
    pieces = []
    result = model.generate("the word", on_text=pieces.append, max_tokens=40, ignore_eos=True)
    assert len(result.ids) == 40 and len(pieces) > 1
    assert "".join(pieces) == result.text == str(result) == model.tokenizer.decode(result.ids, skip_special=True)
    assert result.prefill_s > 0 and result.decode_s > 0
    assert "40 tokens" in repr(result)


def test_a_prompt_of_ids_is_taken_as_it_is(model):
    options = {"max_tokens": 8, "ignore_eos": True}
    assert model.generate(model.tokenizer.encode("the"), **options).ids == model.generate("the", **options).ids


def test_samples_follow_the_seed(model):
    options = {"max_tokens": 20, "temperature": 1.0, "top_k": 50, "top_p": 0.9, "ignore_eos": True}
    first, again, other = (model.generate("word", seed=seed, **options).ids for seed in (7, 7, 8))
    assert first == again != other


def test_a_stop_text_ends_the_text_before_it(model):
    free = model.generate("the word", max_tokens=30, ignore_eos=True)
    stop = free.text[4:6]
    result = model.generate("the word", max_tokens=30, ignore_eos=True, stop=stop)
    assert result.finish_reason == "stop" and result.text == free.text[:free.text.index(stop)]


def test_false_from_on_text_stops(model):
    result = model.generate("the word", on_text=lambda piece: False, max_tokens=30, ignore_eos=True)
    assert result.finish_reason == "interrupted" and len(result.ids) < 30


def test_an_exception_in_on_text_arrives_and_harms_nothing(model):
    def fail(piece):
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        model.generate("the word", on_text=fail, max_tokens=30, ignore_eos=True)
    assert len(model.generate("the word", max_tokens=3, ignore_eos=True).ids) == 3


def test_gradients_flow_after_a_generation(model, ids):
    model.generate("the word", max_tokens=3, ignore_eos=True)
    model.perplexity(ids[0], window=8)
    model.loss(ids).backward()
    assert model.parameters()["model.norm.weight"].grad.abs().sum() > 0


def interrupt_during(work):
    """Runs `work`, sends this process SIGINT from another thread meanwhile, and returns how long it went on after that."""
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, send)
    timer.start()
    try:
        work()
        return None
    finally:
        timer.join()
        elapsed = time.monotonic() - sent[0]
        assert elapsed < 10, f"went on for {elapsed:.1f} s"


def test_ctrl_c_stops_a_generation_and_the_next_one_runs(model):
    # The timer's thread can only send the signal because the GIL is free.
    with pytest.raises(KeyboardInterrupt):
        interrupt_during(lambda: model.generate([5], max_tokens=150_000, ignore_eos=True))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(model.generate("the word", max_tokens=5, ignore_eos=True).ids) == 5


def test_another_handler_of_sigint_decides(model):
    class Stop(Exception):
        pass

    def handler(number, frame):
        raise Stop

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(Stop):
            interrupt_during(lambda: model.generate([5], max_tokens=150_000, ignore_eos=True))
    finally:
        signal.signal(signal.SIGINT, before)


def test_bad_options_are_refused(model):
    with pytest.raises(TypeError, match=r"generate\(\) has no option 'temprature'; its options are max_tokens, .*temperature"):
        model.generate("the", temprature=1.0)
    with pytest.raises(TypeError, match="temperature: expected a number, got str"):
        model.generate("the", temperature="hot")
    with pytest.raises(TypeError, match="top_k: expected an integer, got float"):
        model.generate("the", top_k=1.5)
    with pytest.raises(TypeError, match="ignore_eos: expected True or False, got int"):
        model.generate("the", ignore_eos=1)
    with pytest.raises(TypeError, match="stop: expected a str or a path, got int"):
        model.generate("the", stop=[3])
    with pytest.raises(gantry.InputError, match="seed: -1 is out of range"):
        model.generate("the", seed=-1)
    with pytest.raises(ValueError, match="top_p"):
        model.generate("the", top_p=3.0)
    with pytest.raises(gantry.InputError, match="max_tokens"):
        model.generate("the", max_tokens=0)
    with pytest.raises(gantry.InputError, match="prompt is empty"):
        model.generate("")
    with pytest.raises(TypeError, match="on_text"):
        model.generate("the", on_text=3)


def test_text_needs_a_tokeniser(scratch_dir):
    model = gantry.from_scratch({**gantry.from_scratch(scratch_dir).config})
    with pytest.raises(gantry.InputError, match="without a tokeniser"):
        model.generate("the word")
    with pytest.raises(gantry.InputError, match="without a tokeniser"):
        model.generate([1], stop="x")
    with pytest.raises(gantry.InputError, match="without a tokeniser"):
        model.perplexity("the word")
