"""Verification: what a tree must be, measured from its files.

Floors, from the bottom: ``checks`` (what a check says), ``leaks``; ``runtime`` (OpenVINO) and ``ir_xml``;
``measuring`` (a process of its own for what takes gigabytes) < ``onnx_file`` and ``ir_weights``, ``ir_run`` <
``ir``; ``degeneracy``; ``tree`` puts them together, for publishing and for ``make verify``.
"""
