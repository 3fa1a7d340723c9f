"""The benchmark: the recipe by hand and the kit in turn on one machine, stage by stage.

``figures`` < ``table``; ``stopwatch``; ``sides`` < ``plan`` < ``running`` < ``command``.  ``weights`` and
``floor`` alone import torch, each in a process of its own.
"""
