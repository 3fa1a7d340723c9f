"""NNCF and transformers with the patches applied: ``build/src/<source>``."""
