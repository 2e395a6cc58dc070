# Bare `make` explains itself. Every target makes .venv when it is missing or older than what it is made from.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu lab dashboard notebooks figures fidelity bench bench-clock bench-sim bench-plan bench-users bench-served bench-prefix bench-runtime bench-widget bench-gpu figures-real closed-loop soak lint format docs coverage clean

help: ## Show this list
	@echo "helix_kit: plan, simulate and serve LLMs over mixed GPUs. Targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "helix_kit needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp is written last, so an install that was cut short is done again.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) ($*): a few minutes the first time."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$*]'
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $@

# PORT and BROWSER of `make lab` and `make dashboard`. Python opens the program that the variable BROWSER names.
WHERE = $(if $(PORT),--port=$(PORT)) $(if $(filter 0 no none false,$(BROWSER)),--no-browser)

DEMO := $(VENV)/.installed-demo
DEV  := $(VENV)/.installed-dev

# Triton's interpreter runs the GPU's kernels in one test. It stands apart: a torch for CPUs that finds it starts slowly.
TRITON := $(VENV)/.installed-triton
$(TRITON): Makefile | $(DEV)
	$(PIP) install --quiet --upgrade --no-deps --target $(VENV)/triton triton==3.9.0
	@touch $@

demo: $(DEMO) ## Set up, then plan, simulate and serve: runs notebooks/00_quickstart.ipynb and prints a summary
	$(BIN)/python -m helix_kit.experiments.machinery.demo

# Files of tests are shared out among so many processes; each computes with one thread. JOBS=0 runs all in one process.
JOBS ?= 2

test: export OMP_NUM_THREADS ?= 1
test: $(DEV) $(TRITON) ## Set up, then all tests but the slow and GPU ones (JOBS=4 for four processes at once)
	$(PYTEST) -m "not slow and not gpu" --numprocesses $(JOBS) --dist loadfile

test-slow: $(DEV) ## Tests that take minutes each (chaos, soak, long simulations)
	$(PYTEST) -m "slow and not gpu" --timeout 7200

test-gpu: $(DEV) ## Tests that need a CUDA device
	$(PYTEST) -m gpu

lab: $(DEMO) ## Open the notebooks in JupyterLab (PORT=8889; BROWSER=firefox, or BROWSER=no to print the address)
	$(BIN)/jupyter lab --ServerApp.root_dir=$(CURDIR) --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(WHERE)

docs: $(DEV) ## Build the documentation: docs/_build/html/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html

coverage: $(DEV) ## The tests of `make test` (or TESTS=tests/flow), with the lines and branches they do not reach
	$(PYTEST) -m "not slow and not gpu" --cov --cov-report=term-missing:skip-covered --cov-report=html $(TESTS)

lint: $(DEV) ## Lint, format check and types, notebooks too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## Format the code and notebooks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build docs/notebooks docs/reference htmlcov .coverage

dashboard: $(DEMO) ## Open the editors of notebook 06 as a dashboard (PORT=, BROWSER= as for lab; FORGET=1 drops what was kept)
	FAST=1 $(BIN)/python -m helix_kit.widgets.dashboard $(if $(FORGET),--forget) $(WHERE)

notebooks: $(DEMO) ## Execute every notebook in place, outputs and pictures kept
	$(BIN)/python -m helix_kit.experiments.machinery.notebooks

figures: $(DEMO) ## Write the figures in figures/
	$(BIN)/helix-kit reproduce --all --jobs 2 --document docs/reproduction.md

bench: bench-plan bench-sim bench-runtime bench-widget ## All benchmarks, each also alone:

bench-plan: $(DEV) ## Planning: seconds, value, bound and gap by cluster size
	$(BIN)/python benchmarks/bench_plan.py -o docs/plan-bench.md

bench-users: $(DEV) ## Planning: random clusters of today's cards against every rival, for the flow and for what is served (an hour)
	rm -f users-bench.jsonl
	$(BIN)/python benchmarks/bench_users.py --time-limit 20 --keep users-bench.jsonl
	$(BIN)/python benchmarks/bench_users.py --served --time-limit 60 --keep users-bench.jsonl -o docs/users-bench.md

bench-served: $(DEV) ## What the stored served plans serve beside the published ones (half an hour)
	rm -f docs/served-bench.md
	$(BIN)/python benchmarks/bench_served.py -o docs/served-bench.md --readme README.md

bench-prefix: $(DEV) ## Prefix caches: hit rates and latencies of conversations by policy
	$(BIN)/python benchmarks/bench_prefix.py -o docs/prefix-bench.md

bench-clock: $(DEV) ## Promises about seconds: time limits, stops, imports, notebooks (ten minutes without other work)
	$(BIN)/python benchmarks/bench_clock.py

bench-sim: $(DEV) ## Simulator: CPU-seconds and memory for ten simulated minutes
	$(BIN)/python benchmarks/bench_sim.py

bench-runtime: $(DEV) ## Runtime: tokens/s beside transformers' generate and generate_batch
	$(BIN)/python benchmarks/bench_runtime.py -o docs/runtime-bench.md

bench-gpu: $(DEV) ## What only a GPU can show, in under six minutes: right, fast, simulated; writes docs/gpu-bench.md
	$(BIN)/python benchmarks/gpu_check.py

figures-real: $(DEV) ## Measure section 6.3 with 24 worker processes, then its figure and docs/emulation.md (about an hour)
	$(BIN)/python benchmarks/emulate24.py -o docs/emulation.md
	$(BIN)/helix-kit reproduce real-single-cluster

closed-loop: $(DEV) ## Profile this machine, simulate and really serve the same trace, compare
	$(BIN)/python benchmarks/closed_loop.py -o docs/runtime-bench.md

soak: $(DEV) ## Five minutes at 80 % load: no request lost, no page lost, memory
	$(BIN)/python benchmarks/soak.py --minutes 5

bench-widget: $(DEV) ## Flow graph widget: milliseconds from slider to redraw
	$(BIN)/python benchmarks/bench_widget.py

fidelity: $(DEV) ## Regenerate docs/fidelity.md: our simulator against every published figure
	$(BIN)/python -m helix_kit.experiments.machinery.fidelity
