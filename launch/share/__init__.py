"""What is done with finished trees: compare, report, package."""
