"""The kit: a VS Code launch configuration goes in, an artifact tree comes out.

Floors, from the bottom; a module imports only from floors below its own:

0. ``errors``, ``variants``, ``paths``: names, dimensions, folders, the error a user sees.
1. ``vscode``, ``environment``, ``sources``, ``inputs``, ``convert``, ``sparsity`` …: one job each.
2. ``pipeline``: one variant from invocation to published tree.
3. ``__main__``: the commands.

``launch.qa`` is the program that a launch configuration starts.  It is the only part that imports torch,
and it imports it late: everything else answers without it.
"""
