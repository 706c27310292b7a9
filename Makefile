# `make run` and `make test` are all there is to know; `make help` lists the rest.
# Needs make and a Python 3.11 to 3.13. Another one: make run PYTHON=/path/to/python3.12

NAMES := python3.13 python3.12 python3.11 python3 python
# A name on the path may not work (a shim of a version that is not active) or lack venv: each is tried.
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in $(NAMES); do \
	"$$name" -c '$(USABLE)' >/dev/null 2>&1 && echo "$$name" && break; done)

# glibc gives large arrays back to the system at every step; huge pages make that a sixth cheaper. Others ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
INSTALLED := .venv/.installed
TESTABLE := .venv/.installed-test
SEEDS := 0 1 2
FULL := $(SEEDS:%=runs/full/seed%)

.DEFAULT_GOAL := help
.PHONY: help install run test slow full base clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## make .venv with the package in it; the targets below do this by themselves

run: $(INSTALLED)  ## the whole paper on the embedded task; prints the table and where the page lies
	$(BIN)/glore run --config=configs/arithmetic.py --workdir=runs/arithmetic

test: $(TESTABLE)  ## lint, types, floors of the house, and the tests with the small pipeline
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

slow: $(TESTABLE)  ## the long proofs that `make test` leaves out
	$(BIN)/pytest -m slow

full: $(INSTALLED)  ## every claim at full size, seeds 0, 1 and 2, and their pooled table
	for seed in $(SEEDS); do \
	  $(BIN)/glore run --config=configs/arithmetic.py:full --workdir=runs/full/seed$$seed --config.seed=$$seed \
	    || exit $$?; \
	done
	$(BIN)/glore report $(FULL)

base: $(INSTALLED)  ## make the base model that the package ships, from nothing
	$(BIN)/glore run --config=configs/arithmetic_base.py --workdir=runs/base
	@echo "The base model: runs/base/base_model (docs/base_model.md says how to use it)"

clean:  ## remove .venv and everything that was built; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are made last, so an installation that was cut short is done again.
$(INSTALLED): setup.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  python="$(PYTHON)"; \
	  "$$python" -c '$(USABLE)' >/dev/null 2>&1 || { \
	    echo "error: $${python:-none of $(NAMES)} is not a working Python 3.11, 3.12 or 3.13 with venv." >&2; \
	    echo "Install one (on Debian and Ubuntu also its python3-venv), or name one: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; }; \
	  echo "Making .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv; }
	@echo "Installing glore_jax into .venv (a minute or two, this once)"
	@$(PIP) --editable .
	@touch $@

$(TESTABLE): setup.py $(INSTALLED)
	@echo "Installing the test tools into .venv (a minute or two, this once)"
	@$(PIP) --editable '.[test]'
	@touch $@
