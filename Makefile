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
export LAUNCH_SOURCE := $(SOURCE)
export LAUNCH_FAST := $(FAST)
export LAUNCH_MIRROR := $(MIRROR)
export LAUNCH_P := $(P)
export LAUNCH_A := $(A)
export LAUNCH_B := $(B)
export LAUNCH_LEVEL := $(LEVEL)
export LAUNCH_MO := $(MO)
export LAUNCH_TO := $(TO)
export LAUNCH_FORMAT := $(FORMAT)
export LAUNCH_SIZE := $(SIZE)
export LAUNCH_REPEAT := $(REPEAT)

.PHONY: help
help:
	@$(KIT) help

.PHONY: all variant configs command evaluate compare setup clean distclean
all variant configs command evaluate compare setup clean distclean:
	@$(KIT) $@

.PHONY: verify report package
verify report package:
	@$(KIT) $@

.PHONY: bench-pipeline
bench-pipeline:
	@$(KIT) $@

.PHONY: third_party patches-check patch-edit patch-export
third_party patches-check patch-edit patch-export:
	@$(KIT) $@

# The tests run on the registry's releases, also where the submodules are checked out.
test test-fast test-forks: export LAUNCH_SOURCE := registry
test test-fast test-forks: export LAUNCH_FAST := 1
test test-fast: export LAUNCH_MO := 2021.4

.PHONY: test
test: setup
	@.venv/bin/python -m pytest -m "not forks"

.PHONY: test-forks
test-forks: setup third_party
	@.venv/bin/python -m pytest -m forks

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
