"""Verification: measures from a tree's files whether they are what the variant must be.

A module imports only from those on its left:
checks, leaks, runtime, ir_weights, ir_xml, onnx_file, measuring, ir, degeneracy, tree.
"""
