import numpy
import pytest
import torch
from conftest import SPECIAL, TEMPLATE

import gantry


@pytest.fixture(scope="module")
def tokenizer(scratch_dir):
    return gantry.load_tokenizer(scratch_dir)


def test_text_survives_encoding(tokenizer):
    text = "The words of 1999: naïve café 💧\n\tthe end"
    ids = tokenizer.encode(text)
    assert len(ids) < len(text.encode()), "merges apply"
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text.encode()) == ids


@pytest.mark.parametrize("convert", [tuple, numpy.array, torch.tensor, lambda ids: torch.tensor([ids])])
def test_decode_takes_every_kind_of_ids(tokenizer, convert):
    ids = tokenizer.encode("the word")
    assert tokenizer.decode(convert(ids)) == "the word"


def test_special_tokens_are_plain_text_on_request(tokenizer):
    text = f"a{SPECIAL[2]}b"
    assert 2 in tokenizer.encode(text)
    plain = tokenizer.encode(text, parse_special=False)
    assert 2 not in plain and tokenizer.decode(plain) == text
    assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == "ab"


def test_vocabulary_is_visible(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 3 + 256 + 4
    assert tokenizer.eos_id == 0 and tokenizer.stop_ids == [0] and tokenizer.pad_id is None
    the = tokenizer.id_of("the")
    assert tokenizer.token_text(the) == "the" and tokenizer.token_bytes(tokenizer.id_of("Ġw")) == b" w"
    assert tokenizer.id_of("absent") is None
    assert tokenizer.is_special(1) and not tokenizer.is_special(the)


def test_chat_template_renders_and_tokenises(tokenizer):
    messages = [{"role": "user", "content": "Hi there"}]
    text = tokenizer.apply_chat_template(messages)
    assert text == "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=False).endswith("<|im_end|>\n")
    assert tokenizer.apply_chat_template(messages, tokenize=True) == tokenizer.encode(text)
    assert tokenizer.chat_template == TEMPLATE


def test_saved_tokeniser_reads_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "copy")
    copy = gantry.load_tokenizer(tmp_path / "copy")
    text = f"the words{SPECIAL[2]} and 12"
    assert copy.encode(text) == tokenizer.encode(text)
    assert copy.chat_template == TEMPLATE and copy.eos_id == 0


def test_bad_input_is_refused_with_a_reason(tokenizer, tmp_path):
    with pytest.raises(gantry.InputError, match="9999"):
        tokenizer.decode([9999])
    with pytest.raises(gantry.InputError, match="4294967296 is no token id"):
        tokenizer.decode([2**32])
    with pytest.raises(TypeError, match="ids: expected integers, got str"):
        tokenizer.decode("text")
    with pytest.raises(TypeError, match="ids: expected integers, got float"):
        tokenizer.decode([1.5])
    with pytest.raises(gantry.InputError, match="messages"):
        tokenizer.apply_chat_template([])
    with pytest.raises(gantry.InputError, match="role"):
        tokenizer.apply_chat_template([{"content": "who speaks?"}])
    with pytest.raises(TypeError, match="messages: not plain data"):
        tokenizer.apply_chat_template([{"role": "user", "content": object()}])
    with pytest.raises(gantry.InputError, match="surrogate"):
        tokenizer.apply_chat_template([{"role": "user", "content": "\ud800"}])
    with pytest.raises(ValueError, match="no tokeniser"):
        gantry.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 7}')
    with pytest.raises(gantry.InputError, match="tokenizer.json"):
        gantry.load_tokenizer(tmp_path)
