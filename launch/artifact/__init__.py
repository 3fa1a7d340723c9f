"""A finished tree: its files, checksums and provenance, and how it is published."""
