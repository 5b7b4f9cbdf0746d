"""What the tests of the Python package share: a tiny model made on the spot, and the goldens of ../shared/data."""
import json
import os
import pathlib
import struct

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "In the beginning was the word, and the word was short. " * 40

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 263,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 200000,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
    "eos_token_id": 0,
}


def byte_characters():
    """The 256 printable characters that byte-level vocabularies spell bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def tokenizer_json():
    vocabulary = {token: i for i, token in enumerate(SPECIAL + byte_characters())}
    merges = ["t h", "th e", "Ġ w", "o r"]
    for merge in merges:
        vocabulary[merge.replace(" ", "")] = len(vocabulary)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for i, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "unk_token": None, "vocab": vocabulary, "merges": merges},
    }


@pytest.fixture(scope="session")
def scratch_dir(tmp_path_factory):
    """A folder with config.json and a byte-level tokeniser, without weights."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": SPECIAL[0], "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.fixture(scope="session")
def model_dir(scratch_dir, tmp_path_factory):
    """The same with random weights, as save() writes it."""
    import gantry

    folder = tmp_path_factory.mktemp("tiny")
    gantry.from_scratch(scratch_dir, seed=1).save(folder)
    return folder


@pytest.fixture
def model(model_dir):
    import gantry

    return gantry.load(model_dir)


@pytest.fixture
def ids():
    return torch.randint(3, 259, (2, 12), generator=torch.Generator().manual_seed(0))


class Golden:
    """Inputs and outputs of another implementation for one tiny model."""

    def __init__(self, folder):
        self.folder = folder
        self.json = json.loads((folder / "golden.json").read_text())
        self.tensors = read_safetensors(folder / "golden.safetensors")

    @property
    def inputs(self):
        others = {"key_mask": "attention_mask", "token_types": "token_type_ids"}
        return {name: self.tensors[key].bool() if name == "key_mask" else self.tensors[key]
                for name, key in others.items() if key in self.tensors}

    @property
    def labels(self):
        """What each position predicts; the goldens of decoders have the labels of their own positions."""
        labels = self.tensors["labels"]
        if "greedy" not in self.json:
            return labels
        return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)


def read_safetensors(path):
    types = {"F32": torch.float32, "I64": torch.int64}
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = bytearray(data[8 + length + begin:8 + length + end])
        tensors[name] = torch.frombuffer(raw, dtype=types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


@pytest.fixture(params=["tiny-llama", "tiny-llama-tied", "tiny-gpt2", "tiny-bert"])
def golden(request):
    data = pathlib.Path(os.environ.get("GANTRY_DATA") or ROOT.parent / "shared" / "data")
    folder = data / "llm" / request.param
    if not folder.is_dir():
        pytest.skip(f"no golden data: {folder} is absent (set GANTRY_DATA)")
    return Golden(folder)
