"""`gantry train` as a process: killed, interrupted, resumed, and on a full disk."""
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import unittest

from program_support import PROGRAM, ProgramTest, losses, metrics, tensors_of, wait_until

KINDS = {"fp32": {"dtype": "fp32"}, "bf16": {"dtype": "bf16", "accumulation": 2}, "lora": {"dtype": "bf16", "lora_rank": 4}}


def steps_seen(out):
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b'"event":"step"') if file.exists() else 0


def checkpoints(out):
    return sorted(path.name for path in out.glob("checkpoint-*"))


class TrainingTest(ProgramTest):
    def stop_at(self, step, number, arguments, out, environment=None):
        """Starts a run and sends a signal once `step` steps are recorded."""
        process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, **(environment or {})})
        wait_until(lambda: steps_seen(out) >= step or process.poll() is not None, 120, step=0.0005)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def check_kill_and_resume(self, kind, threads=1, **more):
        # Threads that sleep while they wait: spinning ones crawl on a machine that is busy with something else.
        steps, environment = 60, {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        whole, broken = self.fresh(), self.fresh()
        options = {**KINDS[kind], "save_every": 6, "eval_every": 10, **more}
        data = dict(steps=steps, **options)
        self.succeed("train", self.model, *self.training(out=whole, **data), environment=environment)
        at = random.Random(kind).randrange(8, 22)
        arguments = ["train", str(self.model), *self.training(out=broken, **data)]
        code, errors = self.stop_at(at, signal.SIGKILL, arguments, broken, environment)
        self.assertEqual(-signal.SIGKILL, code, errors)
        self.assertFalse((broken / "model.safetensors").exists(), "expected the killed run to be unfinished")
        self.assertTrue(checkpoints(broken), "expected a checkpoint before the kill")
        with open(broken / "metrics.jsonl", "a") as file:
            file.write('{"event":"step","st')  # what a kill in the middle of a write leaves
        state = json.loads((broken / checkpoints(broken)[-1] / "trainer.json").read_text())
        self.assertEqual(threads, state["threads"])
        resumed = self.succeed(*arguments, "--resume", environment=environment)
        self.assertNotIn("rounding", resumed.stderr)
        self.assertEqual(losses(whole), losses(broken))
        self.assertEqual([(row["step"], row["loss"]) for row in metrics(whole, "eval") if row["step"] > 0],
                         [(row["step"], row["loss"]) for row in metrics(broken, "eval")
                          if row["step"] > 0 and row["step"] % 10 == 0])
        same = (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
        self.assertTrue(same, "expected the resumed run's weights byte for byte; got others")
        self.assertEqual(list(range(1, steps + 1)), [step for step, _ in losses(broken)])

    def test_killed_fp32_run_resumes_bit_exactly(self):
        self.check_kill_and_resume("fp32")

    def test_killed_bf16_run_with_accumulation_resumes_bit_exactly(self):
        self.check_kill_and_resume("bf16")

    def test_killed_lora_run_resumes_bit_exactly(self):
        self.check_kill_and_resume("lora")

    def test_killed_runs_on_two_threads_resume_bit_exactly(self):
        # Long enough sequences that operators split them.
        for kind in KINDS:
            with self.subTest(kind=kind):
                self.check_kill_and_resume(kind, threads=2, batch=2, sequence_length=200)

    def test_resuming_with_other_threads_warns(self):
        out = self.fresh()
        arguments = ["train", str(self.model), *self.training(out=out, steps=400, dtype="fp32")]
        code, errors = self.stop_at(3, signal.SIGINT, arguments, out)
        self.assertEqual(130, code, errors)
        code, errors = self.stop_at(steps_seen(out) + 2, signal.SIGINT, [*arguments, "--resume"], out,
                                    {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"})
        self.assertEqual(130, code, errors)
        self.assertIn("resuming with 2 threads a run started with 1", errors)

    def test_a_checkpoint_holds_the_weights_once(self):
        out = self.fresh()
        self.succeed("train", self.model, *self.training(out=out, steps=2, dtype="bf16"))
        state = tensors_of(out / "checkpoint-2" / "optimizer.safetensors")
        self.assertEqual({"first", "second", "remainder", "generator"}, set(state))
        weights = sum(len(body) for _, _, body in tensors_of(out / "checkpoint-2" / "model.safetensors").values())
        self.assertEqual([weights, 2 * weights, 2 * weights],
                         [len(state[name][2]) for name in ("remainder", "first", "second")])

    def test_interrupt_writes_a_checkpoint_and_says_how_to_go_on(self):
        out, whole = self.fresh(), self.fresh()
        data = dict(steps=400, dtype="fp32")
        arguments = ["train", str(self.model), *self.training(out=out, **data)]
        code, errors = self.stop_at(5, signal.SIGINT, arguments, out)
        self.assertEqual(130, code, errors)
        self.assertIn("--resume", errors)
        done = losses(out)[-1][0]
        self.assertLess(done, 400)
        self.assertEqual([f"checkpoint-{done}"], checkpoints(out))
        state = json.loads((out / f"checkpoint-{done}" / "trainer.json").read_text())
        self.assertEqual(done, state["step"])
        self.assertEqual("interrupted", metrics(out, "end")[-1]["reason"])
        self.succeed("eval", out / f"checkpoint-{done}", "--text", self.text, "--window", 64)

    def test_resume_refuses_changed_options_with_both_values(self):
        out = self.fresh()
        code, errors = self.stop_at(3, signal.SIGINT,
                                    ["train", str(self.model), *self.training(out=out, steps=400, dtype="fp32")], out)
        self.assertEqual(130, code, errors)
        for option, before, after in (("batch", 4, 3), ("seed", 3, 8), ("learning_rate", "0.0001", "0.002"),
                                      ("schedule", "cosine", "linear"), ("steps", 400, 500)):
            with self.subTest(option=option):
                changed = {"steps": 400, "dtype": "fp32", option: after}
                self.refuse("train", self.model, *self.training(out=out, **changed), "--resume",
                            names=[option, before, after, "trainer.json"])
        self.refuse("train", self.model, *self.training(out=out, steps=400, dtype="bf16"), "--resume",
                    names=["fp32", "bf16"])

    def test_a_folder_that_holds_a_run_is_not_overwritten(self):
        out = self.fresh()
        self.succeed("train", self.model, *self.training(out=out, steps=2, dtype="fp32"))
        before = (out / "model.safetensors").read_bytes()
        self.refuse("train", self.model, *self.training(out=out, steps=3, dtype="fp32"), names=[out, "--resume"])
        self.assertEqual(before, (out / "model.safetensors").read_bytes())
        self.succeed("train", self.model, *self.training(out=out, steps=2, dtype="fp32"), "--resume")
        self.assertEqual(before, (out / "model.safetensors").read_bytes(), "a finished run has nothing to go on with")

    def test_rotation_keeps_the_newest_checkpoints(self):
        out = self.fresh()
        self.succeed("train", self.model, *self.training(out=out, steps=9, save_every=2, keep_checkpoints=3))
        self.assertEqual(["checkpoint-6", "checkpoint-8", "checkpoint-9"], checkpoints(out))
        self.assertEqual([], [p.name for p in out.iterdir() if p.name.startswith(".checkpoint")])

    def test_a_full_disk_leaves_the_older_checkpoint_usable(self):
        out = self.fresh()
        arguments = ["train", str(self.model), *self.training(out=out, steps=400, dtype="fp32", save_every=1)]
        code, errors = self.stop_at(3, signal.SIGINT, arguments, out)
        self.assertEqual(130, code, errors)
        shutil.rmtree(out / "tokens")  # tokenised again below, as the limit allows
        kept = checkpoints(out)
        size = (out / kept[-1] / "optimizer.safetensors").stat().st_size

        def small_disk():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 4, size * 3 // 4))  # enough for the model

        failed = self.refuse(*arguments, "--resume", code=1, names=["optimizer.safetensors"], preexec_fn=small_disk)
        self.assertRegex(failed.stderr, "(?i)too large|no space|full|limit")
        self.assertEqual(kept, checkpoints(out))
        self.assertEqual([], [p.name for p in out.iterdir() if p.name.endswith(".tmp")])
        self.succeed("eval", out / kept[-1], "--text", self.text, "--window", 64)
        code, errors = self.stop_at(losses(out)[-1][0] + 3, signal.SIGINT, [*arguments, "--resume"], out)
        self.assertEqual(130, code, errors)
        self.assertGreater(int(checkpoints(out)[-1].split("-")[1]), 0)

    def test_an_unwritable_folder_is_named(self):
        failed = self.refuse("train", self.model, *self.training(out="/dev/null/run", steps=2), code=1,
                             names=["/dev/null/run"])
        self.assertEqual(1, len(failed.stderr.strip().splitlines()), failed.stderr)

    def test_divergence_is_not_applied_and_keeps_the_checkpoint(self):
        out = self.fresh()
        # Decay alone multiplies the weights by -1e18 a step: those of the second overflow whatever they were.
        failed = self.refuse("train", self.seed, "--from-scratch", code=1, names=["diverged", "--learning-rate"],
                             *self.training(out=out, steps=9, dtype="fp32", learning_rate=0.99, clip_norm=0,
                                            warmup_steps=0, schedule="constant", eps="1e-30", beta1=0, beta2=0,
                                            weight_decay="1e18", save_every=1))
        self.assertIn("The newest checkpoint is", failed.stderr)
        self.succeed("info", out / checkpoints(out)[0])

    def test_training_from_scratch_lowers_the_loss_and_reports_it(self):
        out = self.fresh()
        done = self.succeed("train", self.seed, "--from-scratch", "--json",
                            *self.training(out=out, steps=40, learning_rate="3e-3"))
        result = json.loads(done.stdout)
        self.assertEqual(40, result["steps"])
        self.assertLess(result["final_loss"], result["first_loss"] - 1.0)
        self.assertLess(result["validation_after"], result["validation_before"] / 2)
        self.assertEqual(str(out), result["out"])

    def test_lora_writes_an_adapter_and_a_merged_model(self):
        out = self.fresh()
        self.succeed("train", self.model, *self.training(out=out, steps=3, lora_rank=2))
        adapter = json.loads((out / "adapter" / "adapter_config.json").read_text())
        self.assertEqual(("LORA", 2), (adapter["peft_type"], adapter["r"]))
        self.succeed("eval", out, "--text", self.text, "--window", 64)


if __name__ == "__main__":
    unittest.main()
