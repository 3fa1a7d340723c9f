"""The question-answering program: what upstream's two scripts do, on releases from the package registry.

Only functions that need torch import it.
"""
