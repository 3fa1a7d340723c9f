"""The kit: a VS Code launch configuration goes in, an artifact tree comes out.

Floors, from the bottom; a module imports only from floors below its own:

0. ``errors``, ``variants``, ``paths``, ``files``, ``locks``, ``digests``, ``status``, ``progress``,
   ``json_file``, ``jsonc``, ``git``, ``checkpoint``: names, dimensions, folders, the error a user sees,
   tools that know nothing of the rest.
1. ``vscode`` < ``rewrite``; ``interpreters`` and ``steps`` and ``installer`` < ``environment`` <
   ``optimizers``; ``third_party`` and ``patches`` < ``patch_work``; ``source`` < ``source_fork`` and
   ``source_registry`` < ``sources`` and ``source_rules`` < ``upstream``; ``squad``, ``bert_config`` <
   ``inputs`` and ``resources``; ``child`` < ``convert``; ``sparsity`` < ``trees``; ``onnx_model`` <
   ``onnx_diff`` < ``compare``: one job each.
2. ``jobs`` < ``pipeline``: one variant from launch configuration to published tree.
3. ``__main__``: the commands.

``launch.qa`` is the program that a launch configuration starts.  It is the only part that imports torch,
and it imports it late: everything else answers without it.
"""
