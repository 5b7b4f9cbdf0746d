"""`gantry bench layers`: rows, bars and baselines. A script stands in for the Python baselines."""
import importlib.util
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time
import unittest

from program_support import PROGRAM, ProgramTest, alive, cpu_seconds, left_of, wait_until

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BASELINE = """#!/bin/sh
# Speaks the protocol of bench/baselines/server.py and records how it was called.
echo "$@" >> {log}
echo '{ready}'
while read -r line; do
  [ "$line" = run ] || exit 0
  echo '{answer}'
done
"""


class BenchTest(ProgramTest):
    """Runs of the suite with a baseline that answers what a test says."""

    def setUp(self):
        folder = self.fresh("bench-layers")
        folder.mkdir(exist_ok=True)
        self.log, self.python = folder / "calls.txt", folder / "python"

    def bench(self, *arguments, ready='{"ready": true}', answer="{}"):
        self.python.write_text(BASELINE.format(log=self.log, ready=ready, answer=answer))
        os.chmod(self.python, stat.S_IRWXU)
        return ["bench", "layers", "--python", self.python, "--source", SOURCE, "--threads", 1, "--rounds", 1,
                "--no-compile", "--json", *arguments]

    def lines(self, *arguments, **baseline):
        return [json.loads(line) for line in self.succeed(*self.bench(*arguments, **baseline)).stdout.splitlines()]


class BenchLayersTest(BenchTest):
    def test_saved_bytes_stand_beside_the_bar_and_the_measured_baseline(self):
        lines = self.lines("--row", "saved_bytes_bert_floor", answer='{"eager": 168.0}')
        rows = [line for line in lines if "row" in line]
        self.assertEqual(["bar", "PyTorch eager"], [row["baseline"] for row in rows])
        self.assertEqual([41, 168], [row["baseline_value"] for row in rows])
        self.assertTrue(all(row["value"] == 40 and row["unit"] == "BSH" for row in rows), rows)
        self.assertAlmostEqual(rows[1]["value"] / 168, rows[1]["ratio"])
        modes = {line["how"]: line["c"] for line in lines if line.get("who") == "Gantry"}
        self.assertGreater(modes["store"], modes["in-place"])
        self.assertGreater(modes["in-place"], modes["recompute"])
        self.assertGreater(modes["recompute"], modes["rerun"])
        self.assertIn('"dtype":"fp32"', self.log.read_text())

    def test_a_baseline_that_is_not_installed_is_missing_and_ours_is_printed(self):
        lines = self.lines("--row", "saved_bytes_bert_floor", ready='{"missing": "no torch"}')
        rows = [line for line in lines if "row" in line]
        self.assertEqual("bar", rows[0]["baseline"])
        self.assertEqual("no torch", rows[1]["missing"])

    def test_gradients_are_compared(self):
        answer = '{"eager": {"relative_error": 1e-9, "repeatable": true}}'
        rows = self.lines("--row", "compile_rng", answer=answer)
        self.assertEqual(["bar", "PyTorch eager"], [row["baseline"] for row in rows])
        self.assertTrue(all(0 < row["value"] < 1e-6 for row in rows), rows)

    def test_unknown_rows_and_bad_workers_are_refused(self):
        self.refuse(*self.bench("--row", "gelu"), names=["has no row 'gelu'", "gelu_fwd_bwd"])
        self.refuse(*self.bench("--worker", '{"batch": -1}'), names=["batch is -1"])
        self.refuse(*self.bench("--worker", '{"family": "t5"}'), names=["family is 't5'", "bert, gpt2 or llama"])
        self.refuse(*self.bench("--worker", '{"family": "bert", "arm": "less"}'), names=["less", "recompute"])

    def test_budgets_that_make_no_sense_are_refused(self):
        for budget in (-1, "-0.5", "nan", "inf", "1e-9", 10**9):
            with self.subTest(budget=budget):
                self.refuse(*self.bench("--row", "max_batch_bert", "--budget-gib", budget), names=["--budget-gib is", "expected 0"])


