"""gantry simulate: numbers, traces, timelines, noise and stragglers."""
import json
import unittest
import xml.etree.ElementTree as ElementTree

from planner_support import PlannerTest, run


class SimulateTest(PlannerTest):
    def simulate(self, *arguments):
        return json.loads(self.succeed("simulate", self.file, *arguments, "--json").stdout)

    @property
    def stages(self):
        return json.loads(self.file.read_text())["stages"]

    def test_it_agrees_with_the_plans_prediction(self):
        found = self.simulate()
        self.assertEqual({"iteration_s", "closed_form_s", "runs", "busy_s", "bubble_s", "peak_in_flight"}, set(found))
        self.assertEqual(json.loads(self.file.read_text())["predicted"]["iteration_s"], found["iteration_s"])
        for key in ("busy_s", "bubble_s", "peak_in_flight"):
            self.assertEqual(len(self.stages), len(found[key]))

    def test_the_text_names_both_seconds_and_every_stage(self):
        text = self.succeed("simulate", self.file).stdout
        self.assertRegex(text, r"simulated iteration [\d.]+ s, closed form [\d.]+ s \([+-][\d.]+ %\), [\d,]+ tokens/s")
        self.assertRegex(text, r"(?m)^ +stage +computing +idle +idle +in flight\n +0 ")

    def test_trace_is_readable_and_covers_the_iteration(self):
        trace, svg = self.root / "trace.json", self.root / "timeline.svg"
        done = self.succeed("simulate", self.file, "--trace", trace, "--svg", svg)
        self.assertIn(f"wrote {trace}\nwrote {svg}\n", done.stdout)
        events = json.loads(trace.read_text())
        events = events["traceEvents"] if isinstance(events, dict) else events
        work = [event for event in events if event.get("ph") == "X"]
        self.assertEqual(set(range(len(self.stages))), {event["pid"] for event in work})
        end_us = max(event["ts"] + event["dur"] for event in work)
        self.assertAlmostEqual(self.simulate()["iteration_s"], end_us / 1e6, places=6)
        self.assertTrue({"forward", "backward"} <= {event["name"].split()[0] for event in work})

        root = ElementTree.parse(svg).getroot()
        self.assertEqual("{http://www.w3.org/2000/svg}svg", root.tag)
        self.assertIn("gpt-1.3b on l4-1x2", svg.read_text())

    def test_noise_spreads_runs_and_a_seed_repeats_them(self):
        noisy = self.simulate("--noise", 0.2, "--runs", 20)
        self.assertLess(noisy["runs"]["least_s"], noisy["runs"]["median_s"])
        self.assertLess(noisy["runs"]["median_s"], noisy["runs"]["most_s"])
        self.assertEqual(noisy, self.simulate("--noise", 0.2, "--runs", 20))
        self.assertNotEqual(noisy, self.simulate("--noise", 0.2, "--runs", 20, "--seed", 2))
        quiet = self.simulate("--runs", 3)["runs"]
        self.assertEqual(quiet["least_s"], quiet["most_s"])

    def test_a_straggler_makes_the_iteration_longer_by_at_most_its_factor(self):
        plain = self.simulate()["iteration_s"]
        slow = self.simulate("--straggler-stage", 0, "--straggler-factor", 2)["iteration_s"]
        self.assertGreater(slow, 1.3 * plain)
        self.assertLessEqual(slow, 2 * plain * (1 + 1e-9))

    def test_another_cluster_and_model_than_the_plans(self):
        self.assertLess(self.simulate("--cluster", "a100-1x2")["iteration_s"], self.simulate()["iteration_s"])
        self.refuse("simulate", self.file, "--cluster", "l4-1x4", names=[self.file.name, "all 4 devices"])

    def test_wrong_options(self):
        for option, value, part in (("--noise", -1, "--noise -1: expected 0 to 2"), ("--noise", 3, "expected 0 to 2"),
                                    ("--runs", 0, "--runs 0: expected 1 to 100,000"),
                                    ("--straggler-stage", 99, "--straggler-stage 99: the plan has"),
                                    ("--straggler-factor", 0, "--straggler-factor 0")):
            with self.subTest(option=option):
                self.refuse("simulate", self.file, option, value, names=[part])
        self.refuse("simulate", names=["PLAN is required"])
        self.refuse("simulate", self.root / "absent.json", names=["absent.json"])
        self.assertEqual(0, run("simulate", "--help").returncode)


if __name__ == "__main__":
    unittest.main()
