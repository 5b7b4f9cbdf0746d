# Every task by name; `make help` lists them. All of them do only what is missing and can be run again and again.
#   PRESET=release|debug|ci   which build (CMakePresets.json)        JOBS=N   compilers and tests at a time
#   Torch_DIR=DIR             a libtorch of your own instead of the wheel in .venv
SHELL := /bin/bash
.DEFAULT_GOAL := help

PRESET ?= release
# A file that includes torch takes up to 1.5 GB to compile, so memory limits the jobs as well as the processors do.
JOBS ?= $(shell awk -v cpus="$$(nproc)" '/MemAvailable/ {m = int($$2 / 2000000); m = m < 1 ? 1 : m; print m < cpus ? m : cpus}' /proc/meminfo)
BUILD := build/$(PRESET)
GANTRY := $(BUILD)/bin/gantry
MODEL := $(CURDIR)/build/model/SmolLM2-135M-Instruct.Q4_1.gguf
# Setup adds a newer cmake to .venv where the system's is too old.
export PATH := $(CURDIR)/.venv/newer:$(PATH)
export GANTRY_SMOLLM2_GGUF ?= $(MODEL)

.PHONY: help
help:  ## list the tasks
	@sed -n 's/^\([a-z -]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: setup setup-dev bench-setup
setup:  ## install what is missing: apt packages, .venv with libtorch
	@tools/setup.sh
setup-dev:  ## the same and clang, clang-format, clang-tidy
	@tools/setup.sh --dev
bench-setup: setup  ## .venv-bench with the programs that `make bench` compares against
	@tools/bench_setup.sh

.PHONY: model
model: setup  ## fetch SmolLM2-135M-Instruct (93 MB) for the demo and the tests
	@.venv/bin/python tools/fetch_model.py build/model

.PHONY: build configure
configure: setup
	@cmake --preset $(PRESET) $(if $(Torch_DIR),-DGANTRY_BUILD_PYTHON=OFF)
build: configure  ## build everything into build/release
	@cmake --build --preset $(PRESET) -j $(JOBS)

.PHONY: test demo bench
test: model build  ## set up, build, run every test
	@ctest --preset $(PRESET) -j $(JOBS)
demo: model build  ## measure, fine-tune and chat with a real model; writes a report
	@tools/demo.sh
bench: model build  ## the project's own benchmarks, baselines included where bench-setup put them
	@$(GANTRY) bench foundation

.PHONY: format lint docs
format:  ## format every C++ file in place
	@tools/format.sh
lint: docs  ## format, layers, sizes, clang-tidy (CHANGED=1: only files that differ from origin/main)
	@tools/format.sh --check
	@python3 tools/check_layers.py
	@python3 tools/check_sizes.py
	@JOBS=$(JOBS) tools/tidy.sh $(if $(CHANGED),--changed)
docs:  ## check links, environment variables, packages and options named in the documents
	@python3 tools/check_docs.py

.PHONY: asan tsan fuzz
asan tsan: setup  ## test under AddressSanitizer + UBSan, or ThreadSanitizer (WITH_TORCH=ON: torch modules too)
	@cmake --preset $@ -DGANTRY_WITH_TORCH=$(or $(WITH_TORCH),OFF) && cmake --build --preset $@ -j $(JOBS) && ctest --preset $@ -j $(JOBS)
fuzz: setup-dev  ## build the fuzz targets and run each for FUZZ_SECONDS (10) from its corpus
	@cmake --preset fuzz && cmake --build --preset fuzz -j $(JOBS) && tools/fuzz.sh

.PHONY: clean distclean
clean:  ## remove build outputs; keeps the model and .venv
	@find build -mindepth 1 -maxdepth 1 ! -name model -exec rm -rf {} + 2>/dev/null || true
distclean: clean  ## remove the model and the virtual environments too
	@rm -rf build .venv .venv-bench
