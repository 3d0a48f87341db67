# `make demo` and `make test` do all the set-up themselves: a virtual environment in .venv, and the package in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Without setuptools' advice on editable installations.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo demo-embeddings test test-lowest test-colab test-newest notebook bench kills docs wheel lint format clean

$(VENV)/.installed: pyproject.toml setup.py
	@echo "installing bert_emd_jax into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@$(PIP) -e .
	@touch $@

UV := .venv-uv/bin/uv
$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv

# torch first, by pip: transformers would bring one with gigabytes of CUDA. The rest by uv, which resolves it in seconds.
$(VENV)/.installed-test: $(VENV)/.installed $(UV)
	$(PIP) "torch==$(TORCH)"
	$(UV) pip install --quiet --python $(BIN)/python -e ".[test,lint]"
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --target $(VENV)/sentence-transformers-3.0 "sentence-transformers==3.0.1"
	touch $@

TORCH ?= 2.13.0

# SMOKE=1: a few hundred rows, under two minutes; FULL=1: all rows, twice as long. On Linux, large pages of memory spare a CPU time in every step.
LARGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1
demo: $(VENV)/.installed
	@$(LARGE_PAGES) $(BIN)/bert-emd demo $(if $(SMOKE),--smoke) $(if $(FULL),--full)

demo-embeddings: $(VENV)/.installed
	@$(LARGE_PAGES) $(BIN)/bert-emd demo-embeddings $(if $(SMOKE),--smoke)

# The notebook is run where its readers run it: on Colab's stack, by `make test-colab`.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/test_notebook.py

# The stacks that users have, without torch: `make test-lowest` with the oldest packages that pyproject.toml allows,
# `make test-colab` with those of constraints/colab.txt, `make test-newest` with the newest that the Python takes.
# Quick tests of what JAX, Flax and Orbax do, and a training from files to a converted student; in Colab's also the
# notebook and TensorFlow Datasets, with the oldest also what other packages read. PYTHON=python3.13 chooses the Python.
JAX_TESTS := $(addprefix tests/models/test_,dropout.py encoder_config.py initialization.py) \
	tests/devices/test_precision.py tests/devices/test_donation.py $(addprefix tests/training/test_,checkpoints.py optimizer.py) \
	$(addprefix tests/transport/test_,costs.py layer_weights.py mappings.py names.py) \
	tests/test_api.py tests/commands/test_programs.py::test_finetune_distill_evaluate_and_convert
FAST_TESTS := $(JAX_TESTS) tests/tokenization tests/data tests/encoding \
	$(addprefix tests/commands/test_,help.py packaging.py) tests/devices/test_accelerators.py \
	tests/distillation/test_presets.py tests/test_local_paths.py tests/test_buckets.py

# tensorflow-metadata, which tensorflow-datasets brings, needs a newer protobuf than it says.
STACK_lowest := --resolution lowest-direct "protobuf>=6.31.1"
STACK_colab := --constraint constraints/colab.txt
STACK_newest := --upgrade
# Its JAX is Colab's, whose stack has these tests.
TESTS_lowest := $(filter-out tests/models/% tests/transport/% tests/devices/test_precision.py tests/devices/test_donation.py,$(FAST_TESTS))
TESTS_colab := $(JAX_TESTS) tests/test_notebook.py tests/data/test_tfds_source.py
TESTS_newest := $(filter-out tests/training/% tests/models/%,$(JAX_TESTS)) tests/training/test_checkpoints.py

.venv-lowest/.installed .venv-colab/.installed .venv-newest/.installed: .venv-%/.installed: pyproject.toml $(UV)
	UV_PYTHON_DOWNLOADS=never $(UV) venv --quiet --clear --seed --python $(PYTHON) .venv-$*
	$(UV) pip install --quiet --python .venv-$*/bin/python $(STACK_$*) .
	$(UV) pip install --quiet --python .venv-$*/bin/python $(filter-out --resolution lowest-direct --upgrade,$(STACK_$*)) -e ".[test-fast]"
	touch $@

test-lowest test-colab test-newest: test-%: .venv-%/.installed
	.venv-$*/bin/python -m pytest -n 2 --dist worksteal $(TESTS_$*)

# Half an hour. The outputs that the notebook is committed with, from Colab's stack (`make test-colab` makes it).
notebook:
	JAX_PLATFORMS=cpu .venv-colab/bin/python examples/refresh_notebook.py

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(PIP) -e ".[bench]"
	touch $@

# About ten minutes. The throughput, latency and study programs in benchmarks/ have lines of their own there.
bench: $(VENV)/.installed-bench
	NETWORK_SIMPLEX_PROBLEMS=10000 $(BIN)/python -m pytest -n 2 tests/transport/test_simplex.py
	$(BIN)/python benchmarks/transport.py

# Half an hour: kills training runs at random moments and compares what the resumed ones leave; several hosts.
kills: $(VENV)/.installed-test
	KILLS=50 $(BIN)/python -m pytest tests/commands/test_kills.py tests/test_examples.py tests/devices/test_hosts.py

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	touch $@

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.installed
	rm -rf dist
	$(PIP) build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-uv .venv-lowest .venv-colab .venv-newest build dist site
