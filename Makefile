# Two commands: `make repro` runs the pipeline, `make test` checks this project. Both create their own environment.
PYTHON ?= python3
VENV := .venv
# Not compiled: Python compiles the modules that it imports, while pip would compile all that it installs.
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# dvc starts `python`: do not inherit the caller's Python settings.
unexport PYTHONHOME
unexport PYTHONPATH
# Bytecode is kept: without it every process compiles anew all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help repro test test-heavy test-extended test-torch lint lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

repro: $(VENV)/.run ## run the pipeline: export, quantize, parity, bench, and the gate that decides
	dvc repro

test: lint ## lint, type-check and test
	python -m pytest -n 3 -m "not torch and not extended" $(PYTEST_ARGS)

test-extended: $(VENV)/.dev ## test the examples end to end, and the export under twenty hash seeds
	python -m pytest -n 3 -m extended $(PYTEST_ARGS)

test-torch: $(VENV)/.torch ## test what needs PyTorch, which this installs: 1 GB or more
	python -m pytest -n 2 -m torch $(PYTEST_ARGS)

test-heavy: $(VENV)/.torch ## run test-extended and test-torch in one session, as CI does
	python -m pytest -n 3 -m "extended or torch" $(PYTEST_ARGS)

lint: $(VENV)/.dev
	ruff check .
	ruff format --check .
	mypy

lock: ## compile pyproject.toml into the hash-pinned requirements
	@command -v uv > /dev/null || \
	    { echo "Error: make lock needs uv, which is not among the requirements. Install it: pip install uv" >&2; exit 1; }
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --group dev pyproject.toml \
	    -c requirements.txt -o requirements-dev.txt

clean: ## remove the environment and the caches of the tools; models and metrics stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Error: $(PYTHON) is not Python 3.11 or newer. Install one, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Creating $(VENV) and installing pinned dependencies: a minute or two."
	@$(PYTHON) -m venv $(VENV)

# One stamp per set of pins: a changed pin is installed again, an unchanged one costs nothing.
# Your model's packages (models/requirements.txt) must agree with ours: pip refuses those that do not, with both names.
$(VENV)/.run: requirements.txt models/requirements.txt .ci/elsewhere.py | $(VENV)/bin/python
	@$(PIP_INSTALL) --require-hashes -r requirements.txt
	@$(VENV)/bin/python -m pip freeze --quiet > $(VENV)/.pins
	@$(PIP_INSTALL) -r models/requirements.txt -c $(VENV)/.pins
	@cp .ci/elsewhere.py "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/stages.py"
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@touch $@

# Not hash-pinned: which build of PyTorch there is depends on the platform.
$(VENV)/.torch: requirements-torch.txt $(VENV)/.dev
	@$(PIP_INSTALL) -r requirements-torch.txt
	@touch $@
