"""Upstream's run_qa.py on the kit's program."""

from launch.qa.program import start

if __name__ == "__main__":
    start("run_qa.py")
