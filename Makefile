# Everything a user needs is `make compare` and `make test`; both work on a
# machine that has only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.synced
# A lock file would pin package-index addresses; bounds live in pyproject.toml.
SYNC := UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --extra dev --inexact

.PHONY: help compare test test-slow check format docs bench gpu clean

help:
	@echo "make compare  train priors x guides x objectives on digits, compare ELBO with evidence"
	@echo "make test     run the test suite, without what takes long"
	@echo "make test-slow  what takes long: compilers, kills, several processes, tutorials; CI runs a third"
	@echo "make check    lint, format check, types"
	@echo "make docs     the documentation as a site, its tutorials run, in build/site"
	@echo "make gpu      all that needs a CUDA device, in six minutes; without one it says so"
	@echo "make bench    speed ratios against Pyro, NumPyro, Pythae and the hardware's floor"

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pyrovae needs Python >= 3.11, got %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(STAMP): pyproject.toml $(UV)
	$(SYNC)
	@touch $@

compare: $(STAMP)
	$(BIN)/python inference/compare.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# mypy does not see packages mapped by an editable install: show it the tree as installed.
	rm -rf build/types && mkdir -p build/types/pyrovae
	ln -s $(CURDIR)/pyrovae/* build/types/pyrovae/
	ln -s $(CURDIR)/models $(CURDIR)/inference build/types/pyrovae/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p pyrovae

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(SYNC) --extra docs
	$(BIN)/python docs/site/build.py $(ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py $(ARGS)

gpu: $(STAMP)
	$(BIN)/python -m tests.gpu $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info uv.lock
