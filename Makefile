# Needs Python >= 3.11, make and git. Everything else goes into .venv of this checkout, made on demand.

VENV    := .venv
VENV313 := .venv-3.13
BIN     := $(VENV)/bin
# pyright looks for the environment on the path; its --verifytypes ignores --pythonpath.
PYRIGHT := PATH="$(CURDIR)/$(BIN):$$PATH" pyright

# The first that truly runs: a version manager may leave a python3.11 on the path that only prints an error.
PYTHON    ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
PYTHON313 ?= $(firstword $(foreach python,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13),\
               $(shell $(python) -c '' 2>/dev/null && echo $(python))))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-3.13 test-releases lint format types docs bench bench-smoke conformance clean

help: ## show this list
	@sed -n 's/^\([a-z0-9.-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo '  ARGS="..." goes to the program behind demo, test, bench and conformance'

# The frameworks come only when one is asked for: measured, they add half as much to the first `make demo`.
demo: $(VENV)/$(if $(findstring --framework,$(ARGS)),.demo,.package) ## see the gateway at work (ARGS=--once: one round, then stop; ARGS="--framework flask")
	$(BIN)/apigate demo $(ARGS)

test: $(VENV)/.dev ## unit, property, adapter and documentation tests, doctests
	$(BIN)/python -m pytest $(ARGS)

# What a server does does not depend on the Python that asks it, nor what comes of 100,000 random fields: tried on one.
ON_ONE := tests/workers tests/fuzz tests/conformance/test_over_http.py tests/properties/test_processes.py $(filter-out %_contract.py %_loops.py %_leases.py,\
            $(wildcard tests/stores/test_*.py))

test-3.13: ## the same on Python 3.13, where there is one, but for the faults of servers and the fuzz
	@$(if $(PYTHON313),\
	  $(MAKE) $(VENV313)/.test && $(VENV313)/bin/python -m pytest $(or $(ARGS),$(ON_ONE:%=--ignore=%)),\
	  echo 'test-3.13: SKIPPED, found no Python 3.13 that runs (make test-3.13 PYTHON313=/path/to/it)')

RELEASES := $(wildcard tests/releases/*.txt)

test-releases: $(RELEASES:tests/releases/%.txt=test-release-%) ## the adapters on older releases of their frameworks

test-release-fastapi-%: .venv-fastapi-%/.release
	$(<D)/bin/python -m pytest tests/fastapi $(ARGS)

test-release-%: .venv-%/.release
	$(<D)/bin/python -m pytest tests/flask tests/fastapi tests/django_project $(ARGS)

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev ## mypy, pyright, and 100 % typed public names
	$(BIN)/mypy src $(wildcard tests/typing)
	$(PYRIGHT)
	$(PYRIGHT) --ignoreexternal --verifytypes apigate

docs: $(VENV)/.dev ## the documentation, into docs/_build
	$(BIN)/sphinx-build --fail-on-warning --keep-going docs docs/_build

bench: $(VENV)/.dev ## benchmarks against floors and peers
	$(BIN)/python -m benchmarks $(ARGS)

bench-smoke: $(VENV)/.dev ## does every benchmark still run? Its figures mean nothing
	$(BIN)/python -m benchmarks --quick

conformance: $(VENV)/.dev ## the cache's scores on the public suite's cases, where those are (ARGS="--over-http --failing")
	$(BIN)/python -m tests.conformance $(ARGS)

clean: ## remove what make made
	rm -rf $(VENV) .venv-* docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis

# Stages of one environment, each a stamp: interpreter and pip, the package, the tools. --group needs pip 25.1.
define make-venv
@$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "apigate needs Python 3.11 or newer, $(1) is " + sys.version.split()[0] + "; say which: make PYTHON=/path/to/python3.11")'
$(1) -m venv $(@D)
$(@D)/bin/pip install --quiet --upgrade 'pip>=25.1'
@touch $@
endef

$(VENV)/.pip:
	$(call make-venv,$(PYTHON))

$(VENV)/.package: $(VENV)/.pip pyproject.toml
	$(BIN)/pip install --quiet --editable '.[server]'
	@touch $@

$(VENV)/.demo: $(VENV)/.package
	$(BIN)/pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	$(BIN)/pip install --quiet --group dev
	@touch $@

.PRECIOUS: .venv-%/.pip .venv-%/.release
.venv-%/.pip:
	$(call make-venv,$(PYTHON))

.venv-%/.release: .venv-%/.pip pyproject.toml tests/releases/%.txt
	$(@D)/bin/pip install --quiet --editable '.[server]' --group adapters --requirement tests/releases/$*.txt
	@touch $@

$(VENV313)/.pip:
	$(call make-venv,$(PYTHON313))

$(VENV313)/.test: $(VENV313)/.pip pyproject.toml
	$(VENV313)/bin/pip install --quiet --editable '.[server]' --group test
	@touch $@
