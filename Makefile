# `make` alone prints the targets.
.DEFAULT_GOAL := help
.PHONY: help demo test check slow chaos schema clean
SHELL := /bin/bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := OMP_NUM_THREADS=2 $(PY) -m pytest
# Two workers of one thread each. A file's tests stay in one worker, in their order, as they share fixtures. ARGS="-n 0" runs one process.
PARALLEL := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
INSTALL_INPUTS := pyproject.toml constraints.txt

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-torch ## install the base and [torch], annotate the embedded sample on a local Ray
	$(VENV)/bin/preln demo

test: $(VENV)/.installed-dev ## run the tests (not those marked slow or chaos) in two workers; ARGS= goes to pytest
	$(PARALLEL) $(ARGS)

check: $(VENV)/.installed-dev ## formatting, lint, types, import rules
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

slow: $(VENV)/.installed-dev ## run the tests marked slow: minutes and gigabytes
	$(PYTEST) -m slow --timeout 1800 $(ARGS)

chaos: $(VENV)/.installed-dev ## run the tests marked chaos: processes killed and stopped, connections broken
	$(PYTEST) -m chaos --timeout 3600 $(ARGS)

schema: $(VENV)/.installed-dev ## write docs/jobspec.schema.json and docs/events.schema.json again
	$(PY) -m pipeline.spec > docs/jobspec.schema.json
	$(PY) -m jobs.events > docs/events.schema.json

clean: ## remove caches and demo output; the virtual environment stays
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis demo-output *.egg-info build
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

$(PY):
	$(PYTHON) -c 'import sys; sys.exit("preln needs Python 3.11 or newer, this is %s; set PYTHON=" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# [dev] contains [torch]: after it, the demo needs no install of its own.
$(VENV)/.installed-torch: $(INSTALL_INPUTS) | $(PY)
	$(INSTALL) -e '.[torch]'
	@touch $@

$(VENV)/.installed-dev: $(INSTALL_INPUTS) | $(PY)
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed-torch $@
