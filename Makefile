# `make demo` and `make test` set up all they need in .venv of this folder.
CHECK := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(CHECK)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: demo test check clean

demo: .venv/installed
	$(BIN)/calcarine demo --out runs/demo

test: .venv/test-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/test-installed
	$(BIN)/ruff check src tests scripts
	$(BIN)/ruff format --check src tests scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	@test -n "$(PYTHON)" || \
	  { echo "calcarine needs Python 3.11 or newer; call: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e .
	touch $@

.venv/test-installed: .venv/installed
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@

clean:
	rm -rf .venv build dist
