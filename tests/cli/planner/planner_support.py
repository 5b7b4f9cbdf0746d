"""What the tests of `gantry plan` and `gantry simulate` share."""
import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from program_support import VerbTest, run  # noqa: E402,F401

# Small enough to be searched in a few milliseconds.
TARGET = ("--model", "gpt-1.3b", "--cluster", "l4-1x2", "--batch", 32)
QUICK = (*TARGET, "--space", "mist")


class PlannerTest(VerbTest):
    """Each class has a folder; `plan` searches and gives the text, `plan_json` the object."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        cls.file = cls.root / "plan.json"
        done = run("plan", *QUICK, "-o", cls.file)
        assert done.returncode == 0, done.stderr
        cls.text = done.stdout

    def plan_json(self, *arguments, code=0):
        done = run("plan", *arguments, "--json")
        self.assertEqual(code, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def edited(self, change, name="edited.json"):
        """The plan file after `change`."""
        plan = json.loads(self.file.read_text())
        change(plan)
        file = self.root / name
        file.write_text(json.dumps(plan))
        return file
