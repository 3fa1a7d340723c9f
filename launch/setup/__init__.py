"""Python, uv and the environments, from the locks in ``locks/``."""
