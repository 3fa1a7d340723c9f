# Every target is one command of `python -m launch`; the Makefile only names them.
# `make` alone prints the help.

KIT := ./launch/kit.sh

# Variables reach the commands through the environment, so that no value passes through a shell's quoting
# (make itself still expands a $ in them: write $$ for one).
export LAUNCH_V := $(V)
export LAUNCH_OUT := $(OUT)
export LAUNCH_INPUT := $(INPUT)
export LAUNCH_MODEL := $(MODEL)
export LAUNCH_TRAIN_FILE := $(TRAIN_FILE)
export LAUNCH_VALIDATION_FILE := $(VALIDATION_FILE)
export LAUNCH_SEED := $(SEED)
export LAUNCH_LAUNCH := $(LAUNCH)
export LAUNCH_PYTHON := $(PYTHON)
export LAUNCH_EXPLAIN := $(EXPLAIN)

.PHONY: help
help:
	@$(KIT) help

.PHONY: all variant configs command evaluate setup clean distclean
all variant configs command evaluate setup clean distclean:
	@$(KIT) $@

.PHONY: test
test: setup
	@.venv/bin/python -m pytest -m "full_size or not full_size"

.PHONY: test-fast
test-fast: setup
	@.venv/bin/python -m pytest

.PHONY: lint
lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

.PHONY: lock
lock: setup
	@./launch/env/lock.sh
