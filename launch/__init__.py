"""The kit: a VS Code launch configuration goes in, an artifact tree comes out.

Floors, from the bottom; a module imports only from floors below its own:

0. ``hidden`` < ``errors``, ``variants``, ``paths``, ``files``, ``locks``, ``digests``,
   ``status``, ``progress`` < ``stamp``, ``requirements``, ``json_file`` < ``metric``, ``schema_check``,
   ``jsonc``, ``git``, ``host``, ``place``, ``sums`` < ``checkpoint``: names, dimensions, folders, the error
   a user sees, tools that know nothing of the rest.
1. ``vscode`` < ``rewrite``; ``interpreters`` and ``installer``, and ``child`` < ``steps``, < ``environment`` <
   ``optimizers``; ``git`` < ``third_party`` and ``patches`` < ``patch_commits`` <
   ``patch_work`` and ``source``; ``child`` and ``environment`` < ``hub``, which runs ``hub_client``;
   ``squad``, ``bert_config`` < ``model_folder``, and ``hub``, < ``inputs``; ``bert_config`` < ``resources``
   and ``spec``; ``rewrite`` < ``surroundings`` and ``child`` < ``convert``;
   ``onnx_outline`` < ``sparsity`` < ``trees`` and ``onnx_model``, < ``onnx_diff``: one job each.
2. ``jobs`` < ``startable`` and ``program``, and ``provenance`` < ``verify`` and ``outcome``, < ``pipeline``:
   one variant from launch configuration to published tree.  In ``launch.verify``: ``checks`` < ``onnx_file``,
   ``ir`` and ``degeneracy`` < ``tree`` < ``text``.
3. ``report``, ``archive`` < ``package``, beside ``pipeline``: what is known of published trees.  In
   ``launch.report``: ``tree`` < ``table`` < ``page`` < ``command``.  ``bench``, above ``pipeline``: what a
   run takes, beside the recipe by hand; in it ``figures`` < ``table``, ``sides`` < ``plan`` < ``running`` <
   ``command``.
4. ``other_jobs`` < ``cli`` < ``__main__``: the commands.  ``cli`` imports what a command needs when it runs.

``launch.qa`` is the program that a launch configuration starts.  It is the only part that imports torch,
and it imports it late: everything else answers without it.
"""
