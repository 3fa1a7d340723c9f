"""What a person may choose from.

The words alone: help shows them without loading the modules that act on them, which take them from here.
"""

INPUTS = ("sample", "files", "hub")
"""``INPUT=``: what a run reads; :mod:`launch.inputs`."""

WEIGHTS = ("random",)
"""``WEIGHTS=``: what an evaluation has in place of the model folder's; :mod:`launch.checkpoint`."""

SOURCES = ("auto", "fork", "registry")
"""``SOURCE=``: where NNCF and transformers come from; :mod:`launch.source`."""

OPTIMIZERS = ("2022.1", "2021.4")
"""``MO=``: Model Optimizer's version; :mod:`launch.optimizers`."""

LEVELS = ("bytes", "weights", "structure")
"""``LEVEL=``: senses of "same", the strictest first; :mod:`launch.compare`."""

FORMATS = ("folder", "tar")
"""``FORMAT=``: what a package is; :mod:`launch.package`."""

IGNORE_MEMORY = "LAUNCH_IGNORE_MEMORY"
"""The environment variable that starts a run which would not fit into memory; :mod:`launch.resources`."""
