"""What upstream's two scripts do, on released packages; torch is imported in functions, and in ``cut``."""
