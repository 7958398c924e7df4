SHELL = /bin/bash
.SHELLFLAGS = -e -o pipefail -c
PYTHON ?= python3
BIN = .venv/bin

.PHONY: help run test lint bench bench-checker bench-usage screenshots venv

help: ## this list
	@sed -n 's/^\([a-z%-]*\):.*## /  make \1\t/p' Makefile

run: .venv/installed ## Kafka, PostgreSQL and all services on this machine, until Ctrl-C (CHECKERS=3 COMMAND_APIS=2 for more)
	@exec $(BIN)/python -m services.embedded

test: lint ## lint, then every test: unit, integration, end to end (PYTEST_ARGS=… is passed on)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/installed ## ruff, mypy and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_house_rules.py

prove-%: .venv/installed ## the full form of the heavy test test_NAME.py; what it printed is kept in docs/measured/NAME.txt
	@mkdir -p var
	@{ echo "commit $$(git describe --always --dirty), $$(date -u +%F), $$(nproc) cores, $$(uname -sr), $$($(BIN)/python --version)"; \
	   KEYLEDGER_FULL=1 $(BIN)/python -m pytest -s -q tests/*/test_$*.py; } 2>&1 | tee var/prove-$*.txt
	@mv var/prove-$*.txt docs/measured/$*.txt

bench: .venv/installed ## what Keyledger does per second here, beside others
	$(BIN)/python -m benchmarks

bench-checker: .venv/installed ## validations per second of our checker beside other servers, in one run (needs wrk, Go, Node)
	$(BIN)/python -m benchmarks checker

bench-usage: .venv/installed ## uses per second into PostgreSQL beside other ways, from a validation to the screen, the cost of counting (needs wrk)
	$(BIN)/python -m benchmarks usage

screenshots: .venv/installed ## each page of the console, light and dark, into var/screenshots/, and those of the README (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

venv: .venv/installed ## the virtual environment, with exactly the pinned packages

.venv/installed: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Keyledger needs Python 3.11 or newer: make PYTHON=python3.13 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
