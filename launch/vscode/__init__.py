"""VS Code's launch file, and what running a configuration means without VS Code (sources: README.md here)."""
