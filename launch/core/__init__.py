"""What every room stands on: errors, paths, files, locks, child processes, what is shown of a machine."""
