"""Files and options that are wrong: exit code 2, a message that names the fault, never a crash."""
import json
import random
import struct
import unittest

from program_support import CONFIG, CRASH_WORDS, ProgramTest, read_safetensors, run, write_safetensors


class BadInputTest(ProgramTest):
    def refuse_model(self, model, *names, code=2):
        self.refuse("eval", model, "--text", self.text, "--window", 64, names=names, code=code)

    def with_header(self, change):
        """A copy of the model whose safetensors header went through `change`."""
        model = self.copy_model()
        header, body = read_safetensors(model / "model.safetensors")
        body = change(header, body) or body
        write_safetensors(model / "model.safetensors", header, body)
        return model

    def test_truncated_safetensors(self):
        model = self.copy_model()
        data = (model / "model.safetensors").read_bytes()
        for size in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
            with self.subTest(size=size):
                (model / "model.safetensors").write_bytes(data[:size])
                self.refuse_model(model, "model.safetensors")

    def test_safetensors_header_lengths_that_lie(self):
        model = self.copy_model()
        data = (model / "model.safetensors").read_bytes()
        for length in (2**63, 2**64 - 1, 2**40, len(data)):
            with self.subTest(length=length):
                (model / "model.safetensors").write_bytes(struct.pack("<Q", length) + data[8:])
                self.refuse_model(model, "model.safetensors")

    def test_flipped_bits_are_refused_or_harmless(self):
        chance = random.Random(11)
        model = self.copy_model()
        data = (model / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        for _ in range(12):
            place = chance.randrange(8 + size)
            flipped = bytearray(data)
            flipped[place] ^= 1 << chance.randrange(8)
            (model / "model.safetensors").write_bytes(flipped)
            done = run("eval", model, "--text", self.text, "--window", 64, "--max-windows", 1)
            self.assertIn(done.returncode, (0, 2), f"byte {place}: {done.stderr}")
            self.assertFalse(any(word in done.stderr for word in CRASH_WORDS), done.stderr)

    def test_offsets_outside_the_file(self):
        for begin, end in ((0, 10**15), (10**15, 10**15 + 4), (-4, 0), (8, 4)):
            with self.subTest(offsets=(begin, end)):
                def change(header, _, begin=begin, end=end):
                    header["model.norm.weight"]["data_offsets"] = [begin, end]
                self.refuse_model(self.with_header(change), "model.safetensors")

    def test_tensors_that_do_not_fit_the_configuration(self):
        def missing(header, _):
            del header["model.norm.weight"]
            header["model.norm.other"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        done = run("eval", self.with_header(missing), "--text", self.text)
        self.assertEqual(2, done.returncode, done.stderr)

        def renamed(header, _):
            header["model.norm.weigth"] = header.pop("model.norm.weight")
        self.refuse_model(self.with_header(renamed), "model.norm.weight", "missing")

        def extra(header, body):
            header["surprise"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
            return body + bytes(4)
        self.refuse_model(self.with_header(extra), "surprise")

        def reshaped(header, _):
            header["model.layers.0.mlp.up_proj.weight"]["shape"] = [64, 128]
        self.refuse_model(self.with_header(reshaped), "up_proj", "[64, 128]", "[128, 64]")

        def integers(header, _):
            header["model.norm.weight"]["dtype"] = "I32"
        self.refuse_model(self.with_header(integers), "model.norm.weight", "I32")

    def test_weights_that_are_not_numbers(self):
        for value in (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"):
            def change(header, body, value=value):
                begin = header["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0]
                return body[:begin + 40] + value + body[begin + 44:]
            self.refuse_model(self.with_header(change), "model.layers.1.mlp.down_proj.weight", "NaN")

    def test_gguf_that_is_cut_or_lies(self):
        file = self.fresh("model.gguf")
        magic = b"GGUF" + struct.pack("<I", 3)
        cases = {"cut magic": b"GG", "cut header": magic, "not GGUF": b"PK\x03\x04" + bytes(64),
                 "a thousand million tensors": magic + struct.pack("<QQ", 10**9, 0) + bytes(64),
                 "a thousand million fields": magic + struct.pack("<QQ", 0, 10**9) + bytes(64),
                 "an endless name": magic + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62) + b"x",
                 "version 99": b"GGUF" + struct.pack("<IQQ", 99, 0, 0)}
        for title, data in cases.items():
            with self.subTest(title):
                file.write_bytes(data)
                self.refuse_model(file, "model.gguf")

    def test_configurations_that_make_no_model(self):
        cases = [({"model_type": "rnn"}, "rnn"), ({"hidden_size": None}, "hidden_size"), ({"hidden_size": -64}, "hidden_size"),
                 ({"hidden_size": 10**15}, "hidden_size"), ({"hidden_size": "64"}, "hidden_size"),
                 ({"hidden_size": 66}, ""), ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
                 ({"num_attention_heads": 0}, "num_attention_heads"), ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
                 ({"vocab_size": 10**18}, "vocab_size"), ({"rms_norm_eps": "NaN"}, "rms_norm_eps"),
                 ({"rope_theta": 0}, "rope_theta"), ({"hidden_act": "step"}, "step"),
                 ({"max_position_embeddings": 0}, "max_position_embeddings")]
        for change, name in cases:
            with self.subTest(change=change):
                model = self.copy_model()
                (model / "config.json").write_text(json.dumps({k: v for k, v in (CONFIG | change).items() if v is not None}))
                self.refuse_model(model, name)
        for text in ("", "[]", "{", '{"model_type": "llama", "rms_norm_eps": NaN}', "\x00\x01", "[" * 100000):
            with self.subTest(text=text[:40]):
                model = self.copy_model()
                (model / "config.json").write_text(text)
                self.refuse_model(model, "config.json")

    def test_configuration_larger_than_its_weights(self):
        model = self.copy_model()
        (model / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 8192, "intermediate_size": 1 << 16,
                                                                "num_hidden_layers": 4000}))
        self.refuse_model(model, "shape")

    def test_tokenisers_that_are_damaged(self):
        good = (self.seed / "tokenizer.json").read_text()
        for text in ("", "{}", "[]", good[:1000], '{"model": {"type": "BPE"}}', good.replace('"BPE"', '"XYZ"'),
                     good.replace('"merges": []', '"merges": ["a"]')):
            with self.subTest(text=text[:40]):
                model = self.copy_model()
                (model / "tokenizer.json").write_text(text)
                self.refuse("tokenize", model, stdin='"a"\n', names=["tokenizer.json"])

    def test_missing_files(self):
        self.refuse("info", self.root / "nowhere", names=["nowhere"])
        self.refuse("eval", self.model, "--text", self.root / "nothing.txt", names=["nothing.txt"])
        self.refuse("train", self.model, *self.training(out=self.fresh(), steps=1, data=self.root / "gone"), names=["gone"])
        self.refuse("report", self.root / "no-run", "--out", self.fresh("page.html"), names=["no-run"])
        model = self.copy_model()
        (model / "model.safetensors").unlink()
        self.refuse_model(model, "safetensors")

    def test_texts_that_cannot_be_measured_or_trained_on(self):
        empty, short, binary = (self.fresh(name) for name in ("empty.txt", "short.txt", "binary.txt"))
        empty.write_text("")
        short.write_text("a")
        binary.write_bytes(random.Random(2).randbytes(4000))
        self.refuse("eval", self.model, "--text", empty, names=["empty.txt", "at least 2"])
        self.refuse("eval", self.model, "--text", short, names=["short.txt", "at least 2"])
        self.refuse("eval", self.model, "--text", binary, "--window", 64, names=["binary.txt"])
        for file, name in ((empty, "empty.txt"), (short, "tokens in all"), (binary, "binary.txt")):
            self.refuse("train", self.model, *self.training(out=self.fresh(), steps=1, data=file), names=[name])
        bad = self.fresh("bad.jsonl")
        bad.write_text('{"text": "fine"}\n{"txt": "no"}\n')
        self.refuse("train", self.model, *self.training(out=self.fresh(), steps=1, data=bad), names=["bad.jsonl", "text"])

    def test_lines_that_tokenize_cannot_read(self):
        for line, arguments, words in (("{", (), ["line 2"]), ("5", (), ["line 2", "string"]),
                                       ("5", ("--decode",), ["line 2", "array"]), ("[999]", ("--decode",), ["line 2", "999"]),
                                       ("[-1]", ("--decode",), ["line 2", "-1"]), ("[1.5]", ("--decode",), ["line 2", "1.5"]),
                                       ('["a"]', ("--decode",), ["line 2"]),
                                       ("[18446744073709551615]", ("--decode",), ["line 2"]), ('"\\ud800"', (), ["line 2"])):
            with self.subTest(line=line):
                first = "[1]\n" if arguments else '"a"\n'
                self.refuse("tokenize", self.model, *arguments, stdin=first + line + "\n", names=words)

    def test_wrong_words_on_the_command_line(self):
        self.refuse(names=["subcommand"])
        self.refuse("fly", names=["fly"])
        self.refuse("generate", self.model, "--promt", "x", names=["--promt"])
        self.refuse("generate", self.model, "--max-tokens", "many", names=["--max-tokens", "many"])
        self.refuse("generate", self.model, "--seed", "-1", names=["--seed"])
        self.refuse("generate", names=["MODEL"])
        self.refuse("convert", self.model, self.fresh(), "--dtype", "int3", names=["int3"])
        self.refuse("convert", self.model, self.model, names=["itself"])
        self.refuse("convert", self.model, self.fresh(), "--max-shard-mib", 0, names=["--max-shard-mib"])

    def test_generation_options_out_of_range(self):
        for option, value, name in (("--max-tokens", -1, "max_tokens"), ("--max-tokens", 0, "max_tokens"),
                                    ("--temperature", -1, "temperature"), ("--temperature", "nan", "temperature"),
                                    ("--temperature", "inf", "temperature"), ("--top-p", 0, "top_p"),
                                    ("--top-p", 1.5, "top_p"), ("--top-k", -2, "top_k"), ("--min-p", 1, "min_p"),
                                    ("--repetition-penalty", 0, "repetition_penalty"),
                                    ("--repetition-penalty", "inf", "repetition_penalty")):
            with self.subTest(option=option, value=value):
                self.refuse("generate", self.model, "--prompt", "a", option, value, names=[name, value])
        self.refuse("generate", self.model, "--prompt", "", names=["--prompt"])
        self.refuse("generate", self.model, "--prompt", "a", "--chat", names=["chat template"])

    def test_training_options_out_of_range(self):
        for option, value, name in (("steps", 0, "--steps"), ("batch", 0, "--batch"), ("batch", 10**15, "batch"),
                                    ("sequence_length", 1, "--sequence-length"), ("sequence_length", 10**6, "positions"),
                                    ("learning_rate", "nan", "--learning-rate"), ("dtype", "fp8", "fp8"),
                                    ("schedule", "sine", "sine"), ("eps", "inf", "--eps"), ("weight_decay", "inf", "--weight-decay"),
                                    ("validation_fraction", 1, "--validation-fraction"), ("lora_rank", 10**9, "LoRA rank"),
                                    ("lora_rank", -1, "--lora-rank"), ("accumulation", 0, "--accumulation")):
            with self.subTest(option=option, value=value):
                self.refuse("train", self.model, *self.training(out=self.fresh(), **({"steps": 1} | {option: value})),
                            names=[name])

    def test_files_of_options_that_are_wrong(self):
        for text, words in (('{"max_tokns": 3}', ["max_tokns"]), ('{"max_tokens": "three"}', ["max_tokens"]),
                            ('{"max_tokens": 1.5}', ["max_tokens"]), ("[1]", ["object"]), ("{", []), ("", []),
                            ('{"seed": -1}', ["seed"]), ('{"stop": "x"}', ["stop"])):
            with self.subTest(text=text):
                config = self.fresh("options.json")
                config.write_text(text)
                self.refuse("generate", self.model, "--prompt", "a", "--config", config, names=["options.json", *words])
        self.refuse("generate", self.model, "--config", self.root / "missing.json", names=["missing.json"])


if __name__ == "__main__":
    unittest.main()
