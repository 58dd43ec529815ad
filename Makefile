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
# Where `make demo` listens.
PORT   ?= 8000
# ARGS are handed on: make test ARGS=tests/live, ARGS=-rxs; make bench ARGS='--only hello --quick'
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

# Each of thousands of processes would compile all of its modules.
unexport PYTHONDONTWRITEBYTECODE
# What is imported is compiled then; most of what is installed never is.
export PIP_COMPILE := 0

.PHONY: setup demo docs test fast test-tls test-http2 test-engines compiled test-compiled test-wheels lint check format coverage hosts-table comparison bench fuzz soak clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Bide needs Python 3.11 or later, this is " + sys.version.split()[0] + ": set PYTHON=python3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# The marker files stand for "this environment holds these extras, as pyproject.toml asks now". Some extras
# have that of the tests in them.
INSTALLED = @touch $@ $(if $(filter check hosts engines,$*),$(VENV)/.installed-test)
ifdef WHEEL
$(VENV)/.wheel: pyproject.toml hatch_build.py $(shell find src plugins -name '*.py' -o -name '*.pyx') | $(BIN)/python
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PIP) install --force-reinstall --no-deps dist/bide-*.whl
	@touch $@

$(VENV)/.installed-%: $(VENV)/.wheel
	$(PIP) install 'bide[$*]'
	$(INSTALLED)
else
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[$*]'
	$(INSTALLED)
endif

setup: $(VENV)/.installed-check  ## the environment for working on Bide

demo: $(VENV)/.installed-demo  ## serve the demo on http://127.0.0.1:8000; make demo PORT=9000
	$(BIN)/bide examples.demo.app:app --bind 127.0.0.1:$(PORT) --threads 4

docs: $(VENV)/.installed-docs  ## the pages as a site, in site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

test: $(VENV)/.installed-test  ## every test, in minutes
	$(PYTEST) $(ARGS)

fast: $(VENV)/.installed-test  ## most tests, in half a minute: none of other people's servers, none of processes
	$(PYTEST) -m 'not slow' $(ARGS)

# Without those whose clients begin in clear: a PROXY header, and a connection that is refused before TLS.
test-tls: $(VENV)/.installed-test  ## the contract's tests over TLS
	TEST_OVER_TLS=1 $(PYTEST) tests/contract --ignore tests/contract/test_proxies.py \
		--ignore tests/contract/test_clients_limits.py $(ARGS)

# What is of HTTP/1 alone is left out, by name: see tests/contract/http1_alone.py.
test-http2: $(VENV)/.installed-test  ## the contract's tests over HTTP/2
	TEST_OVER_HTTP2=1 $(PYTEST) tests/contract $(ARGS)

# Never beside the sources, where it would hide what is changed in them.
COMPILED := BIDE_COMPILE=1 $(MAKE) WHEEL=1 VENV=.venv-compiled

compiled:  ## the compiled form, built as a wheel and installed in .venv-compiled; needs a C compiler
	$(COMPILED) .venv-compiled/.installed-test

test-compiled:  ## every test, of the compiled form
	$(COMPILED) test

PYTHONS ?= $(PYTHON)
test-wheels:  ## what a release uploads, in fresh environments: make test-wheels PYTHONS='python3.11 python3.13'
	$(PYTHON) tests/packaging/fresh.py $(ARGS) $(PYTHONS)

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

# Django's tasks come with Django 6, which needs Python 3.12: one that is there, unless PYTHON is given.
ENGINES_PYTHON = $(or $(if $(filter file,$(origin PYTHON)),$(shell for each in python3.13 python3.12; do \
	$$each -c '' 2>/dev/null && echo $$each && break; done)),$(PYTHON))

# In an environment of their own: what they bring along could be taken for what the tests need.
test-engines:  ## the tests with other people's engines: Dask, Celery with a Redis server, Ray, Django's tasks
	$(MAKE) VENV=.venv-engines PYTHON=$(ENGINES_PYTHON) .venv-engines/.installed-engines
	.venv-engines/bin/python -m pytest tests/engines $(ARGS)

hosts-table: $(VENV)/.installed-hosts  ## measure what other people's servers do, for docs/hosts.md
	$(BIN)/python -m tests.hosts.tables

comparison: $(VENV)/.installed-hosts  ## measure what servers do under stress, for docs/comparison.md; minutes
	$(BIN)/python -m tests.hosts.compare

bench: $(VENV)/.installed-bench  ## measure Bide, compiled and pure, beside its peers; needs wrk, a C compiler, libev-dev
	$(BIN)/python -m benchmarks $(ARGS)

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.installed-fuzz  ## look for what breaks a property, or a target of tests/fuzz, each so long
	$(BIN)/python -m pytest --hypothesis-profile=search --timeout=0 tests/properties
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

soak: $(VENV)/.installed-soak  ## a million requests, and nothing may grow; SOAK_REQUESTS, SOAK_DEPARTURES
	$(BIN)/python -m soak

clean:
	rm -rf $(VENV) dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
