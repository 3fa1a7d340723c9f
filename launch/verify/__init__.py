"""Verification: what a tree must be, measured from its files.

Floors, from the bottom: ``checks`` (what a check says), ``leaks``; ``runtime`` (OpenVINO) < ``ir_weights``;
``ir_xml``, ``onnx_file``, ``measuring`` (processes of their own) < ``ir``; ``degeneracy``; ``tree`` puts them
together, for publishing and for ``make verify``.
"""
