# What CI runs is `make check`. Every target makes the environment it needs.
PYTHON ?= python3
# WHEEL=1: with the built package installed, as users have it, in place of this tree.
ifdef WHEEL
VENV   ?= .venv-wheel
else
VENV   ?= .venv
endif
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# ARGS are handed to pytest: make test ARGS=tests/live, ARGS=-rxs
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: setup demo test fast lint check format coverage hosts-table bench fuzz soak clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Bide needs Python 3.11 or later, this is " + sys.version.split()[0] + ": set PYTHON=python3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# The marker files stand for "this environment holds these extras, as pyproject.toml asks now".
ifdef WHEEL
$(VENV)/.installed-%: pyproject.toml $(shell find src plugins -name '*.py') | $(BIN)/python
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PIP) install --force-reinstall --no-deps dist/bide-*.whl
	$(PIP) install "$$(echo dist/bide-*.whl)[$*]"
	@touch $@
else
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[$*]'
	@touch $@
endif

setup: $(VENV)/.installed-check  ## the environment for working on Bide

demo: $(VENV)/.installed-demo  ## serve the demo on http://127.0.0.1:8000
	$(BIN)/bide examples.demo.app:app --bind 127.0.0.1:8000 --threads 4

test: $(VENV)/.installed-test  ## every test, in minutes
	$(PYTEST) $(ARGS)

fast: $(VENV)/.installed-test  ## most tests, in half a minute: none of other people's servers, none of processes
	$(PYTEST) -m 'not slow' $(ARGS)

lint: setup  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## all that has to pass

format: setup  ## rewrite the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/.installed-coverage  ## every test; which branches of src/bide none of them takes; Python 3.12 or later
	$(BIN)/python -c 'import sys; sys.version_info >= (3, 12) or sys.exit("make coverage needs Python 3.12 or later, for 3.11 traces a greenlet that ends with its thread for ever: set VENV=.venv-3.12 PYTHON=python3.12")'
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist worksteal --timeout=300 $(ARGS); \
	status=$$?; $(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$status

hosts-table: $(VENV)/.installed-hosts  ## measure what other people's servers do, for docs/hosts.md
	$(BIN)/python -m tests.hosts.tables

bench: $(VENV)/.installed-bench  ## measure Bide beside its peers; needs wrk, a C compiler, libev-dev
	$(BIN)/python -m benchmarks

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.installed-fuzz  ## look for what breaks a property, or a target of tests/fuzz, each so long
	$(BIN)/python -m pytest --hypothesis-profile=search --timeout=0 tests/properties
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

soak: $(VENV)/.installed-soak  ## a million requests, and nothing may grow; SOAK_REQUESTS, SOAK_DEPARTURES
	$(BIN)/python -m soak

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
