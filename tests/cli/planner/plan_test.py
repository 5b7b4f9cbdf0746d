"""gantry plan: what it prints, writes and answers."""
import json
import re
import signal
import subprocess
import time
import unittest

try:
    import tomllib
except ImportError:  # before Python 3.11
    tomllib = None

from planner_support import QUICK, TARGET, PlannerTest, run
from program_support import PROGRAM

STAGE_FIELDS = {"layers", "mesh", "micro_batch", "data_parallel", "tensor_parallel", "sequence_parallel", "zero",
                "checkpointed", "offload", "layer_mode", "predicted"}
PLAN_FIELDS = {"schema", "model", "cluster", "profile", "dtype", "flash_attention", "chunked_loss", "sequence_tokens",
               "global_batch", "accumulation", "schedule", "chunks", "stages", "predicted", "runner_up", "provenance"}


def iteration_s(plan):
    return plan["predicted"]["iteration_s"]


class PlanTest(PlannerTest):
    def test_the_report_names_target_search_plans_stages_and_what_binds(self):
        for part in ("gpt-1.3b (1.42 B parameters), 32 sequences of 2048 tokens an iteration",
                     "on l4-1x2: 1 x 2 devices of 22.5 GiB; profile l4, fp16", "searched the mist space in",
                     "ranked by simulation", "operator prices: ", " measured, ", "iteration   tokens/s", "  stage  layers",
                     "/22.5 GiB", " binds: ", "% of the iteration is", f"wrote {self.file}"):
            self.assertIn(part, self.text)

    def test_no_line_is_longer_than_120_columns(self):
        wide = run("plan", "--model", "llama-13b", "--cluster", "l4-2x8", "--batch", 256, "--space", "mist", "--explain",
                   "--operators", "--why-not", "tp=8,zero=3").stdout
        self.assertRegex(wide, r"\bO\d+\b")
        for part in ("W, G, O, A: % of weights", "steady state +", "filling and draining +"):
            self.assertIn(part, wide)
        for line in (self.text + wide).splitlines():
            self.assertLessEqual(len(line), 120, line)

    def test_the_ranking_is_sorted_by_seconds(self):
        plans = self.plan_json(*QUICK, "--best", 5)["plans"]
        self.assertGreater(len(plans), 1)
        self.assertEqual(sorted(map(iteration_s, plans)), list(map(iteration_s, plans)))

    def test_json_has_the_documented_fields(self):
        found = self.plan_json(*QUICK, "--explain", "--why-not", "zero=3")
        self.assertEqual({"feasible", "search_s", "stages_priced", "passes_s", "plans", "binding", "without", "why_not"},
                         set(found))
        self.assertIs(True, found["feasible"])
        best = found["plans"][0]
        self.assertEqual(PLAN_FIELDS, set(best))
        for stage in best["stages"]:
            self.assertEqual(STAGE_FIELDS, set(stage))
        for entry in found["without"]:
            if "iteration_s" in entry:
                self.assertGreater(entry["iteration_s"], 0)

    def test_a_written_plan_evaluates_to_the_same_seconds(self):
        written = json.loads(self.file.read_text())
        again = self.plan_json("--evaluate", self.file)
        self.assertTrue(again["fits"])
        self.assertEqual(iteration_s(written), iteration_s(again["plan"]))
        self.assertIn("verdict: it fits", self.succeed("plan", "--evaluate", self.file).stdout)

    def test_evaluation_ignores_predictions_in_the_file(self):
        def lie(plan):
            plan["predicted"]["iteration_s"] = 0.001
        self.assertEqual(iteration_s(json.loads(self.file.read_text())),
                         iteration_s(self.plan_json("--evaluate", self.edited(lie))["plan"]))

    def test_evaluation_of_a_plan_that_does_not_fit_says_so_with_exit_code_3(self):
        def crowd(plan):
            plan["accumulation"] = 1
            plan["schedule"] = "1f1b"
            for stage in plan["stages"]:
                stage["micro_batch"] = 32 // stage["data_parallel"]
                stage["checkpointed"] = 0
        file = self.edited(crowd)
        done = run("plan", "--evaluate", file)
        self.assertEqual(3, done.returncode, done.stderr)
        self.assertRegex(done.stdout, r"verdict: it does not fit\. The least-bad plan needs [\d.]+ GiB")
        found = self.plan_json("--evaluate", file, code=3)
        self.assertFalse(found["fits"])
        self.assertIn("does not fit", found["reason"])

    def test_evaluation_on_another_cluster_takes_that_clusters_profile(self):
        slow = self.plan_json("--evaluate", self.file)["plan"]
        fast = self.plan_json("--evaluate", self.file, "--cluster", "a100-1x2")["plan"]
        self.assertLess(iteration_s(fast), iteration_s(slow))

    def test_explain_splits_time_and_memory_and_prices_every_knob(self):
        text = self.succeed("plan", *QUICK, "--explain").stdout
        for part in ("s: micro-batches 8 x", "time of a micro-batch on stage", "memory of a device of stage",
                     "optimizer states", "what each knob is worth"):
            self.assertIn(part, text)
        with_all = float(re.search(r"by the closed form; with all ([\d.]+) s", text).group(1))
        for value in re.findall(r"without [\w/ -]+? +([\d.]+) s  [\d.]+x", text):
            self.assertGreaterEqual(float(value), with_all)
        shares = [float(x) for x in re.search(r"time of a micro-batch.*?\n\n", text, re.S).group(0).replace("%", " ").split()
                  if re.fullmatch(r"\d+\.\d", x)]
        self.assertAlmostEqual(100, sum(shares), delta=1)

    def test_operators_lists_prices_with_their_source(self):
        self.assertRegex(self.succeed("plan", *QUICK, "--operators").stdout, r"mlp\.up +linear +[\d.]+ ms +[\d.]+ ms +measured")

    def test_why_not_compares_with_the_best_plan(self):
        text = " ".join(self.succeed("plan", *QUICK, "--why-not", "checkpoint=all").stdout.split())
        self.assertRegex(text, r"why not checkpoint=all: the best plan with checkpoint=all takes [\d.]+ s, 1\.\d\d times")

    def test_compare_sets_two_plans_side_by_side(self):
        other = self.root / "megatron.json"
        self.succeed("plan", *TARGET, "--space", "megatron", "-o", other)
        text = self.succeed("plan", "--compare", self.file, other).stdout
        for part in (f"A = {self.file}", f"B = {other}", "B / A", "steady state", "fullest device", "A: ", "B: "):
            self.assertIn(part, text)
        self.assertEqual(2, len(self.plan_json("--compare", self.file, other)["plans"]))

    def test_larger_spaces_give_no_slower_plans(self):
        seconds = {name: self.plan_json(*TARGET, "--space", name, "--no-simulate")["plans"][0]["predicted"]["iteration_s"]
                   for name in ("megatron", "mist", "full")}
        self.assertLessEqual(seconds["mist"], seconds["megatron"])
        self.assertLessEqual(seconds["full"], seconds["mist"])

    def test_export_prints_nothing_but_the_launchers_file(self):
        def exported(name):
            return self.succeed("plan", "--evaluate", self.file, "--export", name)
        flags = exported("megatron")
        self.assertTrue(flags.stdout.startswith("--tensor-model-parallel-size"), flags.stdout)
        self.assertIn("gpt-1.3b", flags.stderr)
        job = exported("torchtitan").stdout
        self.assertIn("[training]", job)
        if tomllib:
            self.assertIn("training", tomllib.loads(job))
        self.assertEqual(32, json.loads(exported("deepspeed").stdout)["train_batch_size"])
        self.assertEqual(1, json.loads(exported("json").stdout)["schema"])
        inside = self.plan_json("--evaluate", self.file, "--export", "megatron")["export"]
        self.assertEqual(flags.stdout.strip(), inside["text"].strip())
        self.assertIsInstance(inside["cannot_express"], list)

    def test_megatron_flags_are_priced_and_those_without_bearing_are_named(self):
        done = self.succeed("plan", *TARGET, "--from-megatron",
                            "--tensor-model-parallel-size 2 --micro-batch-size 2 --use-distributed-optimizer --log-interval 5")
        self.assertIn("--log-interval 5 does not change the plan", done.stderr)
        self.assertRegex(done.stdout, r"\n +1 +[\d.]+ m?s +[\d,]+ +16 +2 +1 +1 +2 +1 +1f1b\n")

    def test_exported_megatron_flags_come_back_with_the_same_seconds(self):
        other = self.root / "even.json"
        self.succeed("plan", *TARGET, "--space", "megatron", "-o", other)
        flags = self.succeed("plan", "--evaluate", other, "--export", "megatron").stdout.replace("\\\n", " ")
        back = self.plan_json(*TARGET, "--from-megatron", flags)["plan"]
        self.assertAlmostEqual(iteration_s(json.loads(other.read_text())), iteration_s(back), places=9)

    def test_options_come_from_a_file_and_the_command_line_wins(self):
        config = self.root / "config.json"
        config.write_text(json.dumps({"model": "gpt-1.3b", "cluster": "l4-1x2", "batch": 64, "space": "megatron", "best": 1}))
        found = self.plan_json("--config", config, "--batch", 32)["plans"]
        self.assertEqual([32], [plan["global_batch"] for plan in found])

    def test_nothing_fits(self):
        arguments = ("--model", "gpt-22b", "--cluster", "l4-1x1", "--batch", 8)
        done = self.refuse("plan", *arguments, code=3, names=["no plan fits", "least-bad plan needs", "GiB more than the 22.5",
                                                              "What would make it fit: devices of", "a shorter sequence"])
        self.assertRegex(done.stdout, r"(?m)^ +0 +0-47 +1x1 ")
        found = self.plan_json(*arguments, code=3)
        self.assertIs(False, found["feasible"])
        self.assertEqual("gpt-22b", found["least_bad"]["model"]["name"])

    def test_no_memory_margin_and_device_memory_change_what_fits(self):
        def peak(*more):
            stage = self.plan_json(*TARGET, "--space", "megatron", *more)["plans"][0]["stages"][0]
            return stage["predicted"]["memory_backward_bytes"]
        self.assertLessEqual(peak("--device-memory", 12), 12 * 2**30)
        plan = self.plan_json("--evaluate", self.file)["plan"]
        bare = self.plan_json("--evaluate", self.file, "--no-margin")["plan"]
        for stage, lighter in zip(plan["stages"], bare["stages"]):
            self.assertLess(lighter["predicted"]["memory_backward_bytes"], stage["predicted"]["memory_backward_bytes"] + 1)

    def test_interrupt_stops_a_search_with_130(self):
        program = subprocess.Popen([PROGRAM, "plan", "--model", "llama3-70b", "--cluster", "h100-128x8", "--batch", "2048"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(1.5)
        self.assertIsNone(program.poll(), "expected a search longer than this")
        program.send_signal(signal.SIGINT)
        _, message = program.communicate(timeout=60)
        self.assertEqual(130, program.returncode, message)
        self.assertIn("stopped; nothing was written", message)


if __name__ == "__main__":
    unittest.main()
