# Every target is one command that can be typed as well; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
ENV ?= staging
VERSION ?= 1.0.0
YES ?=

venv_python := .venv/bin/python
local := $(or $(RELEASE_LOCAL),.local)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help up down clean shell test test-unit test-static test-e2e venv venv-tests python

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: ENV=staging VERSION=1.0.0 (up, shell), YES=1 (clean: do not ask), PYTHON=python3 (venv)"

up: venv ## Release VERSION to ENV, with tools, cluster and images made where they are missing
	@$(venv_python) -m tools.up --environment '$(ENV)' --version '$(VERSION)'

down: venv ## Stop the embedded cluster, keep its data
	@$(venv_python) -m tools.teardown down

clean: ## Remove the embedded cluster, its data and all local state (.venv stays)
	@if [ -e '$(local)' ] || [ -x '$(venv_python)' ]; then $(MAKE) --no-print-directory venv && $(venv_python) -m tools.teardown clean $(if $(YES),--yes); \
	else echo 'nothing to remove: there is no $(local)'; fi

shell: venv ## Open a shell in which plain `pulumi`, `kubectl` and `release` work on ENV
	@variables="$$($(venv_python) -m tools.environment --stack '$(ENV)')" && eval "$$variables" \
	&& echo 'Try: pulumi preview -s $(ENV) · release status $(ENV) · kubectl get pods -A · exit' && exec "$${SHELL:-bash}"

test: venv-tests ## Run every check: static, unit, end to end (minutes per tier at the end)
	@$(venv_python) -m tools.check

test-unit: venv-tests ## Run the unit and policy tests (under a minute)
	@$(venv_python) -m tools.check unit

test-static: venv-tests ## Run ruff, mypy and import-linter
	@$(venv_python) -m tools.check static

test-e2e: venv-tests ## Run the end-to-end tests on the embedded cluster
	@$(venv_python) -m tools.check e2e

venv: python ## Make .venv with what releases need
	@$(PYTHON) -m tools.virtualenv

venv-tests: python ## Make .venv with what the tests need as well
	@$(PYTHON) -m tools.virtualenv --tests

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is not: install one and name it, like make PYTHON=python3.12 up" >&2; exit 1; }
