"""One tree, from a launch configuration to the published files."""
