"""The verbs of the program on a tiny model: options, output, round trips."""
import json
import re
import unittest

from program_support import ProgramTest, metrics, tensors_of

VERBS = ("info", "convert", "tokenize", "eval", "generate", "train", "report", "bench")


class ProgramVerbsTest(ProgramTest):
    def generate(self, *arguments):
        done = self.succeed("generate", self.model, "--json", "--ignore-eos", *arguments)
        return json.loads(done.stdout)

    def perplexity(self, model, *arguments):
        return json.loads(self.succeed("eval", model, "--text", self.text, "--window", 64, "--json", *arguments).stdout)

    def test_help_of_every_verb_lists_its_options_with_defaults(self):
        program = self.succeed("--help").stdout
        for verb in VERBS:
            with self.subTest(verb=verb):
                self.assertIn("\n  " + verb + " ", program)
                text = self.succeed(verb, "--help").stdout
                # "NAME INT=4  help", or help that names what stands for an absent value.
                numbers = re.findall(r"--[a-z0-9-]+ (?:INT|UINT|FLOAT)[^\n]*(?:\n {30}[^\n]*)?", text)
                silent = [row for row in numbers if "=" not in row.split()[1] and "default: " not in row]
                self.assertEqual(silent, [])
        train = self.succeed("train", "--help").stdout
        for row in ("--steps INT=0", "--batch INT|auto=4", "--schedule TEXT=cosine", "--learning-rate FLOAT=0.0001",
                    "--validation-fraction FLOAT=0.02", "--mask-documents", "--config TEXT"):
            self.assertIn(row, train)
        self.assertIn("--max-tokens INT=128", self.succeed("generate", "--help").stdout)

    def test_config_file_sets_options_and_the_command_line_wins(self):
        config = self.fresh("options.json")
        config.write_text(json.dumps({"max_tokens": 5, "prompt": "gantry", "ignore_eos": True, "json": True}))
        for spelled in (["--config", config], [f"--config={config}"]):
            with self.subTest(spelled=spelled):
                result = json.loads(self.succeed("generate", self.model, *spelled).stdout)
                self.assertEqual((5, 6), (len(result["ids"]), len(result["prompt_ids"])))
        result = json.loads(self.succeed("generate", self.model, "--config", config, "--max-tokens", 3).stdout)
        self.assertEqual(3, len(result["ids"]))

    def test_config_file_sets_lists_and_switches_of_a_run(self):
        config, out = self.fresh("run.json"), self.fresh()
        config.write_text(json.dumps({"data": [str(self.data)], "steps": 2, "batch": 2, "sequence_length": 32,
                                      "mask_documents": False, "learning_rate": 0.001, "out": str(out)}))
        self.succeed("train", self.model, "--config", config, "--batch", 3)
        options = metrics(out, "start")[0]["options"]
        self.assertEqual([3, 32, False, 0.001], [options[key] for key in
                                                 ("batch", "sequence_length", "mask_documents", "learning_rate")])

    def test_greedy_generation_is_deterministic_and_stops_at_max_tokens(self):
        first, second = (self.generate("--prompt", "gantry lifts", "--max-tokens", 9) for _ in range(2))
        self.assertEqual(first["ids"], second["ids"])
        self.assertEqual((9, "length"), (len(first["ids"]), first["finish_reason"]))
        plain = self.succeed("generate", self.model, "--prompt", "gantry lifts", "--max-tokens", 9, "--ignore-eos")
        self.assertEqual(first["text"] + "\n", plain.stdout)

    def test_positions_bound_the_generation(self):
        result = self.generate("--prompt", "ab" * 120, "--max-tokens", 1000000)
        self.assertEqual(256, len(result["prompt_ids"]) + len(result["ids"]))
        self.refuse("generate", self.model, "--prompt", "ab" * 200, names=["400", "256"])

    def test_seeds_reproduce_sampling(self):
        def ids(seed):
            return self.generate("--prompt", "the", "--max-tokens", 24, "--temperature", 2, "--seed", seed)["ids"]
        one = ids(1)
        self.assertEqual(one, ids(1))
        self.assertNotEqual(one, ids(2))

    def test_rows_of_a_padded_vocabulary_are_never_chosen(self):
        result = self.generate("--prompt", "the", "--max-tokens", 60, "--temperature", 100, "--seed", 5)
        self.assertLessEqual(max(result["ids"]), 256)
        self.assertEqual(60, len(result["ids"]))

    def test_almost_zero_temperature_agrees_with_greedy(self):
        greedy = self.generate("--prompt", "the", "--max-tokens", 8)["ids"]
        self.assertEqual(greedy, self.generate("--prompt", "the", "--max-tokens", 8, "--temperature", "1e-60")["ids"])

    def test_stop_text_ends_the_answer_before_it(self):
        whole = self.generate("--prompt", "the yard", "--max-tokens", 40)["text"]
        stop = whole[6:8]
        result = self.generate("--prompt", "the yard", "--max-tokens", 40, "--stop", stop)
        self.assertEqual((whole[:whole.index(stop)], "stop"), (result["text"], result["finish_reason"]))

    def test_tokenize_round_trips_through_decode(self):
        texts = ["gantry lifts", "", "\u00e9t\u00e9 \u6c34 \U0001f600", "tab\tand\nline", "null\u0000byte", "<|endoftext|>x"]
        ids = self.succeed("tokenize", self.model, stdin="".join(json.dumps(text) + "\n" for text in texts)).stdout
        rows = [json.loads(line) for line in ids.splitlines()]
        self.assertEqual([256, 120], rows[-1])
        self.assertEqual(list("tab\tand\nline".encode()), rows[3])
        back = self.succeed("tokenize", self.model, "--decode", stdin=ids).stdout
        self.assertEqual(texts, [json.loads(line) for line in back.splitlines()])
        plain = self.succeed("tokenize", self.model, "--plain", stdin='"<|endoftext|>"\n').stdout
        self.assertEqual(list(b"<|endoftext|>"), json.loads(plain))

    def test_decode_of_part_of_a_character_is_valid_json(self):
        back = self.succeed("tokenize", self.model, "--decode", stdin="[195]\n[169]\n[230,176]\n").stdout
        self.assertEqual(3, len([json.loads(line) for line in back.splitlines()]))

    def test_converting_there_and_back_keeps_every_bit(self):
        narrow, wide, again = (self.fresh() for _ in range(3))
        self.succeed("convert", self.model, narrow, "--dtype", "bf16")
        self.succeed("convert", narrow, wide, "--dtype", "fp32")
        self.succeed("convert", wide, again, "--dtype", "bf16")
        tensors = tensors_of(narrow / "model.safetensors")
        self.assertEqual({"BF16"}, {item[0] for item in tensors.values()})
        self.assertTrue(tensors == tensors_of(again / "model.safetensors"), "expected equal tensors; got others")
        self.assertEqual(self.perplexity(narrow)["perplexity"], self.perplexity(again)["perplexity"])
        self.assertEqual(self.perplexity(narrow, "--dtype", "fp32")["perplexity"], self.perplexity(wide)["perplexity"])

    def test_shards_load_again_with_the_same_perplexity(self):
        # 1 MiB a file; the model in fp32 has 0.6 MB, so a wider one is trained first.
        config = json.loads((self.seed / "config.json").read_text()) | {"hidden_size": 192, "intermediate_size": 384}
        seed, wide, out = self.fresh("seed"), self.fresh(), self.fresh()
        seed.mkdir()
        (seed / "config.json").write_text(json.dumps(config))
        (seed / "tokenizer.json").write_text((self.seed / "tokenizer.json").read_text())
        self.succeed("train", seed, "--from-scratch", *self.training(out=wide, steps=1, dtype="fp32"))
        self.succeed("convert", wide, out, "--dtype", "fp32", "--max-shard-mib", 1)
        shards = sorted(out.glob("model-*.safetensors"))
        self.assertGreater(len(shards), 1)
        self.assertTrue(all(shard.stat().st_size <= 1.1 * 2**20 for shard in shards), shards)
        weight_map = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
        self.assertEqual({shard.name for shard in shards}, set(weight_map.values()))
        self.assertEqual(self.perplexity(wide)["perplexity"], self.perplexity(out)["perplexity"])

    def test_eval_batches_and_windows_agree(self):
        one, four = self.perplexity(self.model), self.perplexity(self.model, "--batch", 4)
        self.assertEqual(one["tokens"], four["tokens"])
        self.assertAlmostEqual(one["perplexity"], four["perplexity"], delta=1e-4 * one["perplexity"])
        self.assertEqual(2, self.perplexity(self.model, "--max-windows", 2)["windows"])

    def test_info_describes_the_model_in_text_and_json(self):
        described = json.loads(self.succeed("info", self.model, "--json").stdout)
        elements = sum(len(item[2]) // 4 for item in tensors_of(self.model / "model.safetensors").values())
        self.assertIn(elements, [value for value in described.values() if isinstance(value, int)])
        self.assertEqual(14 * elements, described["memory"]["bf16"]["training_bytes"])
        self.assertEqual(16 * elements, described["memory"]["fp32"]["training_bytes"])
        for memory in described["memory"].values():
            self.assertEqual(memory["training_bytes"], sum(memory["training_bytes_by_state"].values()))
        text = self.succeed("info", self.model, "--tensors").stdout
        self.assertIn("model.layers.1.mlp.down_proj.weight", text)
        self.assertIn("[64, 128]", text)

    def test_report_draws_the_records_of_a_run(self):
        run_folder, page = self.fresh(), self.fresh("report.html")
        self.succeed("train", self.model, *self.training(out=run_folder, steps=5))
        done = self.succeed("report", run_folder, "--out", page)
        self.assertEqual(str(page), done.stdout.strip())
        html = page.read_text()
        self.assertIn("<svg", html)
        self.assertNotIn("http://", html.replace("http://www.w3.org", ""))

    def test_version_is_printed(self):
        self.assertRegex(self.succeed("--version").stdout, r"^gantry \d+\.\d+")


if __name__ == "__main__":
    unittest.main()
