# `make demo` and `make test` need Python 3.11 to 3.13 (with venv) and make; everything else is set up here.
PYTHON ?= python3
DURATION ?= 60
OUT ?= out/demo
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup setup-dev demo test check format soak lock clean
help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(VENV)/.core            ## make .venv with the command .venv/bin/gateway
setup-dev: $(VENV)/.dev         ## the same, with the tools that test and check

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' \
	  || { echo "Lamina needs Python 3.11 to 3.13; name one with: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@echo "setup: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setup: installing lamina-gateway (about 20 s the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "setup: installing the development tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup      ## bring up the demo site against its twins for DURATION seconds, then name the report
	@$(BIN)/gateway demo --duration $(DURATION) --out $(OUT)

test: setup-dev  ## run all tests
	@$(BIN)/python -m pytest -n 3

soak: setup-dev  ## run every scenario, whole and sabotaged, for hours: all faults, 72 h in lockstep, 1 h in real time
	@LAMINA_SOAK=1 $(BIN)/python -m pytest tests/bench/scenario
	@$(BIN)/gateway scenario run --out out/soak $$($(BIN)/gateway scenario list --names)

check: setup-dev ## format, lint, types, import graph
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_imports.py

format: setup-dev ## rewrite the sources in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup-dev  ## resolve constraints.txt anew, for every supported Python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header --no-emit-index-url \
	  pyproject.toml -o constraints.txt --upgrade

clean:           ## remove what make and the demo made
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
