# make demo   a search on the embedded digits, its front, and the web page    (SERVE=0 ends after the search)
# make test   linting, type checks and all tests, in 4 processes    (WORKERS=0 runs them one after the other in one)
# make setup  the environment that both share
# make bench  every case of the properties that make test samples, then our own speed against a baseline in the same run
# make faults kill -9 and other faults at random moments over small real studies, and their cost (KILLS=30)
# make lock   renew requirements.lock from pyproject.toml

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench faults lock clean browser

SERVE ?= 1
# Twice the cores that are there at least: tests also wait, for Ray, a browser, a lease.
WORKERS ?= 4
KILLS ?= 30
# A distribution's Python is built with profiles; those of version managers often are not, and take a tenth longer.
PYTHON ?= $(shell for python in /usr/bin/python3.11 python3.11 python3; do \
  $$python -c 'import ensurepip' 2>/dev/null && command -v $$python && exit; done; command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The stamp carries the lock file's content, so that a changed lock installs and an unchanged one does not.
LOCK_SUM := $(shell cat requirements.lock pyproject.toml | cksum | tr -s ' ' '-' | cut -d- -f1)
STAMP := $(VENV)/.installed-$(LOCK_SUM)

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1); set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "python -m venv failed; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "Installing the locked packages into $(VENV) (about 6 GB with torch; 2 to 5 minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@rm -f $(VENV)/.installed-*
	@touch $@

# Browser tests and PNG pictures need Chromium; all else works without it. Without windows it starts in half the time.
browser:
	@command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the browser tests"; \
	  { apt-get update -qq && name=$$(apt-cache show chromium-headless-shell >/dev/null 2>&1 && echo chromium-headless-shell || echo chromium) \
	    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$name fonts-dejavu-core; } >/dev/null \
	    || echo "Chromium could not be installed: browser tests and pictures will be skipped" >&2; \
	else \
	  echo "No Chromium: browser tests and pictures will be skipped; on Debian: sudo apt-get install chromium-headless-shell" >&2; \
	fi

demo: setup
	@$(BIN)/nas run studies/digits_quickstart.yaml
	@if [ "$(SERVE)" != 0 ]; then exec $(BIN)/nas serve; fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# Tests load each module in several processes, and in each command that they start: compiled once, it is read by all.
test: lint browser
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n $(WORKERS)

bench: setup
	env -u PYTHONDONTWRITEBYTECODE HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -m 'long or hypothesis' -n $(WORKERS)
	$(BIN)/python -m tests.benchmarks

faults: setup
	$(BIN)/python -m tests.faults --kills $(KILLS)

lock:
	rm -rf .make/lock && $(PYTHON) -m venv .make/lock
	.make/lock/bin/pip install --disable-pip-version-check --quiet setuptools wheel '.[cam,dev,s3]'
	@{ echo "# Exact versions of everything, made by 'make lock' on $$($(PYTHON) --version), Linux x86-64."; \
	  .make/lock/bin/pip freeze --exclude partialnet-nas --all | grep -v '^pip==' \
	  | sed -E '/^(nvidia-|cuda-|triton==)/ s/$$/ ; sys_platform == "linux" and platform_machine == "x86_64"/'; } > requirements.lock
	rm -rf .make/lock

clean:
	rm -rf .venv .make build *.egg-info .mypy_cache .ruff_cache .pytest_cache
