# `make demo` and `make test` do all the set-up themselves: a virtual environment in .venv, and the package in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bench kills docs lint format clean

$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

# torch first and pinned: left to transformers, pip would choose a build with gigabytes of CUDA.
$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,lint]"
	touch $@

TORCH ?= 2.13.0

# SMOKE=1: a few hundred rows, under two minutes.
demo: $(VENV)/.installed
	$(BIN)/python -m bert_emd_jax.commands.demo $(if $(SMOKE),--smoke)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	touch $@

# About ten minutes. The throughput, latency and study programs in benchmarks/ have lines of their own there.
bench: $(VENV)/.installed-bench
	NETWORK_SIMPLEX_PROBLEMS=10000 $(BIN)/python -m pytest -n 2 tests/transport/test_network_simplex.py
	$(BIN)/python benchmarks/transport.py

# Half an hour: kills training runs at random moments and compares what the resumed ones leave.
kills: $(VENV)/.installed-test
	KILLS=50 $(BIN)/python -m pytest tests/commands/test_kills.py

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
