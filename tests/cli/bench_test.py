"""`gantry bench foundation`: what its options make every side measure. A script stands in for the Python baselines."""
import json
import os
import shutil
import stat
import unittest

from program_support import ProgramTest

BASELINE = """#!/bin/sh
# Speaks the protocol of bench/baselines/server.py and records how it was called.
echo "$@" >> {log}
while [ $# -gt 0 ]; do [ "$1" = --tokens ] && tokens=$2; shift; done
echo '{{"ready": true}}'
while read -r line; do
  [ "$line" = run ] || exit 0
  echo "{{\\"tokens_per_s\\": 10, \\"peak_rss_bytes\\": 1048576, \\"tokens\\": $((${{tokens:-64}} - 1))}}"
done
"""


class BenchTest(ProgramTest):
    def setUp(self):
        self.models = self.fresh("models")
        for dtype in ("bf16", "fp32"):
            shutil.copytree(self.model, self.models / dtype)
        (self.models / "smollm2-bf16.gguf").write_bytes(b"")  # there, so not made; the baseline does not read it
        self.log = self.models / "calls.txt"
        self.python = self.models / "python"

    def bench(self, *arguments):
        self.python.write_text(BASELINE.format(log=self.log))
        os.chmod(self.python, stat.S_IRWXU)
        return ["bench", "foundation", "--model", self.models, "--python", self.python, "--rounds", 1, "--json",
                *arguments]

    def rows(self, *arguments):
        return [json.loads(line) for line in self.succeed(*self.bench("--threads", 1, *arguments)).stdout.splitlines()]

    def test_tokens_reach_gantry_and_both_decoders(self):
        rows = self.rows("--tokens", 12, "--row", "decode_vs_llamacpp", "--row", "decode_vs_transformers")
        self.assertEqual(["decode_vs_llamacpp", "decode_vs_transformers"], [row["row"] for row in rows])
        self.assertTrue(all(row["baseline_value"] == 10 and row["value"] > 0 for row in rows), rows)
        calls = self.log.read_text().splitlines()
        self.assertEqual(2, len(calls), calls)
        for call in calls:
            self.assertIn("--tokens 12 --threads 1", call)

    def test_a_decoder_that_times_other_tokens_is_refused(self):
        script = self.bench("--tokens", 12, "--row", "decode_vs_llamacpp")
        self.python.write_text(self.python.read_text().replace("= --tokens ]", "= --none ]"))
        self.refuse(*script, code=1, names=["timed 63 tokens", "expected 11"])

    def test_batch_and_length_reach_the_training_baseline(self):
        rows = self.rows("--batch", 2, "--sequence-length", 24, "--row", "train_step_vs_pytorch_fp32")
        self.assertEqual(["train_step_vs_pytorch_fp32", "train_step_vs_pytorch_fp32_memory"], [row["row"] for row in rows])
        self.assertIn("--dtype fp32 --batch 2 --seq 24", self.log.read_text())

    def test_measures_out_of_range_are_refused(self):
        for option, value in (("--tokens", 1), ("--batch", 0), ("--sequence-length", 1), ("--threads", 0)):
            self.refuse(*self.bench(option, value), names=[f"{option} is {value}"])


if __name__ == "__main__":
    unittest.main()
