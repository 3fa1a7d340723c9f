"""The question-answering program: what upstream's two scripts do, on releases from the package registry.

``run_qa.py`` and ``gen_hybrid_sparse_qa.py`` are what a launch configuration starts; they share everything
but the way they name their product.  Only functions that need torch import it.
"""
