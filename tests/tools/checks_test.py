"""Shows that each check finds what it is for: small trees with one fault each."""
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
sys.dont_write_bytecode = True

import check_docs  # noqa: E402
import check_layers  # noqa: E402
import check_sizes  # noqa: E402


class TreeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class LayersTest(TreeTest):
    def violations(self, files):
        for name, text in files.items():
            self.put(name, text)
        return check_layers.check(self.root)[0]

    def assert_one(self, files, sentence):
        violations = self.violations(files)
        self.assertEqual(len(violations), 1, violations)
        self.assertIn(sentence, violations[0])

    def test_clean_tree(self):
        self.assertEqual(self.violations({
            "gantry/base/a.h": "#pragma once\n#include <string>\n",
            "gantry/formats/b.cpp": '#include "gantry/base/a.h"\n',
            "gantry/models/c.cpp": '#include <torch/torch.h>\n#include "gantry/base/a.h"\n#include "gantry/spec/x.h"\n',
            "gantry/train/d.cpp": '#include "gantry/plan/types.h"\n#include "gantry/plan/types/mesh.h"\n',
            "gantry/cli/e.cpp": '#include "gantry/train/d.h"\n#include "gantry/plan/search.h"\n',
            "tests/base/a_test.cpp": '#include "gantry/base/a.h"\n#include "tests/base/support.h"\n',
        }), [])

    def test_downward_arrow(self):
        self.assert_one({"gantry/base/a.cpp": '#include "gantry/formats/b.h"\n'}, "base may not include gantry/formats/b.h")

    def test_sideways_arrow(self):
        self.assert_one({"gantry/train/a.cpp": '#include "gantry/serve/b.h"\n'}, "train may not include gantry/serve/b.h")

    def test_train_sees_only_the_types_of_plan(self):
        self.assert_one({"gantry/train/a.cpp": '#include "gantry/plan/search.h"\n'}, "train may not include")

    def test_plan_types_do_not_open_cost(self):
        self.assert_one({"gantry/train/a.cpp": '#include "gantry/cost/profile.h"\n'}, "train may not include")

    def test_grasp_never_names_comm(self):
        self.assert_one({"gantry/grasp/a.cpp": '#include "gantry/comm/b.h"\n'}, "grasp may not include")

    def test_torch_in_a_torch_free_module(self):
        self.assert_one({"gantry/spec/a.cpp": "#include <ATen/ATen.h>\n"}, "reaches a torch header: gantry/spec/a.cpp")

    def test_torch_reached_by_a_raw_kernel_through_a_header(self):
        self.assert_one({
            "gantry/kernels/norm/norm.h": "#pragma once\n#include <ATen/core/Tensor.h>\n",
            "gantry/kernels/norm/norm_cpu.cpp": '#include "gantry/kernels/norm/norm.h"\n',
        }, "gantry/kernels/norm/norm_cpu.cpp -> gantry/kernels/norm/norm.h -> ATen/core/Tensor.h")

    def test_short_path(self):
        self.assert_one({"gantry/base/a.cpp": '#include "a.h"\n'}, "is not a full path")

    def test_missing_pragma_once(self):
        self.assert_one({"gantry/base/a.h": "int a;\n"}, "without #pragma once")

    def test_cli_and_tests_are_leaves(self):
        self.assert_one({"tests/base/a.cpp": '#include "gantry/cli/run.h"\n'}, "nothing includes cli")
        others = self.violations({"bench/a.cpp": '#include "tests/base/b.h"\n'})
        self.assertIn("bench/a.cpp: tests/base/b.h may not be included from outside tests/", others)

    def test_unknown_module_and_cuda_outside_its_places(self):
        self.assert_one({"gantry/misc/a.cpp": "int a;\n"}, "module 'misc' is not in the table")
        self.assertTrue(any("CUDA header" in v for v in self.violations({"gantry/models/a.cpp": "#include <cuda.h>\n"})))

    def test_table_has_no_cycle(self):
        for module, entries in check_layers.MAY_INCLUDE.items():
            for entry in entries:
                self.assertNotIn(module, check_layers.reachable(entry.split("/")[0]), f"{module} <-> {entry}")


class SizesTest(TreeTest):
    def test_long_file_is_an_error(self):
        self.put("gantry/base/a.cpp", "\n" * 501)
        self.put("gantry/base/b.cpp", "\n" * 500)
        errors, _, count = check_sizes.check(self.root)
        self.assertEqual(count, 2)
        self.assertEqual(errors, ["gantry/base/a.cpp: 501 lines, at most 500; split it"])

    def test_long_function_is_a_warning_and_kernels_may_be_longer(self):
        body = "namespace x {\nclass A {\n  int f() const {\n" + "    g({1, 2});\n" * 70 + "  }\n};\n}\n"
        self.put("gantry/base/a.cpp", body)
        self.put("gantry/kernels/a_cpu.cpp", body)
        errors, warnings, _ = check_sizes.check(self.root)
        self.assertEqual(errors, [])
        self.assertEqual(warnings, ["gantry/base/a.cpp:3: warning: function of 72 lines, more than 60"])

    def test_braces_in_text_do_not_count(self):
        text = 'int f() {\n  // {\n  char c = \'{\';\n  s = "{{" R"({)";\n  n = 1\'000;\n}\nint g() {\n}\n'
        self.assertEqual(check_sizes.functions(text), [(1, 6), (7, 2)])


class DocsTest(TreeTest):
    def test_links(self):
        self.put("README.md", "[a](docs/a.md) [b](docs/missing.md) [c](docs/a.md#two-words) [d](docs/a.md#three) "
                              "[e](https://example.org) ![f](g.png)\n```\n[x](y)\n```\n")
        self.put("docs/a.md", "# Two *words*\n")
        self.assertEqual(list(check_docs.check_links(self.root)), [
            "README.md: link to docs/missing.md: there is no such file",
            "README.md: link to docs/a.md#three: there is no such heading",
            "README.md: link to g.png: there is no such file",
        ])

    def test_variables_both_ways(self):
        self.put("gantry/base/a.cpp", 'env("GANTRY_NEW"); env_int("GANTRY_KNOWN");')
        self.put("docs/environment.md", "| `GANTRY_KNOWN` | x |\n| `GANTRY_GONE` | x |\n")
        self.assertEqual(list(check_docs.check_variables(self.root)), [
            "docs/environment.md: variable GANTRY_NEW is not described",
            "docs/environment.md: variable GANTRY_GONE is described but does not exist",
        ])

    def test_packages(self):
        self.put("tools/apt-packages.txt", "# list\ng++  # compiler\n?mold\n")
        self.put("docs/dependencies.md", "| `g++` | compiler |\n")
        self.assertEqual(list(check_docs.check_packages(self.root)),
                         ["docs/dependencies.md: package mold is not described"])

    def test_make_targets(self):
        self.put("Makefile", "asan tsan: setup\nX := 1\ntest: build\n")
        self.put("a.md", "`make test`, `make tsan`, `make tset`\n")
        self.assertEqual(list(check_docs.check_targets(self.root)),
                         ["a.md: `make tset`: the Makefile has no such target"])

    def test_verb_options(self):
        self.put("gantry/cli/eval.cpp", 'visit("max_windows", n, "x"); app.add_option("--text");')
        self.put("a.md", "`gantry eval M --text F --max-windows 3 --windows 2` and `gantry later --any`\n")
        self.assertEqual(list(check_docs.check_verb_options(self.root)), ["a.md: gantry eval has no option --windows"])


if __name__ == "__main__":
    unittest.main()
