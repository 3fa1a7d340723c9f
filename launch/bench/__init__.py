"""The benchmark: the recipe by hand and the kit in turn on one machine, stage by stage.

``figures`` < ``table``; ``stopwatch``; ``sides`` < ``plan`` < ``running`` < ``command``.  ``weights`` is
the one module that imports torch, in a process of its own.
"""
