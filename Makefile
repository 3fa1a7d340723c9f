# Every target is one command of `python -m launch`; the Makefile only names them.
# `make` alone prints the help.

KIT := ./launch/kit.sh

# What stands on make's command line reaches the commands through the environment, OUT as LAUNCH_OUT, so that no
# value passes through a shell's quoting (make itself still expands a $ in them: write $$ for one).  What the
# environment holds under such a name is not the kit's; an exported LAUNCH_OUT is.  LAUNCH_MAKE names targets and
# variables (with =), for the commands to judge: which they take, launch/cli.py says.
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
$(foreach name,$(GIVEN),$(eval export LAUNCH_$(name:LAUNCH_%=%) := $$($(name))))
export LAUNCH_MAKE := $(MAKECMDGOALS) $(addsuffix =,$(GIVEN))

COMMANDS := all variant configs command evaluate train
COMMANDS += verify report package qdq bench compare
COMMANDS += third_party patches-check patch-edit patch-export
COMMANDS += bench-pipeline
COMMANDS += setup test test-long test-forks lint lock clean distclean

# A target that is none is a command's name to the kit, too, which knows the nearest.
TARGETS := help $(COMMANDS) $(filter-out help $(COMMANDS),$(MAKECMDGOALS))

.PHONY: $(TARGETS)
$(TARGETS):
	@$(KIT) '$@'
