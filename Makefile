# `make demo` and `make test` set up all they need in .venv of this folder.
CHECK := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(CHECK)' 2>/dev/null && { echo $$p; break; }; done)
ifeq ($(OS),Windows_NT)
SCRIPTS := Scripts
else
SCRIPTS := bin
endif
BIN := .venv/$(SCRIPTS)

.PHONY: demo test coverage fuzz test-minimum check docs clean

demo: .venv/installed
	$(BIN)/calcarine demo --out runs/demo

test: .venv/test-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

# All tests, with the share of lines and branches that they run; fails below the floor in pyproject.toml.
coverage: .venv/test-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

# The tests on damaged files with many more of them, other ones each time.
FUZZ ?= 10000
FUZZ_SEED ?= $(shell date +%s)

fuzz: .venv/test-installed
	@echo "$(FUZZ) damaged files, seeds from $(FUZZ_SEED); repeat with: make fuzz FUZZ=$(FUZZ) FUZZ_SEED=$(FUZZ_SEED)"
	CALCARINE_FUZZ=$(FUZZ) CALCARINE_FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest -n 2 tests/fuzz

# A quarter of the tests, those that use most of the dependencies, with their lowest versions.
MINIMUM := $(addprefix tests/, \
  datasets/test_bids.py datasets/test_dataset_registry.py datasets/test_god.py \
  datasets/test_hcp.py datasets/test_nsd.py datasets/test_own.py datasets/test_prepare.py \
  diffusion experiment/test_slurm_jobs.py experiment/test_takagi2023.py features linear/test_cluster.py \
  linear/test_estimators.py visdec/test_published.py training reporting stimuli \
  study/test_analysis.py study/test_server.py)

test-minimum: .venv-minimum/installed
	.venv-minimum/$(SCRIPTS)/python -m pytest -n 2 --dist loadfile -o filterwarnings=default $(MINIMUM)

CODE := src tests scripts docs/conf.py docs/_site docs/tutorials

check: .venv/test-installed
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site; a warning, as of a link that leads nowhere, is an error.
docs: .venv/docs-installed
	$(BIN)/python -m sphinx -b html -W -n --keep-going -q docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

$(BIN)/python:
	@test -n "$(PYTHON)" || \
	  { echo "calcarine needs Python 3.11 or newer; call: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e .
	touch $@

.venv/test-installed: .venv/installed
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install -q -e '.[docs]'
	touch $@

.venv-minimum/installed: .venv/test-installed requirements-minimum.txt
	$(PYTHON) -m venv .venv-minimum
	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	file=requirements-minimum.txt; \
	if [ "$$version" != 3.11 ]; then \
	  file=.venv-minimum/requirements.txt; \
	  $(BIN)/python scripts/minimum_versions.py $$file --python $$version || exit 1; \
	fi; \
	.venv-minimum/$(SCRIPTS)/python -m pip install -q --no-deps -r $$file
	.venv-minimum/$(SCRIPTS)/python -m pip install -q --no-deps -e .
	$(BIN)/python scripts/minimum_versions.py --share-torch .venv .venv-minimum
	touch $@

clean:
	rm -rf .venv .venv-minimum build dist docs/_build docs/generated
