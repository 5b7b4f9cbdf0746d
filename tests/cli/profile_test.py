"""`gantry profile`: a whole quick run with two local ranks, and what it refuses before it measures."""
import json
import os
import signal
import subprocess
import time
import unittest

from program_support import PROGRAM, ProgramTest, wait_until

QUICK = ["profile", "--quick", "--sequence", 16, "--batch", 1, "--threads", 1]


def empty(group):
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


class ProfileTest(ProgramTest):
    def test_two_local_ranks_measure_a_profile_with_a_link(self):
        file = self.fresh().parent / "this.json"
        summary = json.loads(self.succeed(*QUICK, "--model", self.model, "--json", "-o", file).stdout)
        profile = json.loads(file.read_text())
        self.assertEqual([(entry["per_node"], entry["nodes"]) for entry in profile["collectives"]], [(2, 1)])
        self.assertEqual(summary["interference"]["combinations"], 72)
        self.assertEqual(len(summary["operators"]), len(profile["operators"]))
        self.assertEqual({entry["op"] for entry in profile["operators"]},
                         {"embedding", "norm", "linear", "rope", "attention_flash", "residual_add", "gated_activation",
                          "cross_entropy", "accumulate"})
        self.assertEqual(os.listdir(file.parent), ["this.json"])

    def test_bad_input_is_refused_before_measuring(self):
        self.refuse(*QUICK, "--model", "no-such-model", names=["no-such-model", "smollm2-135m"])
        self.refuse(*QUICK, "--ranks", 0, names=["--ranks must be from 1 to 64"])
        self.refuse(*QUICK, "--dtype", "fp64", names=["--dtype must be fp32 or bf16"])
        self.refuse(*QUICK, "-o", "/no/such/folder/profile.json", names=["/no/such/folder"], code=1)

    def test_an_interrupted_run_writes_nothing_and_leaves_no_process(self):
        for seconds in (0.1, 0.2, 1):  # while the other ranks start, and later
            with self.subTest(seconds=seconds):
                folder = self.fresh().parent
                command = [PROGRAM, *map(str, QUICK), "-o", str(folder / "this.json")]
                program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                           start_new_session=True)
                time.sleep(seconds)
                os.killpg(program.pid, signal.SIGINT)
                program.communicate(timeout=30)
                self.assertIn(program.returncode, (130, -signal.SIGINT))
                self.assertEqual(os.listdir(folder), [])
                # The kernel kills ranks a little later than the process that started them.
                self.assertTrue(wait_until(lambda: empty(program.pid), 5), "expected the whole group to be gone")


if __name__ == "__main__":
    unittest.main()
