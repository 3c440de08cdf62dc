# make demo: the whole path once, on this machine.   make demo CODE="DIR ...": the same on your own code.
# make test: the proofs.   make check: style and types.
# make bench-NAME: one benchmark beside its peers.   make bench: which goals are missed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CODE ?=
RUN ?= $(if $(CODE),runs/ours,runs/demo)

.PHONY: demo test test-slow check bench playground setup clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Midspan and what it needs into $(VENV) (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the oracles and tools of the tests"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/python scripts/demo.py $(CODE) --out $(RUN)

test: $(VENV)/.installed-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.installed-dev
	@$(BIN)/python -m midspan models pull smollm2-135m
	@$(BIN)/python -m pytest -m "slow or not slow"

check: $(VENV)/.installed-dev
	@$(BIN)/ruff check src tests scripts benchmarks
	@$(BIN)/ruff format --check src tests scripts benchmarks
	@$(BIN)/mypy

bench-%: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks.$(subst -,_,$*)

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks

playground:
	@cd src/midspan/serve/playground && npm ci --no-audit --no-fund && npm run build

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build
