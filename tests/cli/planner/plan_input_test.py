"""gantry plan: wrong options and files end with exit code 2 and a message that says what to do."""
import json
import unittest

from planner_support import QUICK, TARGET, PlannerTest


class PlanInputTest(PlannerTest):
    def wrong(self, *arguments, names=(), **options):
        done = self.refuse("plan", *arguments, names=names, **options)
        self.assertEqual("", done.stdout, "expected the fault before any work")

    def test_models(self):
        self.wrong(names=["--model is missing", "gpt-1.3b"])
        self.wrong("--model", "gpt-9b", "--cluster", "l4-1x2", names=["model 'gpt-9b' is not one of", "llama3-8b", "config.json"])
        folder = self.root / "empty"
        folder.mkdir()
        self.wrong("--model", folder, "--cluster", "l4-1x2", names=["config.json"])

    def test_clusters(self):
        for name, part in (("l4-0x8", "1 to 65536, found '0'"), ("l4-2x0", "1 to 64"), ("l4-2", "l4-NxM"),
                           ("l4-99999999999x1", "99999999999"), ("tpu-1x4", "a100-NxM"), ("nowhere.json", "nowhere.json")):
            with self.subTest(name):
                self.wrong("--model", "gpt-1.3b", "--cluster", name, names=[f"cluster '{name}'", part])

    def test_a_machine_without_a_profile_is_told_to_measure_itself(self):
        empty = self.root / "cache"
        empty.mkdir()
        for arguments in ((), ("--cluster", "this")):
            self.wrong("--model", "gpt-1.3b", *arguments, environment={"XDG_CACHE_HOME": str(empty)},
                       names=["this machine has no profile yet", str(empty), "run `gantry profile` first"])

    def test_profiles(self):
        self.wrong(*QUICK, "--profile", "l5", names=["l5", "l4"])

    def test_batches_and_sequences(self):
        for option, value, part in (("--batch", 0, "batch 0 must be at least 1"), ("--batch", -3, "batch -3"),
                                    ("--seq", 0, "sequence length 0 is not within 1 to 10,000,000"),
                                    ("--seq", 10**12, "10000000000"), ("--best", 0, "--best 0: expected 1 to 100"),
                                    ("--device-memory", -1, "--device-memory -1"), ("--dtype", "int8", "fp16, bf16, fp32")):
            with self.subTest(option=option, value=value):
                self.wrong("--model", "gpt-1.3b", "--cluster", "l4-1x2", option, value, names=[part])
        self.wrong(*TARGET, "--batch", "many")

    def test_a_batch_that_no_plan_divides(self):
        self.refuse("plan", "--model", "gpt2", "--cluster", "l4-8x8", "--batch", 7, code=3,
                    names=["A batch of 7 cannot be divided over 64 devices", "more divisors"])

    def test_spaces_formats_and_restrictions(self):
        self.wrong(*TARGET, "--space", "alpa", names=["'alpa' is not one of megatron, deepspeed, aceso, mist, full"])
        self.wrong(*QUICK, "--export", "alpa", names=["--export: expected megatron, torchtitan, deepspeed or json, found 'alpa'"])
        self.wrong(*QUICK, "--why-not", "width=3", names=["'width' is not one of tp,"])
        self.wrong(*QUICK, "--why-not", "tp", names=["expected key=value"])
        self.wrong("--evaluate", self.file, "--why-not", "tp=2", names=["--why-not asks about a search"])
        self.wrong("--evaluate", self.file, "--compare", self.file, self.file, names=["give one of"])
        self.wrong("--compare", self.file, names=["--compare takes two plan files, found 1"])

    def test_output_that_cannot_be_written_is_said_before_the_search(self):
        done = self.refuse("plan", *QUICK, "-o", self.root / "no" / "plan.json", code=1, names=["plan.json"])
        self.assertEqual("", done.stdout)

    def test_plan_files(self):
        def change(**fields):
            return lambda plan: plan.update(fields)

        def stage(**fields):
            return lambda plan: plan["stages"][0].update(fields)
        cases = [(change(zero=3), ["unknown field 'zero'", "the fields are"]),
                 (stage(ckpt=1), ["stages[0]", "'ckpt'"]), (change(schema=9), ["schema"]),
                 (change(global_batch="x"), ["'global_batch' has the wrong type"]),
                 (change(global_batch=33), ["differs from global_batch 33; change one of them"]),
                 (stage(zero=7), ["'zero' must be 0 to 3, found 7"]), (stage(layers=[0, 99]), ["layers"]),
                 (stage(checkpointed=500), ["checkpointed"]), (change(stages=[]), ["stages"]),
                 (change(cluster="lab"), ["the plan was made for lab; give the cluster or its file with --cluster"])]
        for number, (edit, parts) in enumerate(cases):
            with self.subTest(parts=parts):
                file = self.edited(edit, f"wrong{number}.json")
                names = parts if "lab" in parts[0] else [file.name, *parts]
                self.wrong("--evaluate", file, names=names)
                self.refuse("simulate", file, names=names)
        for number, text in enumerate(("", "[]", "{", "\x00", "[" * 100000, '{"schema": 1}')):
            file = self.root / f"broken{number}.json"
            file.write_text(text)
            self.wrong("--evaluate", file, names=[file.name])
        self.wrong("--evaluate", self.root / "absent.json", names=["absent.json", "No such file"])

    def test_a_plan_for_another_model_or_cluster(self):
        self.wrong("--evaluate", self.file, "--model", "gpt-2.7b", names=[self.file.name, "the model's 32 layers"])
        self.wrong("--evaluate", self.file, "--cluster", "l4-1x4", names=[self.file.name, "all 4 devices"])

    def test_megatron_flags(self):
        self.wrong(*TARGET, "--from-megatron", "--tensor-model-parallel-size two", names=["tensor-model-parallel-size", "two"])
        self.wrong(*TARGET, "--from-megatron", "--num-layers 3", names=["num-layers"])

    def test_config_files(self):
        config = self.root / "config.json"
        config.write_text(json.dumps({"modl": "gpt-1.3b"}))
        self.wrong("--config", config, names=["config.json: unknown option 'modl'"])
        self.wrong("--config", self.root / "absent.json", names=["absent.json"])


if __name__ == "__main__":
    unittest.main()
