# What people type. `make up` and `make test` work from a fresh clone; they set up whatever is missing.

VENV ?= .venv
PYTHON_IN_VENV = $(VENV)/bin/python
PYTEST = $(PYTHON_IN_VENV) -m pytest
STAMP = $(VENV)/.installed
UP_FLAGS ?=

# One thread per test process: two of them share the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup up test check unit integration e2e evidence bench clean
.DEFAULT_GOAL := help

help: ## Lists these targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Makes .venv with the brigade command in it

$(STAMP): pyproject.toml deploy/setup.sh
	@deploy/setup.sh $(VENV)
	@touch $@

up: $(STAMP) ## Starts everything on this host with the demo model (flags: UP_FLAGS="--model DIR ...")
	@exec $(VENV)/bin/brigade up $(UP_FLAGS)

test: $(STAMP) ## Runs the whole test suite
	$(PYTEST) -n 2 --dist worksteal -m "not evidence"

check: $(STAMP) ## Format, lint, types, import contracts, unit tests: under a minute
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PYTEST) -n 2 -q tests/unit tests/arch

unit: $(STAMP) ## Unit tests only
	$(PYTEST) -q tests/unit

integration: $(STAMP) ## Tests against a real Redis
	$(PYTEST) -q tests/integration

e2e: $(STAMP) ## Tests of real processes
	$(PYTEST) -q tests/e2e

evidence: $(STAMP) ## Long-running evidence: every protocol scenario, long series of kills and pauses (about an hour)
	$(PYTHON_IN_VENV) -m verification.protocol all --no-traces
	$(PYTEST) -m evidence

bench: $(STAMP) ## Benchmarks; what each measures is in benchmarks/README.md
	$(PYTHON_IN_VENV) -m benchmarks

clean: ## Removes what was built and cached, the environment too
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
