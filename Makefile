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

COMMANDS := all variant configs command evaluate
COMMANDS += verify report package compare
COMMANDS += third_party patches-check patch-edit patch-export
COMMANDS += bench-pipeline
COMMANDS += setup test test-forks test-fast lint lock clean distclean

.PHONY: help $(COMMANDS)
help $(COMMANDS):
	@$(KIT) $@
