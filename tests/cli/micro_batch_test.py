"""`gantry train --batch auto`: the micro-batch that is fastest within a memory budget, recorded and taken again."""
import json
import os
import signal
import subprocess
import time
import unittest

from program_support import CONFIG, PROGRAM, ProgramTest, losses, metrics, tokenizer_json, wait_until

BUDGET = "8GiB"  # more than any size of these models takes


class MicroBatchTest(ProgramTest):
    def options(self, out, steps=4, **more):
        """Of a run that looks for the micro-batch of 6 sequences a step."""
        fixed = {"dtype": "fp32", "batch": "auto", "global_batch": 6, "memory_budget": BUDGET, **more}
        return self.training(out=out, steps=steps, **{key: value for key, value in fixed.items() if value is not None})

    def result(self, *arguments):
        done = self.succeed("train", self.model, *arguments, "--json")
        return json.loads(done.stdout), done.stderr

    def plain(self, batch, steps=4, **more):
        """Losses of a run with this micro-batch."""
        out = self.fresh()
        self.succeed("train", self.model, *self.options(out, steps, batch=batch, memory_budget=None, **more))
        return losses(out)

    def assert_close(self, expected, got):
        for (step, want), (_, loss) in zip(expected, got, strict=True):
            self.assertAlmostEqual(want, loss, delta=1e-4 * want, msg=f"step {step}")

    def test_the_fastest_size_that_fits_is_chosen_and_trains_the_same(self):
        out = self.fresh()
        result, errors = self.result(*self.options(out, memory_mode="recompute"))
        trials = result["micro_batches"]
        self.assertEqual([1, 2, 3, 6], [trial["micro_batch"] for trial in trials])
        self.assertEqual([6, 3, 2, 1], [trial["accumulation"] for trial in trials])
        self.assertTrue(all(trial["fits"] and trial["peak_bytes"] > 1e6 for trial in trials), trials)
        modes = {"attention": "recompute", "mlp": "recompute", "norm": "recompute", "layers": 2}
        self.assertTrue(all(trial["modes"] == [modes] for trial in trials), trials)
        chosen = [trial for trial in trials if trial["chosen"]]
        self.assertEqual([max(trials, key=lambda trial: trial["samples_per_s"])], chosen)
        size = chosen[0]["micro_batch"]
        self.assertEqual((size, chosen[0]["accumulation"]), (result["micro_batch"], result["accumulation"]))

        table = [line for line in errors.splitlines() if "2 x recompute" in line]
        self.assertEqual([line.split()[0] for line in table if "chosen" in line], [str(size)], errors)
        start = metrics(out, "start")[0]
        state = json.loads((out / "checkpoint-4" / "trainer.json").read_text())
        for record in (start, state):
            self.assertEqual((size, trials), (record["micro_batch"], record["micro_batches"]))
            self.assertEqual(("auto", 6), (record["options"]["batch"], record["options"]["global_batch"]))

        self.assertEqual(self.plain(size, memory_mode="recompute"), losses(out), "the probes left traces")
        self.assert_close(self.plain(6, memory_mode="recompute"), losses(out))
        self.assert_close(self.plain(4, memory_mode="recompute"), losses(out))  # 3 and 3

    def test_modes_are_chosen_for_every_size(self):
        out = self.fresh()
        result, _ = self.result(*self.options(out, global_batch=None, dtype="bf16"))
        self.assertEqual([1, 2, 4], [trial["micro_batch"] for trial in result["micro_batches"]], "4 sequences as without auto")
        for trial in result["micro_batches"]:
            self.assertEqual(2, sum(mode["layers"] for mode in trial["modes"]), trial)
        self.assertEqual(2, len(metrics(out, "start")[0]["memory_modes"]))

    def test_a_budget_leaves_sizes_out(self):
        wide = {"memory_mode": "recompute", "sequence_length": 250, "global_batch": 48, "steps": 1}
        peaks = {trial["micro_batch"]: trial["peak_bytes"]
                 for trial in self.result(*self.options(self.fresh(), **wide))[0]["micro_batches"]}
        budget = (peaks[1] + peaks[48]) // 2
        out = self.fresh()
        trials = self.result(*self.options(out, **{**wide, "memory_budget": budget}))[0]["micro_batches"]
        fitting = [trial for trial in trials if trial["fits"]]
        self.assertTrue(all(trial["peak_bytes"] <= budget for trial in fitting), trials)
        self.assertFalse(trials[-1]["fits"], trials)
        self.assertIsNone(trials[-1]["samples_per_s"])
        self.assertIn([trial for trial in trials if trial["chosen"]][0], fitting)

    def test_a_resumed_run_takes_the_recorded_micro_batch(self):
        out = self.fresh()
        arguments = ["train", str(self.model), *self.options(out, 400, memory_mode="recompute")]
        with subprocess.Popen([PROGRAM, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            file = out / "metrics.jsonl"
            wait_until(lambda: file.exists() and file.read_bytes().count(b'"event":"step"') >= 3, 120, step=0.001)
            process.send_signal(signal.SIGINT)
            self.assertEqual(130, process.wait(timeout=120))
        checkpoint = next(out.glob("checkpoint-*")) / "trainer.json"
        state = json.loads(checkpoint.read_text())
        measured = metrics(out, "start")[0]["micro_batch"]
        self.assertEqual(measured, state["micro_batch"])
        # Another size than the one that was measured: a resumed run that measured again would take that.
        other = 2 if measured != 2 else 3
        checkpoint.write_text(json.dumps({**state, "micro_batch": other}))
        limited = self.fresh()
        os.rename(out, limited)
        arguments = ["train", str(self.model), *self.options(limited, 400, memory_mode="recompute"), "--resume"]
        with subprocess.Popen([PROGRAM, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            file = limited / "metrics.jsonl"
            wait_until(lambda: b'"event":"resume"' in file.read_bytes(), 120, step=0.001)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        self.assertEqual(130, process.returncode, errors)
        self.assertNotIn("looking for the micro-batch", errors)
        resumed = metrics(limited, "resume")[0]
        self.assertEqual((other, -(-6 // other)), (resumed["micro_batch"], resumed["accumulation"]))
        self.assertEqual(len(state["micro_batches"]), len(resumed["micro_batches"]))
        newest = max(limited.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        self.assertEqual(other, json.loads((newest / "trainer.json").read_text())["micro_batch"])
        self.refuse("train", self.model, *self.options(limited, 400, memory_mode="recompute", memory_budget=None, batch=3), "--resume",
                    names=["batch", '"auto"', "3"])

    def test_resuming_equals_the_uninterrupted_run_bit_for_bit(self):
        out = self.fresh()
        self.succeed("train", self.model, *self.options(out, 8, memory_mode="recompute", save_every=3, keep_checkpoints=9))
        size = metrics(out, "start")[0]["micro_batch"]
        for step in (6, 8):  # back to the checkpoint of step 3
            for path in (out / f"checkpoint-{step}").iterdir():
                path.unlink()
            (out / f"checkpoint-{step}").rmdir()
        self.succeed("train", self.model, "--resume",
                     *self.options(out, 8, memory_mode="recompute", save_every=3, keep_checkpoints=9))
        self.assertEqual(3, metrics(out, "resume")[0]["step"])
        self.assertEqual(self.plain(size, 8, memory_mode="recompute"), losses(out))

    def test_masked_positions_do_not_depend_on_the_micro_batch(self):
        seed = self.fresh("bert")
        seed.mkdir()
        tokenizer = tokenizer_json()
        mask = {**tokenizer["added_tokens"][0], "id": 257, "content": "[MASK]"}
        tokenizer["added_tokens"].append(mask)
        tokenizer["model"]["vocab"]["[MASK]"] = 257
        (seed / "tokenizer.json").write_text(json.dumps(tokenizer))
        (seed / "config.json").write_text(json.dumps({
            **{name: CONFIG[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                               "num_attention_heads", "max_position_embeddings")},
            "architectures": ["BertForMaskedLM"], "model_type": "bert", "type_vocab_size": 2, "layer_norm_eps": 1e-12,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
        runs = []
        for options in ({"batch": 6}, {"batch": 2, "accumulation": 3}, {"batch": 5, "global_batch": 6}):
            out = self.fresh()
            self.succeed("train", seed, "--from-scratch", *self.training(out=out, steps=4, dtype="fp32", **options))
            runs.append(losses(out))
        self.assert_close(runs[0], runs[1])
        self.assert_close(runs[0], runs[2])

    def test_options_that_exclude_each_other_are_refused(self):
        for change, words in (({"memory_budget": None}, ["--batch auto", "--memory-budget"]),
                              ({"accumulation": 2}, ["--batch auto", "--accumulation 2", "--global-batch"]),
                              ({"batch": 2, "memory_mode": "rerun"}, ["--memory-budget", "--memory-mode rerun", "--batch auto"]),
                              ({"batch": 8, "memory_budget": None}, ["--batch is 8", "6", "--global-batch"]),
                              ({"batch": 2, "accumulation": 4}, ["--batch 2", "--accumulation 4", "--global-batch is 6"]),
                              ({"batch": "fast"}, ["--batch is 'fast'", "auto"]), ({"batch": 0}, ["--batch is 0"]),
                              ({"batch": -3}, ["--batch is -3"]), ({"global_batch": 0}, ["--global-batch is 0"]),
                              ({"global_batch": -6}, ["--global-batch is -6"]), ({"global_batch": 10**9}, ["--global-batch"]),
                              ({"memory_budget": 0}, ["--memory-budget is '0'"]),
                              ({"memory_budget": "-1GiB"}, ["--memory-budget is '-1GiB'"]),
                              ({"memory_budget": "much"}, ["--memory-budget is 'much'"]),
                              ({"memory_mode": "less"}, ["less"])):
            with self.subTest(change=change):
                out = self.fresh()
                self.refuse("train", self.model, *self.options(out, **change), names=words)
                self.assertFalse(out.exists(), "expected a refusal before anything is written")

    def test_a_budget_that_nothing_fits_is_infeasible(self):
        for change in ({}, {"memory_mode": "rerun"}, {"batch": 6}):
            with self.subTest(change=change):
                out = self.fresh()
                self.refuse("train", self.model, *self.options(out, memory_budget="40MiB", **change), code=3,
                            names=["no choice of memory modes fits", "the budget", "40.0 MiB", "allow"])
                self.assertFalse((out / "metrics.jsonl").exists())

    def test_auto_may_stand_in_a_file_of_options(self):
        config, out = self.fresh("options.json"), self.fresh()
        config.write_text('{"batch": "auto", "memory_budget": "8GiB", "global_batch": 2}')
        words = self.training(out=out, steps=1)
        at = words.index("--batch")
        self.succeed("train", self.model, "--config", config, *words[:at], *words[at + 2:])
        self.assertEqual("auto", metrics(out, "start")[0]["options"]["batch"])
        config.write_text('{"batch": "fast"}')
        self.refuse("train", self.model, "--config", config, *words[:at], *words[at + 2:], names=["options.json", "batch"])

    def test_interrupted_search_ends_soon_and_leaves_no_run(self):
        out = self.fresh()
        arguments = self.options(out, global_batch=200, sequence_length=250)
        with subprocess.Popen([PROGRAM, "train", str(self.model), *arguments], stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if "looking for the micro-batch" in line:
                    break
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            errors = process.stderr.read()
            self.assertEqual(130, process.wait(timeout=60), errors)
        self.assertLess(time.monotonic() - sent, 5)
        self.assertIn("interrupted while measuring", errors)
        self.assertFalse((out / "metrics.jsonl").exists())
        self.succeed("train", self.model, *self.options(out, steps=1))


if __name__ == "__main__":
    unittest.main()
