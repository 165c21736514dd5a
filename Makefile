# Two commands are enough: `make demo` and `make test`. Everything is built inside .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types wheel check clean

help:            ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "secagg needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Mend: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)   ## nine sites train one detector on this machine (ARGS='--rounds 3' to pass options)
	$(BIN)/secagg demo $(ARGS)

test: $(STAMP)   ## the fast tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-all: $(STAMP) ## every test, the slow ones too
	$(BIN)/python -m pytest -n 2 -m '' $(ARGS)

lint: $(STAMP)   ## ruff, layout and rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy --strict

wheel: $(STAMP)  ## build the wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --wheel --quiet

check: lint types test ## what CI runs before it builds the wheel

clean:           ## remove everything that make built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
