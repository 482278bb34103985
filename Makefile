# Everything runs inside $(VENV), which `make setup` builds once (again when pyproject.toml or constraints.txt change).
#   make demo        set up, then a tour of the command line on a CPU without network: writes into demo/
#   make test        the fast tests             make test-slow   the tests that take minutes (training, official sizes)
#   make lint        ruff and mypy              make format      let ruff rewrite what it can
#   make clean       remove what the demo and the tools wrote (the environment stays)

VENV   ?= .venv
PYTHON ?= python3
JOBS   ?= 2

BIN    := $(abspath $(VENV))/bin
STAMP  := $(VENV)/.installed
EXTRAS := lmdb,mesh,synthetic,dev

# One test process a core with one thread each: on small tensors threads wait for each other more than they compute.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: setup demo test test-slow lint format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "portraitzoo needs Python 3.11 or newer: run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	@PATH="$(BIN):$$PATH" sh examples/demo.sh demo

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
