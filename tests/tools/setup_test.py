"""tools/setup.sh on a machine made of stand-ins: what it installs, when it asks, and what it says when it cannot go on."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# dpkg-query knows the packages named in $INSTALLED; apt-get writes down how it was called.
STAND_INS = {
    "dpkg-query": 'for name in $INSTALLED; do echo "$name installed"; done',
    "apt-cache": 'case "$2" in missing-*) exit 1 ;; esac',
    "apt-get": 'echo "apt-get $*" >>"$CALLS"; exit "${APT_EXIT:-0}"',
    "id": 'echo "${UID_SHOWN:-0}"',
    "cmake": "echo cmake version 3.30.0",
    "python": 'if [ "$1" = -m ] && [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
              'echo "python $*" >>"$CALLS"; case "$*" in *install*) exit "${PIP_EXIT:-0}" ;; esac',
}
TOOLS = ["bash", "cat", "cksum", "cp", "dirname", "env", "flock", "grep", "head", "ln", "mkdir", "rm", "sed", "sort", "tr"]


class SetupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "tools").mkdir()
        (self.root / "bin").mkdir()
        shutil.copy(ROOT / "tools/setup.sh", self.root / "tools")
        (self.root / "tools/apt-packages.txt").write_text("# list\ng++  # compiler\nlibx-dev\n?mold\n?missing-extra\n")
        (self.root / "tools/requirements.txt").write_text("torch==2.13.0  # libtorch\nnumpy\n")
        for name in TOOLS:
            found = shutil.which(name)
            if found:
                (self.root / "bin" / name).symlink_to(found)
        for name, body in STAND_INS.items():
            self.stand_in(name, body)

    def stand_in(self, name, body):
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def run_setup(self, **variables):
        calls = self.root / "calls"
        calls.write_text("")
        environment = {"PATH": str(self.root / "bin"), "CALLS": str(calls), "GANTRY_PYTHON": "python",
                       "INSTALLED": "g++ libx-dev mold", **variables}
        done = subprocess.run([str(self.root / "bin/bash"), str(self.root / "tools/setup.sh")], env=environment, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout, calls.read_text()

    def test_installs_only_what_is_missing_and_prints_it(self):
        code, output, calls = self.run_setup(INSTALLED="g++")
        self.assertEqual(code, 0, output)
        self.assertIn("installing with apt: libx-dev mold", output)
        self.assertIn("not offered by this release: missing-extra", output)
        self.assertIn("install -y --no-install-recommends libx-dev mold\n", calls)

    def test_second_run_does_nothing(self):
        self.assertEqual(self.run_setup()[0], 0)
        code, _, calls = self.run_setup()
        self.assertEqual(code, 0)
        self.assertEqual(calls, "")

    def test_changed_list_or_removed_environment_runs_again(self):
        self.run_setup()
        (self.root / "tools/requirements.txt").write_text("torch==2.13.0\nnumpy\nother\n")
        self.assertIn("torch==2.13.0 numpy other", self.run_setup()[2])
        shutil.rmtree(self.root / ".venv")
        self.assertIn("-m venv .venv", self.run_setup()[2])

    def test_own_libtorch_keeps_the_wheel_out(self):
        (self.root / "own").mkdir()
        code, output, _ = self.run_setup(Torch_DIR=str(self.root / "own"))
        self.assertEqual(code, 1)
        self.assertIn("holds no TorchConfig.cmake", output)
        (self.root / "own/TorchConfig.cmake").touch()
        code, output, calls = self.run_setup(Torch_DIR=str(self.root / "own"))
        self.assertEqual(code, 0, output)
        self.assertIn("install --quiet numpy", calls)
        self.assertIn("install --quiet torch==2.13.0 numpy", self.run_setup()[2])  # back to the wheel

    def test_old_cmake_is_supplemented(self):
        self.stand_in("cmake", "echo cmake version 3.22.1")
        self.assertIn("cmake>=3.25,<4", self.run_setup()[2])
        self.assertTrue((self.root / ".venv/newer/cmake").is_symlink())

    def last_line(self, output):
        return output.strip().splitlines()[-1]

    def test_without_root_and_sudo_it_names_the_command(self):
        code, output, calls = self.run_setup(INSTALLED="g++ mold", UID_SHOWN="1000")
        self.assertEqual((code, calls), (1, ""))
        self.assertEqual(self.last_line(output), "setup: apt needs root and there is no sudo; as root run: "
                                                 "apt-get install -y --no-install-recommends libx-dev")

    def test_sudo_that_cannot_ask(self):
        self.stand_in("sudo", "exit 1")
        code, output, _ = self.run_setup(INSTALLED="g++ mold", UID_SHOWN="1000")
        self.assertEqual(code, 1)
        self.assertIn("sudo cannot ask for a password here; run: sudo apt-get install", self.last_line(output))

    def test_without_apt_it_names_the_way_round(self):
        (self.root / "bin/apt-get").unlink()
        code, output, _ = self.run_setup()
        self.assertEqual(code, 1)
        self.assertIn("this machine has no apt", self.last_line(output))
        self.assertEqual(self.run_setup(GANTRY_SKIP_APT="1")[0], 0)

    def test_failures_of_apt_pip_and_python_are_one_sentence(self):
        code, output, _ = self.run_setup(INSTALLED="", APT_EXIT="100")
        self.assertEqual((code, self.last_line(output)[:41]), (1, "setup: apt could not install: g++ libx-de"))
        code, output, _ = self.run_setup(PIP_EXIT="1")
        self.assertEqual(code, 1)
        self.assertIn("pip could not install torch==2.13.0 numpy", self.last_line(output))
        shutil.rmtree(self.root / ".venv")
        code, output, _ = self.run_setup(GANTRY_PYTHON="no-such-python")
        self.assertEqual(code, 1)
        self.assertIn("found no Python 3.10 to 3.13", self.last_line(output))


if __name__ == "__main__":
    unittest.main()
