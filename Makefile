.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

PYTHON ?= python3
SEED ?= 1
BIN := .venv/bin
# Files in their order, not those of most tests first: the few tests of whole runs would come last, on one process.
TESTS := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/dev.stamp  ## Install everything, for users and developers, into .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	@touch $@ .venv/core.stamp

demo: .venv/core.stamp  ## Train a model that thinks in vectors, read its thoughts, write outputs/demo/report.html (SEED=1)
	$(BIN)/python -m latent_lab.train experiment=demo seed=$(SEED) name=demo-seed$(SEED)
	$(BIN)/python -m latent_lab.eval run=demo-seed$(SEED) task=thoughts out=outputs/demo-seed$(SEED)-thoughts overwrite=true
	$(BIN)/python -m latent_lab.eval run=demo-seed$(SEED) task=report task.thoughts=outputs/demo-seed$(SEED)-thoughts out=outputs/demo overwrite=true

test: setup  ## Run the tests
	$(TESTS)

check: setup  ## Lint, types and tests: what must be green before anything lands
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TESTS)

bench: .venv/core.stamp  ## Measure steps, decoding, evaluation, memory and start on this machine (about half an hour)
	$(BIN)/python -m latent_lab.bench

clean:  ## Remove caches and build leftovers; runs under outputs/ stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
