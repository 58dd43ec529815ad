# What CI runs is `make check`. Every target makes the environment it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test check format bench fuzz soak clean

# The marker files stand for "this environment holds these extras, as pyproject.toml asks now".
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Bide needs Python 3.11 or later, this is " + sys.version.split()[0] + ": set PYTHON=python3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

setup: $(VENV)/.installed-check  ## the environment for working on Bide

demo: $(VENV)/.installed-demo  ## serve the demo on http://127.0.0.1:8000
	$(BIN)/bide examples.demo.app:app --bind 127.0.0.1:8000 --threads 4

test: $(VENV)/.installed-test  ## every test
	$(BIN)/python -m pytest

check: setup  ## format, lint, types, tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: setup  ## rewrite the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench  ## measure Bide beside its peers; needs wrk, a C compiler, libev-dev
	$(BIN)/python -m benchmarks

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.installed-fuzz  ## look for what breaks a property, or a target of tests/fuzz, each so long
	$(BIN)/python -m pytest --hypothesis-profile=search --timeout=0 tests/properties
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

soak: $(VENV)/.installed-soak  ## a million requests, and nothing may grow; SOAK_REQUESTS, SOAK_DEPARTURES
	$(BIN)/python -m soak

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
