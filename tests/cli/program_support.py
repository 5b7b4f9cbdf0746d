"""What the tests of the program share: a tiny random Llama made by the program itself, and runs of the program."""
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
# One thread each: on a busy machine threads that wait for each other make tiny models ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
PROGRAM = os.environ.get("GANTRY_PROGRAM", "gantry")
END = "<|endoftext|>"
CRASH_WORDS = ("Traceback", "terminate called", "Exception raised from", "Assertion", "AddressSanitizer")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "initializer_range": 0.02, "tie_word_embeddings": False, "eos_token_id": 256, "torch_dtype": "float32",
}


def byte_spellings():
    """The printable stand-ins of byte-level BPE, by byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            spelled[byte] = chr(byte)
        else:
            spelled[byte] = chr(256 + extra)
            extra += 1
    return spelled


def tokenizer_json():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": 256, "content": END, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {text: byte for byte, text in byte_spellings().items()} | {END: 256}, "merges": []},
    }


def run(*arguments, stdin="", environment=None, **options):
    return subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **(environment or {})}, errors="replace", **options)


def read_safetensors(file):
    """Header by name, and the bytes behind it."""
    data = pathlib.Path(file).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_safetensors(file, header, body):
    text = json.dumps(header).encode()
    pathlib.Path(file).write_bytes(struct.pack("<Q", len(text)) + text + body)


def tensors_of(file):
    header, body = read_safetensors(file)
    return {name: (item["dtype"], tuple(item["shape"]), body[slice(*item["data_offsets"])])
            for name, item in header.items() if name != "__metadata__"}


def metrics(folder, event="step"):
    rows = [json.loads(line) for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


def losses(folder):
    return [(row["step"], row["loss"]) for row in metrics(folder)]


class VerbTest(unittest.TestCase):
    """Runs of verbs, and what they owe in either case."""
    maxDiff = 2000

    def succeed(self, *arguments, **options):
        done = run(*arguments, **options)
        self.assertEqual(0, done.returncode, f"expected exit code 0 of {arguments}; got {done.returncode}:\n{done.stderr}")
        return done

    def refuse(self, *arguments, names=(), code=2, **options):
        """Runs; expects `code`, one readable message with every word of `names`, and no sign of a crash."""
        done = run(*arguments, **options)
        self.assertEqual(code, done.returncode,
                         f"expected exit code {code} of {arguments}; got {done.returncode}:\n{done.stdout}{done.stderr}")
        for word in names:
            self.assertIn(str(word), done.stderr, f"expected the message to name {word!r}; got:\n{done.stderr}")
        for word in CRASH_WORDS:
            self.assertNotIn(word, done.stderr)
        self.assertNotEqual("", done.stderr.strip(), "expected a message on standard error; got none")
        return done


def alive(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds, step=0.01):
    """Whether `condition()` came true within `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(step)
    return True


def left_of(processes, seconds=5):
    """Those of `processes` that still live after `seconds` at most: the kernel kills some of them a little later than their parent."""
    wait_until(lambda: not any(map(alive, processes)), seconds)
    return [process for process in processes if alive(process)]


def cpu_seconds(process):
    """Processor time that a process has used."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ProgramTest(VerbTest):
    """Each class has a folder with `seed` (configuration and tokeniser), `data.jsonl` and the trained `model`."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = pathlib.Path(cls.folder.name)
        cls.seed = cls.root / "seed"
        cls.seed.mkdir()
        (cls.seed / "config.json").write_text(json.dumps(CONFIG))
        (cls.seed / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
        chance = random.Random(7)
        words = ["gantry", "lifts", "a", "wheel", "over", "the", "yard", "while", "rain", "falls", "slowly", "\u00e9t\u00e9"]
        cls.data = cls.root / "data.jsonl"
        cls.data.write_text("".join(
            json.dumps({"text": " ".join(chance.choice(words) for _ in range(chance.randrange(20, 160))) + "."}) + "\n"
            for _ in range(80)))
        cls.text = cls.root / "text.txt"
        cls.text.write_text(" ".join(chance.choice(words) for _ in range(300)))
        made = run("train", cls.seed, "--from-scratch", *cls.training(steps=12, out=cls.root / "scratch"),
                   "--learning-rate", "3e-3", "--dtype", "fp32")
        assert made.returncode == 0, made.stderr
        cls.model = cls.root / "model"
        cls.model.mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            shutil.copy(cls.root / "scratch" / name, cls.model / name)

    @classmethod
    def training(cls, *, out, steps, **options):
        """Options of a short run; keywords override or add."""
        fixed = {"data": cls.data, "out": out, "steps": steps, "batch": 4, "sequence-length": 48, "seed": 3,
                 "validation-fraction": 0.1, "eval-batches": 2, "warmup-steps": 4}
        fixed.update({key.replace("_", "-"): value for key, value in options.items()})
        return [str(word) for key, value in fixed.items() for word in ("--" + key, value)]

    def fresh(self, name=None):
        return pathlib.Path(tempfile.mkdtemp(dir=self.root)) / (name or "run")

    def copy_model(self):
        target = self.fresh("model")
        shutil.copytree(self.model, target)
        return target