def children(process):
    """Ids of the processes that a process started."""
    try:
        return [int(word) for word in pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


class InterruptTest(BenchTest):
    """Ctrl-C while another process measures."""

    def interrupt(self, arguments, started, number=signal.SIGINT, seconds=2):
        """Interrupts the program alone `seconds` after a child `started`; the child must be gone with the program."""
        with subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            limit = time.monotonic() + 60
            while not (found := [child for child in children(process.pid) if started(child)]):
                self.assertIsNone(process.poll(), "expected the program to run still")
                self.assertLess(time.monotonic(), limit, "expected a child process")
                time.sleep(0.01)
            time.sleep(seconds)
            self.assertTrue(all(alive(child) for child in found), "expected the child to be at work still")
            sent = time.monotonic()
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            waited = time.monotonic() - sent
        self.assertLess(waited, 10, "expected an end within about a second, ten on a busy machine")
        self.assertEqual([], left_of(found), "expected no child to be left")
        return process.returncode, errors

    def test_the_search_for_the_largest_batch_ends_at_once(self):
        arguments = self.bench("--row", "max_batch_bert", "--budget-gib", 6)
        code, errors = self.interrupt(arguments, lambda child: b"--worker" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes())
        self.assertEqual(130, code, errors)
        self.assertIn("interrupted", errors)

    def slow_baseline(self):
        arguments = self.bench("--row", "saved_bytes_bert_floor")
        self.python.write_text("#!/bin/sh\ntrap '' TERM INT\nsleep 300\n")
        return arguments

    def test_a_baseline_that_never_answers_is_ended_with_its_own_processes(self):
        arguments, grandchildren = self.slow_baseline(), []

        def started(child):
            grandchildren[:] = children(child)
            return bool(grandchildren)

        code, errors = self.interrupt(arguments, started, seconds=0.2)
        self.assertEqual(130, code, errors)
        self.assertEqual([], left_of(grandchildren))

    def test_a_killed_program_leaves_no_baseline_behind(self):
        code, errors = self.interrupt(self.slow_baseline(), children, signal.SIGKILL, seconds=0.2)
        self.assertEqual(-signal.SIGKILL, code, errors)

    def test_a_worker_stops_between_the_steps_of_its_search(self):
        settings = json.dumps({"layers": 1, "sequence_length": 64, "budget_bytes": 4 << 30, "threads": 1})
        with subprocess.Popen([PROGRAM, "bench", "layers", "--worker", settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: cpu_seconds(process.pid) >= 1.5, 60)  # starting takes a third of that
            self.assertIsNone(process.poll(), "expected the search to last longer")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        self.assertEqual((130, ""), (process.returncode, output), errors)


class LargestBatchTest(unittest.TestCase):
    """The search of the PyTorch side; the program's own is the same (step_worker.h)."""

    def setUp(self):
        sys.path.insert(0, str(SOURCE / "bench/baselines"))
        path = SOURCE / "bench/baselines/layers_step.py"
        spec = importlib.util.spec_from_file_location("layers_step", path)
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def search(self, growth, budget):
        self.tried = []

        def recorded(batch):
            self.tried.append(batch)
            return growth(batch)

        return self.module.largest_batch(recorded, budget)

    def test_it_finds_the_last_batch_that_fits(self):
        for most in range(1, 40):
            for fixed in (0, 35, 150):
                budget = 100 * most + fixed + 7
                self.assertEqual(most, self.search(lambda batch: 100 * batch + fixed, budget), (most, fixed))

    def test_nothing_fits(self):
        self.assertEqual(0, self.search(lambda batch: 100 * batch, 99))

    def test_a_step_in_memory_is_found_by_measuring(self):
        self.assertEqual(5, self.search(lambda batch: 100 * batch + (400 if batch > 5 else 0), 999))

    def test_peaks_that_vary_do_not_make_it_creep(self):
        noise = [0, 90, 10, 170, 60, 130, 20, 110]
        for most in (30, 90, 200):
            found = self.search(lambda batch: 10 * batch + noise[batch % 8], 10 * most + 180)
            self.assertLess(len(self.tried), 14, self.tried)
            self.assertGreater(found, 0.85 * most)

    def test_few_batches_are_tried(self):
        self.search(lambda batch: 100 * batch + 50, 100 * 64 + 60)
        self.assertLess(len(self.tried), 8)


if __name__ == "__main__":
    unittest.main()
